//! From frames to a webhook over TLS: what is sent, and what happens when the receiver misbehaves.

use std::{fs, path::Path, time::Duration};

use probe_common::wire::MacAddr;
use probe_tests::{
    Authority, Daemon, DaemonSocket, Frame, Host, INTERFACE, Lab, Metrics, Process, Receiver,
    ReceiverResponse, SHARED_ADDRESS, Stream,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Timeout for a message on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout for a message after a timeout or a retry.
const RETRY_TIMEOUT: Duration = Duration::from_secs(40);

/// The files of the webhook settings.
struct Files(TempDir);

impl Files {
    fn new(authority: &Authority, url: &str) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.write("url", url);
        files.write("ca.pem", &authority.pem());
        files
    }

    fn write(&self, name: &str, text: &str) {
        // Replaced by renaming, as in a mounted Secret.
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

fn drill(host: &Host, daemon_socket: &DaemonSocket) -> Process {
    let words = ["drill", "--for", "5m", "--socket", daemon_socket.argument()];
    let drill = host.probe(&words).unwrap();
    drill
        .wait_for_line(Stream::Stdout, TIMEOUT, |line| {
            line.contains("DRILL/conflict")
        })
        .unwrap();
    drill
}

fn end(mut drill: Process) {
    drill.interrupt().unwrap();
    assert_eq!(drill.exit_status(TIMEOUT).unwrap().code(), Some(0));
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
        .wait_for_metrics(&what, RETRY_TIMEOUT, |metrics| {
            Ok(count(metrics, result) >= number)
        })
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
    options.push(files.option("bearer-token", "secret"));
    let more = ["--track=192.0.2.0/24", "--quiet-after=5s"];
    let daemon = start(
        &hosts.client,
        &options,
        &[&more[..], &["--active-probing", "auto"]].concat(),
    );

    hosts.resolve().unwrap();
    let opened = receiver
        .wait_for_notification("the conflict", TIMEOUT, |notification| {
            is(notification, "conflict", SHARED_ADDRESS)
        })
        .unwrap();
    assert_eq!(
        (&opened["severity"], &opened["drill"]),
        (&json!("critical"), &json!(false))
    );
    for owner in [&hosts.server, &hosts.duplicate] {
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
    hosts.remove_duplicate().unwrap();
    receiver
        .wait_for_notification("the end of the conflict", RETRY_TIMEOUT, |notification| {
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
    let messages = daemon.process().written_output();
    for secret in ["s3cret", "an0ther", "/hook"] {
        assert!(!messages.contains(secret), "{messages}");
    }
}

#[test]
fn nothing_is_sent_to_a_receiver_with_an_untrusted_certificate() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let [authority, unknown_host] = [Authority::new().unwrap(), Authority::new().unwrap()];
    let receiver = monitor.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&unknown_host, &receiver.url());
    let daemon = start(
        &monitor,
        &files.options(),
        &["--socket", daemon_socket.argument()],
    );
    let drill = drill(&monitor, &daemon_socket);
    wait_for_count(&daemon, "retried", 2);
    assert_eq!(receiver.messages().len(), 0);
    daemon
        .process()
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
            line.contains("invalid peer certificate") && line.contains("--webhook-ca-file")
        })
        .unwrap();
    files.write("ca.pem", &authority.pem());
    let received = receiver
        .wait_for_notification("the drill", RETRY_TIMEOUT, |notification| {
            is(notification, "conflict", "192.0.2.1")
        })
        .unwrap();
    assert_eq!(received["drill"], true);
    assert!(received["text"].as_str().unwrap().starts_with("DRILL"));
    end(drill);
    receiver
        .wait_for_notification("the end of the conflict", TIMEOUT, |notification| {
            is(notification, "conflict_resolved", "192.0.2.1")
        })
        .unwrap();
}

#[test]
fn system_authorities_do_not_trust_a_private_one() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let authority = Authority::new().unwrap();
    let receiver = monitor.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let options = [files.option("url", "url")];
    let daemon = start(&monitor, &options, &["--socket", daemon_socket.argument()]);
    let _drill = drill(&monitor, &daemon_socket);
    wait_for_count(&daemon, "retried", 1);
    assert_eq!(receiver.messages().len(), 0);
}

