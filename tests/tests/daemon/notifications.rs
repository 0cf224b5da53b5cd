//! From the wire to a webhook, over TLS: what is sent, and what happens when the receiver misbehaves.

use std::{fs, path::Path, time::Duration};

use probe_common::wire::MacAddr;
use probe_tests::{
    Answer, Authority, Daemon, Frame, Host, INTERFACE, Lab, Metrics, Process, Receiver,
    SHARED_ADDRESS, SocketPlace, Stream,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// For a message, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);
/// For a message after a timeout or a retry.
const LATER: Duration = Duration::from_secs(40);

/// The files of the webhook's settings.
struct Files(TempDir);

impl Files {
    fn new(authority: &Authority, url: &str) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.write("url", url);
        files.write("ca.pem", &authority.pem());
        files
    }

    fn write(&self, name: &str, text: &str) {
        // Replaced by renaming, as a mounted Secret is.
        let new = self.0.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.0.path().join(name)).unwrap();
    }

    fn option(&self, flag: &str, name: &str) -> String {
        let path: &Path = &self.0.path().join(name);
        format!("--webhook-{flag}-file={}", path.display())
    }

    fn options(&self) -> Vec<String> {
        vec![self.option("url", "url"), self.option("ca", "ca.pem")]
    }
}

fn start<'a>(host: &'a Host, options: &[String], more: &[&str]) -> Daemon<'a> {
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    host.ready_daemon(&[&options, more].concat()).unwrap()
}

fn drill(host: &Host, place: &SocketPlace) -> Process {
    let words = ["drill", "--for", "5m", "--socket", place.word()];
    let drill = host.probe(&words).unwrap();
    drill
        .wait_for_line(Stream::Stdout, SOON, |line| line.contains("DRILL/conflict"))
        .unwrap();
    drill
}

fn end(mut drill: Process) {
    drill.interrupt().unwrap();
    assert_eq!(drill.exit_status(SOON).unwrap().code(), Some(0));
}

fn count(metrics: &Metrics, result: &str) -> u64 {
    let labels = [("channel", "webhook"), ("result", result)];
    metrics
        .count("arp_monitor_notifications_total", &labels)
        .unwrap()
}

fn wait_for_count(daemon: &Daemon<'_>, result: &str, number: u64) {
    let what = format!("{number} {result}");
    daemon
        .wait_for_metrics(&what, LATER, |metrics| Ok(count(metrics, result) >= number))
        .unwrap();
}

fn kinds(receiver: &Receiver) -> Vec<Value> {
    let notification = receiver.notifications().into_iter();
    notification
        .map(|mut notification| notification["kind"].take())
        .collect()
}

fn is(notification: &Value, kind: &str, ip: &str) -> bool {
    notification["kind"] == kind && notification["finding"]["ip"] == ip
}

#[test]
fn a_conflict_is_sent_with_both_macs_and_so_is_its_end() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let authority = Authority::new().unwrap();
    let receiver = hosts.client.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&authority, &receiver.url());
    files.write("secret", "s3cret\n");
    let mut options = files.options();
    options.push(files.option("secret", "secret"));
    let more = ["--track=192.0.2.0/24", "--quiet-after=5s"];
    let daemon = start(
        &hosts.client,
        &options,
        &[&more[..], &["--active-probing", "auto"]].concat(),
    );

    hosts.ask().unwrap();
    let opened = receiver
        .wait_for_notification("the conflict", SOON, |notification| {
            is(notification, "conflict", SHARED_ADDRESS)
        })
        .unwrap();
    assert_eq!(
        (&opened["severity"], &opened["drill"]),
        (&json!("critical"), &json!(false))
    );
    for owner in [&hosts.server, &hosts.rival] {
        let mac = owner.mac().to_string();
        assert!(
            opened["finding"]["owners"].to_string().contains(&mac),
            "{opened:#}"
        );
    }
    let first = &receiver.messages()[0];
    assert_eq!(first.request, "POST /hook HTTP/1.1");
    assert_eq!(first.headers["authorization"], "Bearer s3cret");
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(first.body["version"], 1);

    // A new token needs no restart.
    files.write("secret", "an0ther\n");
    hosts.remove_rival().unwrap();
    receiver
        .wait_for_notification("its end", LATER, |notification| {
            is(notification, "conflict_resolved", SHARED_ADDRESS)
        })
        .unwrap();
    let last = receiver.messages().pop().unwrap();
    assert_eq!(last.headers["authorization"], "Bearer an0ther");
    wait_for_count(&daemon, "sent", 2);
    let metrics = daemon.metrics().unwrap();
    assert_eq!(
        (count(&metrics, "retried"), count(&metrics, "refused")),
        (0, 0)
    );
    let said = daemon.process().said();
    for secret in ["s3cret", "an0ther", "/hook"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn nothing_is_sent_to_a_receiver_with_an_untrusted_certificate() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let [authority, stranger] = [Authority::new().unwrap(), Authority::new().unwrap()];
    let receiver = monitor.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&stranger, &receiver.url());
    let daemon = start(&monitor, &files.options(), &["--socket", place.word()]);
    let drill = drill(&monitor, &place);
    wait_for_count(&daemon, "retried", 2);
    assert_eq!(receiver.messages().len(), 0);
    daemon
        .process()
        .wait_for_line(Stream::Stderr, SOON, |line| {
            line.contains("invalid peer certificate") && line.contains("--webhook-ca-file")
        })
        .unwrap();
    files.write("ca.pem", &authority.pem());
    let received = receiver
        .wait_for_notification("the drill", LATER, |notification| {
            is(notification, "conflict", "192.0.2.1")
        })
        .unwrap();
    assert_eq!(received["drill"], true);
    assert!(received["text"].as_str().unwrap().starts_with("DRILL"));
    end(drill);
    receiver
        .wait_for_notification("its end", SOON, |notification| {
            is(notification, "conflict_resolved", "192.0.2.1")
        })
        .unwrap();
}

#[test]
fn the_authorities_of_the_system_do_not_trust_a_private_one() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let authority = Authority::new().unwrap();
    let receiver = monitor.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let options = [files.option("url", "url")];
    let daemon = start(&monitor, &options, &["--socket", place.word()]);
    let _drill = drill(&monitor, &place);
    wait_for_count(&daemon, "retried", 1);
    assert_eq!(receiver.messages().len(), 0);
}

#[test]
fn notifications_that_waited_for_a_receiver_are_one_message() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let authority = Authority::new().unwrap();
    let port = monitor.free_port().unwrap();
    let files = Files::new(&authority, &format!("https://localhost:{port}/hook"));
    let daemon = start(&monitor, &files.options(), &["--socket", place.word()]);
    let drill = drill(&monitor, &place);
    let waiting = [("channel", "webhook")];
    daemon
        .wait_for_metrics("one that waits after two attempts", LATER, |metrics| {
            let waiting = metrics.get("arp_monitor_notifications_pending", &waiting);
            Ok(count(metrics, "retried") >= 2 && waiting == Some(1.0))
        })
        .unwrap();
    end(drill);
    let receiver = monitor.receiver(&authority, port, []).unwrap();
    let received = receiver.wait_for(1, LATER).unwrap();
    let notification = &received[0].body["notifications"];
    assert_eq!(notification.as_array().unwrap().len(), 1, "{received:#?}");
    assert_eq!(notification[0]["kind"], "conflict_resolved");
    assert_eq!(notification[0]["number"], 2);
    assert_eq!(notification[0]["first"]["finding"], "conflict");
    wait_for_count(&daemon, "sent", 1);
}

#[test]
fn temporary_errors_are_retried_and_nothing_is_sent_twice_after_success() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let authority = Authority::new().unwrap();
    let answers = [
        Answer::Status(500, "", "out of order"),
        Answer::Status(429, "Retry-After: 3\r\n", ""),
        Answer::End,
    ];
    let receiver = monitor.receiver(&authority, 0, answers).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(&monitor, &files.options(), &["--socket", place.word()]);
    let drill = drill(&monitor, &place);
    let received = receiver.wait_for(3, SOON).unwrap();
    let waited = received[2].arrived.duration_since(received[1].arrived);
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
    wait_for_count(&daemon, "sent", 1);
    assert_eq!(count(&daemon.metrics().unwrap(), "retried"), 3);
    // The response to a secret URL may repeat it, and is not logged.
    assert!(!daemon.process().said().contains("out of order"));
    end(drill);
    wait_for_count(&daemon, "sent", 2);
    // Four attempts at one, and one at the other.
    let conflict = json!("conflict");
    let expected = [
        conflict.clone(),
        conflict.clone(),
        conflict.clone(),
        conflict,
        json!("conflict_resolved"),
    ];
    assert_eq!(kinds(&receiver), expected);
}