#[test]
fn pending_notifications_are_sent_in_one_message() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let authority = Authority::new().unwrap();
    let port = monitor.free_port().unwrap();
    let files = Files::new(&authority, &format!("https://localhost:{port}/hook"));
    let daemon = start(
        &monitor,
        &files.options(),
        &["--socket", daemon_socket.argument()],
    );
    let drill = drill(&monitor, &daemon_socket);
    let waiting = [("channel", "webhook")];
    daemon
        .wait_for_metrics(
            "a pending notification after two attempts",
            RETRY_TIMEOUT,
            |metrics| {
                let waiting = metrics.get("arp_monitor_notifications_pending", &waiting);
                Ok(count(metrics, "retried") >= 2 && waiting == Some(1.0))
            },
        )
        .unwrap();
    end(drill);
    let receiver = monitor.receiver(&authority, port, []).unwrap();
    let received = receiver.wait_for(1, RETRY_TIMEOUT).unwrap();
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
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let authority = Authority::new().unwrap();
    let responses = [
        ReceiverResponse::Status(500, "", "out of order"),
        ReceiverResponse::Status(429, "Retry-After: 3\r\n", ""),
        ReceiverResponse::Close,
    ];
    let receiver = monitor.receiver(&authority, 0, responses).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(
        &monitor,
        &files.options(),
        &["--socket", daemon_socket.argument()],
    );
    let drill = drill(&monitor, &daemon_socket);
    let received = receiver.wait_for(3, TIMEOUT).unwrap();
    let waited = received[2].arrived.duration_since(received[1].arrived);
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
    wait_for_count(&daemon, "sent", 1);
    assert_eq!(count(&daemon.metrics().unwrap(), "retried"), 3);
    // The response to a secret URL may repeat it, and is not logged.
    assert!(!daemon.process().written_output().contains("out of order"));
    end(drill);
    wait_for_count(&daemon, "sent", 2);
    // Four attempts for one message, and one for the other.
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
fn a_silent_or_endless_receiver_delays_nothing_else() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let authority = Authority::new().unwrap();
    let responses = [
        ReceiverResponse::NoResponse,
        ReceiverResponse::Endless(503),
        ReceiverResponse::Endless(200),
    ];
    let receiver = monitor.receiver(&authority, 0, responses).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(
        &monitor,
        &files.options(),
        &["--socket", daemon_socket.argument()],
    );
    let _drill = drill(&monitor, &daemon_socket);
    receiver.wait_for(1, TIMEOUT).unwrap();
    // Detection continues meanwhile.
    conflicts(&peer, 1);
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    assert_eq!(receiver.messages().len(), 1);
    wait_for_count(&daemon, "sent", 1);
    let received = receiver.messages();
    assert_eq!(received.len(), 3);
    // The findings made meanwhile are in the same message.
    assert_eq!(
        received[2].body["notifications"].as_array().unwrap().len(),
        2
    );
    assert_eq!(count(&daemon.metrics().unwrap(), "retried"), 2);
}

#[test]
fn a_redirection_is_refused_and_not_followed() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let authority = Authority::new().unwrap();
    let elsewhere = monitor.receiver(&authority, 8443, []).unwrap();
    let responses = [
        ReceiverResponse::Status(307, "Location: https://localhost:8443/other\r\n", ""),
        ReceiverResponse::Status(403, "", "invalid_token"),
    ];
    let receiver = monitor.receiver(&authority, 0, responses).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(
        &monitor,
        &files.options(),
        &["--socket", daemon_socket.argument()],
    );
    let drill = drill(&monitor, &daemon_socket);
    wait_for_count(&daemon, "refused", 1);
    end(drill);
    wait_for_count(&daemon, "refused", 2);
    assert_eq!(elsewhere.messages().len(), 0);
    let metrics = daemon.metrics().unwrap();
    assert_eq!(
        (count(&metrics, "sent"), count(&metrics, "retried")),
        (0, 0)
    );
    let messages = daemon.finish().unwrap().stderr;
    assert!(messages.contains("redirection"), "{messages}");
    assert!(messages.contains("answered 403"), "{messages}");
    assert!(!messages.contains("invalid_token"), "{messages}");
}

#[test]
fn many_conflicts_are_one_message_that_counts_omitted_ones() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let authority = Authority::new().unwrap();
    // The delay ensures that all findings are made before the first message.
    let receiver = monitor
        .receiver(
            &authority,
            0,
            [ReceiverResponse::Status(503, "Retry-After: 5\r\n", "")],
        )
        .unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(&monitor, &files.options(), &[]);
    conflicts(&peer, 200);
    let received = receiver.wait_for(2, TIMEOUT).unwrap();
    assert_eq!(
        received[1].body["notifications"].as_array().unwrap().len(),
        50
    );
    assert_eq!(received[1].body["more"], json!({ "conflict": 150 }));
    wait_for_count(&daemon, "sent", 1);
    let webhook = [("channel", "webhook")];
    daemon
        .wait_for_metrics(
            "the omitted notifications to be counted",
            TIMEOUT,
            |metrics| {
                let get = |name| metrics.get(name, &webhook);
                Ok(get("arp_monitor_notifications_pending") == Some(0.0)
                    && get("arp_monitor_notifications_dropped_total") == Some(150.0))
            },
        )
        .unwrap();
}

#[test]
fn the_text_names_the_finding_the_location_and_the_next_step() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let authority = Authority::new().unwrap();
    let receiver = monitor.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let _daemon = start(&monitor, &files.options(), &["--webhook-format=slack"]);
    conflicts(&peer, 1);
    let received = receiver.wait_for(1, TIMEOUT).unwrap();
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
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let authority = Authority::new().unwrap();
    let receiver = monitor.receiver(&authority, 0, []).unwrap();
    let files = Files::new(&authority, &receiver.url());
    let daemon = start(
        &monitor,
        &files.options(),
        &["--socket", daemon_socket.argument()],
    );
    conflicts(&peer, 1);
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert!(daemon.terminate().unwrap().success());
    let sent = kinds(&receiver);
    assert!(sent.contains(&json!("conflict")), "{sent:?}");
}

/// Sends two replies by different owners to one request for each of this number of addresses (198.18.0.0/15, RFC
/// 2544).
fn conflicts(peer: &Host, number: u32) {
    let requester = MacAddr([2, 0, 0, 0, 0, 0xcc]);
    let owners = [
        MacAddr([2, 0, 0, 0, 0, 0xaa]),
        MacAddr([2, 0, 0, 0, 0, 0xbb]),
    ];
    let sender = peer.sender().unwrap();
    for number in 0..number {
        let ip = std::net::Ipv4Addr::from(0xc612_0000 + number);
        let requester_address = [192, 0, 2, 99];
        sender
            .send(&Frame::request(requester, requester_address, ip))
            .unwrap();
        for owner in owners {
            let reply = Frame::reply(owner, ip, requester, requester_address);
            sender.send(&reply).unwrap();
        }
    }
}