#[test]
fn a_receiver_that_is_silent_or_endless_delays_nothing_else() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let authority = Authority::new().unwrap();
    let answers = [Answer::Silence, Answer::Endless(503), Answer::Endless(200)];
    let receiver = monitor.receiver(&authority, 0, answers).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(&monitor, &files.options(), &["--socket", place.word()]);
    let _drill = drill(&monitor, &place);
    receiver.wait_for(1, SOON).unwrap();
    // Detection goes on meanwhile.
    conflicts(&wire, 1);
    daemon.wait_for_finding("conflict", SOON).unwrap();
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    assert_eq!(receiver.messages().len(), 1);
    wait_for_count(&daemon, "sent", 1);
    let received = receiver.messages();
    assert_eq!(received.len(), 3);
    // What happened meanwhile is in the same message.
    assert_eq!(
        received[2].body["notifications"].as_array().unwrap().len(),
        2
    );
    assert_eq!(count(&daemon.metrics().unwrap(), "retried"), 2);
}

#[test]
fn a_redirection_is_refused_and_not_followed() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let authority = Authority::new().unwrap();
    let elsewhere = monitor.receiver(&authority, 8443, []).unwrap();
    let answers = [
        Answer::Status(307, "Location: https://localhost:8443/other\r\n", ""),
        Answer::Status(403, "", "invalid_token"),
    ];
    let receiver = monitor.receiver(&authority, 0, answers).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(&monitor, &files.options(), &["--socket", place.word()]);
    let drill = drill(&monitor, &place);
    wait_for_count(&daemon, "refused", 1);
    end(drill);
    wait_for_count(&daemon, "refused", 2);
    assert_eq!(elsewhere.messages().len(), 0);
    let metrics = daemon.metrics().unwrap();
    assert_eq!(
        (count(&metrics, "sent"), count(&metrics, "retried")),
        (0, 0)
    );
    let said = daemon.finish().unwrap().stderr;
    assert!(said.contains("redirection"), "{said}");
    assert!(said.contains("answered 403"), "{said}");
    assert!(!said.contains("invalid_token"), "{said}");
}

#[test]
fn a_storm_is_one_message_that_counts_what_it_does_not_list() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let authority = Authority::new().unwrap();
    // So that all of it has happened before the first message.
    let receiver = monitor
        .receiver(
            &authority,
            0,
            [Answer::Status(503, "Retry-After: 5\r\n", "")],
        )
        .unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(&monitor, &files.options(), &[]);
    conflicts(&wire, 200);
    let received = receiver.wait_for(2, SOON).unwrap();
    assert_eq!(
        received[1].body["notifications"].as_array().unwrap().len(),
        50
    );
    assert_eq!(received[1].body["more"], json!({ "conflict": 150 }));
    wait_for_count(&daemon, "sent", 1);
    let dropped = [("channel", "webhook")];
    let dropped = daemon
        .wait_for_metrics("the others to be counted", SOON, |metrics| {
            Ok(metrics.get("arp_monitor_notifications_pending", &dropped) == Some(0.0))
        })
        .unwrap()
        .get("arp_monitor_notifications_dropped_total", &dropped);
    assert_eq!(dropped, Some(150.0));
}

#[test]
fn the_text_names_what_happened_where_and_the_next_step() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let authority = Authority::new().unwrap();
    let receiver = monitor.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let _daemon = start(&monitor, &files.options(), &["--webhook-format=slack"]);
    conflicts(&wire, 1);
    let received = receiver.wait_for(1, SOON).unwrap();
    let text = received[0].body["text"].as_str().unwrap();
    for part in [
        "*Warning: 198.18.0.0 has 2 owners*",
        "02:00:00:00:00:aa",
        "02:00:00:00:00:bb",
        INTERFACE,
        "probe bindings --mac",
        "reported by ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(received[0].body.as_object().unwrap().len(), 1);
}

#[test]
fn a_conflict_just_before_shutdown_is_sent() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let authority = Authority::new().unwrap();
    let receiver = monitor.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(&monitor, &files.options(), &["--socket", place.word()]);
    let drill = drill(&monitor, &place);
    assert!(daemon.terminate().unwrap().success());
    assert!(kinds(&receiver).contains(&json!("conflict")));
    drop(drill);
}

/// Two owners answer one request for each of so many addresses (198.18.0.0/15, RFC 2544).
fn conflicts(wire: &Host, number: u32) {
    let asker = MacAddr([2, 0, 0, 0, 0, 0xcc]);
    let owners = [
        MacAddr([2, 0, 0, 0, 0, 0xaa]),
        MacAddr([2, 0, 0, 0, 0, 0xbb]),
    ];
    let sender = wire.sender().unwrap();
    for number in 0..number {
        let ip = std::net::Ipv4Addr::from(0xc612_0000 + number);
        let asked = [192, 0, 2, 99];
        sender.send(&Frame::request(asker, asked, ip)).unwrap();
        for owner in owners {
            let reply = Frame::reply(owner, ip, asker, asked);
            sender.send(&reply).unwrap();
        }
    }
}
