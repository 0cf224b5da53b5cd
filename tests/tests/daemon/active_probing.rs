//! The daemon that asks: what it finds by it, what it sends for it, and whom it leaves alone.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use probe_common::wire::MacAddr;
use probe_tests::{
    Daemon, Duplicate, Finding, Frame, Host, INTERFACE, Lab, Link, Metrics, Process,
    SHARED_ADDRESS, SocketPlace, Stream, eventually,
};

/// [`SHARED_ADDRESS`], as frames have it.
const SHARED: [u8; 4] = [192, 0, 2, 10];
/// For something that comes at once, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(10);
/// The start's minute, and more.
const LONG: Duration = Duration::from_secs(90);
/// What `--probe-interval` has for tests that do not want to wait five minutes.
const OFTEN: [&str; 2] = ["--probe-interval", "2s"];
/// The last bytes of addresses that are taken over while several daemons watch.
const TAKEN_OVER: [u8; 2] = [200, 201];

/// A daemon with a socket of its own, of which every finding is seen, not only those that it logs.
struct Watched<'a> {
    daemon: Daemon<'a>,
    place: SocketPlace,
}

impl<'a> Watched<'a> {
    fn start(host: &'a Host, options: &[&str]) -> Self {
        Self::on(
            host,
            &[&["-i", INTERFACE, "--attach", "tc"], options].concat(),
        )
    }

    fn on(host: &'a Host, options: &[&str]) -> Self {
        let place = SocketPlace::new().unwrap();
        let asking = if options.contains(&"--active-probing") {
            &[][..]
        } else {
            &["--active-probing", "auto"]
        };
        let options = [&["--socket", place.word()], asking, options].concat();
        Self {
            daemon: host.ready_bare_daemon(&options).unwrap(),
            place,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let lines = self.place.get("/v1/findings?since=0&follow=false").unwrap();
        lines.map(|line| Finding::parse(&line).unwrap()).collect()
    }

    fn of(&self, finding: &str) -> Vec<Finding> {
        let mut findings = self.findings();
        findings.retain(|found| found.finding == finding);
        findings
    }

    fn wait_for(&self, finding: &str, ip: &str, within: Duration) -> Finding {
        eventually(&format!("{finding} of {ip}"), within, || {
            let found = self.of(finding).into_iter().find(|found| found.ip == ip);
            Ok(found)
        })
        .map_err(|error| format!("{error:#}; there are {:#?}", self.findings()))
        .unwrap()
    }

    fn bindings(&self) -> Vec<serde_json::Value> {
        let lines = self.place.get("/v1/bindings").unwrap();
        lines
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect()
    }

    fn asked(&self, purpose: &str) -> u64 {
        asked(&self.daemon.metrics().unwrap(), purpose)
    }

    fn wait_until_asked(&self, purpose: &str, frames: u64, within: Duration) {
        let what = format!("{frames} frames for {purpose}");
        let wish = |metrics: &Metrics| Ok(asked(metrics, purpose) >= frames);
        self.daemon.wait_for_metrics(&what, within, wish).unwrap();
    }
}

fn asked(metrics: &Metrics, purpose: &str) -> u64 {
    metrics
        .count("arp_monitor_arp_probes_sent_total", &[("purpose", purpose)])
        .unwrap()
}

fn not_sent(metrics: &Metrics, reason: &str) -> u64 {
    metrics
        .count(
            "arp_monitor_arp_probes_not_sent_total",
            &[("reason", reason)],
        )
        .unwrap()
}

/// Three hosts, of which the server has the address and the rival has not, yet.
fn before_the_duplicate(lab: &Lab) -> Duplicate {
    let hosts = lab.three_hosts().unwrap();
    hosts.remove_rival().unwrap();
    hosts
}

/// The rival takes the address and says so.
fn take_over(hosts: &Duplicate) {
    hosts
        .rival
        .add_address(&format!("{SHARED_ADDRESS}/24"))
        .unwrap();
    announce(&hosts.rival);
}

fn announce(host: &Host) {
    let frame = Frame::announcement(host.mac(), SHARED);
    host.sender().unwrap().send(&frame).unwrap();
}

/// The ARP frames that pass a host's network card, as tcpdump tells them: with the time at which the kernel took
/// them, and without what goes over the loopback meanwhile.
struct Tapped(Process);

impl Tapped {
    /// `direction` is `out` for what the host sends, `in` for what it receives.
    fn start(host: &Host, direction: &str) -> Self {
        let words = [
            "tcpdump",
            "--immediate-mode",
            "-l",
            "-n",
            "-e",
            "-tt",
            "-Q",
            direction,
        ];
        let words = words.into_iter().chain(["-i", INTERFACE, "arp"]);
        let tcpdump = host.spawn(words).unwrap();
        tcpdump
            .wait_for_line(Stream::Stderr, SOON, |line| line.contains("listening on"))
            .unwrap();
        Self(tcpdump)
    }

    fn lines(&self) -> Vec<String> {
        self.0.lines(Stream::Stdout)
    }

    /// Questions of daemons.
    fn questions(&self) -> Vec<Question> {
        self.lines()
            .iter()
            .filter_map(|line| question(line))
            .collect()
    }
}

/// An ARP probe of a daemon's.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Question {
    /// When the kernel took it, in seconds.
    at: f64,
    from: MacAddr,
    to: MacAddr,
}

/// A question of a daemon's in the words of tcpdump: an ARP probe with its mark, from its own MAC.
fn question(line: &str) -> Option<Question> {
    let mut words = line.split_whitespace();
    let at = words.next()?.parse().ok()?;
    let source = words.next()?;
    let to = match words.nth(1)?.trim_end_matches(',') {
        "Broadcast" => MacAddr::BROADCAST,
        mac => mac.parse().ok()?,
    };
    let (_, what) = line.split_once(": Request who-has ")?;
    let is_marked = what.contains(&format!(" ({source}) tell 0.0.0.0, "));
    is_marked.then_some(Question {
        at,
        from: source.parse().ok()?,
        to,
    })
}

#[test]
fn two_hosts_that_keep_an_address_after_a_takeover_are_a_conflict_within_five_seconds() {
    let lab = Lab::new().unwrap();
    let hosts = before_the_duplicate(&lab);
    let watched = Watched::start(&hosts.client, &[]);
    hosts.ask().unwrap();
    watched.wait_for("new_binding", SHARED_ADDRESS, SOON);
    let changed = Timestamp::now();
    take_over(&hosts);
    let conflict = watched.wait_for("conflict", SHARED_ADDRESS, SOON);
    let took = conflict.seconds_after(changed).unwrap();
    assert!((0.0..5.0).contains(&took), "{took}");
    assert_eq!(conflict.evidence, "confirmed");
    assert_eq!(conflict.counts["confirmed"], 1);
    assert_eq!(
        conflict.macs().unwrap(),
        [hosts.server.mac(), hosts.rival.mac()]
    );
    watched.wait_until_asked("confirmation", 4, SOON);
    assert_eq!(watched.asked("confirmation"), 4);
}

#[test]
fn an_old_owner_that_does_not_answer_makes_it_a_move_before_its_ten_seconds() {
    let lab = Lab::new().unwrap();
    let hosts = before_the_duplicate(&lab);
    let watched = Watched::start(&hosts.client, &[]);
    hosts.ask().unwrap();
    watched.wait_for("new_binding", SHARED_ADDRESS, SOON);
    hosts
        .server
        .remove_address(&format!("{SHARED_ADDRESS}/24"))
        .unwrap();
    let changed = Timestamp::now();
    take_over(&hosts);
    let moved = watched.wait_for("moved", SHARED_ADDRESS, SOON);
    let took = moved.seconds_after(changed).unwrap();
    assert!((0.0..8.0).contains(&took), "{took}");
    for bad in ["contested", "conflict"] {
        assert_eq!(watched.of(bad), [], "{bad}");
    }
}

/// Nobody but the daemon ever asks for the address.
#[test]
fn a_duplicate_that_nobody_asks_for_is_found_by_care() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watched = Watched::start(
        &hosts.client,
        &["--track", "192.0.2.10/32", "--probe-interval", "2s"],
    );
    let conflict = watched.wait_for("conflict", SHARED_ADDRESS, LONG);
    assert_eq!(conflict.severity, "critical");
    assert_eq!(conflict.evidence, "duplicate_reply");
    assert_eq!(
        conflict.macs().unwrap(),
        [hosts.server.mac(), hosts.rival.mac()]
    );
}

/// This host has it, and its own kernel neither answers the question nor minds it.
#[test]
fn a_stranger_on_an_address_of_this_host_is_found_by_care() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watched = Watched::start(&hosts.server, &OFTEN);
    let sent = Tapped::start(&hosts.server, "out");
    let conflict = watched.wait_for("conflict", SHARED_ADDRESS, LONG);
    assert_eq!(
        (conflict.evidence.as_str(), conflict.severity.as_str()),
        (Some("local"), "critical")
    );
    let sent = sent.lines();
    assert!(
        sent.iter().all(|line| question(line).is_some()),
        "{sent:#?}"
    );
    assert!(watched.asked("local") >= 1);
    let address = hosts
        .server
        .exec(["ip", "-o", "address", "show", "dev", INTERFACE])
        .unwrap();
    assert!(
        !address.contains("dadfailed") && address.contains(SHARED_ADDRESS),
        "{address}"
    );
}

#[test]
fn a_conflict_that_one_owner_leaves_is_resolved() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watched = Watched::start(&hosts.client, &["--quiet-after", "5s"]);
    hosts.ask().unwrap();
    watched.wait_for("conflict", SHARED_ADDRESS, SOON);
    hosts.remove_rival().unwrap();
    let resolved = watched.wait_for("conflict_resolved", SHARED_ADDRESS, Duration::from_secs(30));
    assert_eq!(resolved.owners[0].macs, [hosts.server.mac().to_string()]);
    watched.wait_until_asked("resolution", 2, SOON);
    assert_eq!(watched.asked("resolution"), 2);
    assert_eq!(watched.of("conflict_quiet"), []);
}

#[test]
fn where_it_may_not_ask_a_conflict_becomes_quiet_and_does_not_hang() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watched = Watched::start(&hosts.client, &["--quiet-after", "3s"]);
    hosts.ask().unwrap();
    watched.wait_for("conflict", SHARED_ADDRESS, SOON);
    // The address is on-link no more.
    hosts.client.remove_address("192.0.2.1/24").unwrap();
    hosts.client.add_address("198.51.100.1/24").unwrap();
    watched.wait_for("conflict_quiet", SHARED_ADDRESS, Duration::from_secs(20));
    let wish = |metrics: &Metrics| Ok(not_sent(metrics, "off_link") >= 1);
    watched
        .daemon
        .wait_for_metrics("a question that was not put", SOON, wish)
        .unwrap();
    assert_eq!(watched.asked("resolution"), 0);
}

#[test]
fn an_address_that_matters_and_does_not_answer_is_silent_until_it_does() {
    let lab = Lab::new().unwrap();
    let hosts = before_the_duplicate(&lab);
    hosts.server.add_address("192.0.2.11/24").unwrap();
    let options = ["--track", "192.0.2.10/32", "--probe-interval", "2s"];
    let watched = Watched::start(&hosts.client, &options);
    watched.wait_for("new_binding", SHARED_ADDRESS, LONG);
    // So that there is somebody who would answer, too.
    hosts.client.ask("192.0.2.11").unwrap();
    assert_eq!(watched.of("silent"), []);

    let address = format!("{SHARED_ADDRESS}/24");
    hosts.server.remove_address(&address).unwrap();
    hosts.server.add_address("192.0.2.11/24").ok();
    let silent = watched.wait_for("silent", SHARED_ADDRESS, Duration::from_secs(30));
    assert_eq!(silent.severity, "warning");
    let is_silent = || {
        let bindings = watched.bindings();
        let binding = bindings.iter().find(|it| it["ip"] == SHARED_ADDRESS);
        binding.unwrap()["silent_since"].is_string()
    };
    assert!(is_silent());

    hosts.server.add_address(&address).unwrap();
    eventually(
        "the address to speak again",
        Duration::from_secs(20),
        || Ok((!is_silent()).then_some(())),
    )
    .unwrap();
    assert_eq!(watched.of("silent").len(), 1);
}

#[test]
fn an_unplugged_cable_is_not_silence() {
    let lab = Lab::new().unwrap();
    let hosts = before_the_duplicate(&lab);
    hosts.server.add_address("192.0.2.11/24").unwrap();
    let options = [
        "--track",
        "192.0.2.10/32,192.0.2.11/32",
        "--probe-interval",
        "1s",
    ];
    let watched = Watched::start(&hosts.client, &options);
    watched.wait_for("new_binding", SHARED_ADDRESS, LONG);
    watched.wait_for("new_binding", "192.0.2.11", LONG);
    hosts.switch.unplug(&hosts.client).unwrap();
    let wish = |metrics: &Metrics| Ok(not_sent(metrics, "link_down") >= 6);
    watched
        .daemon
        .wait_for_metrics(
            "questions that were not sent",
            Duration::from_secs(30),
            wish,
        )
        .unwrap();
    // Nor is what is unplugged further away: the carrier stays, and nobody answers.
    hosts.switch.plug(&hosts.client).unwrap();
    hosts
        .client
        .wait_for_link("its carrier", Link::is_up)
        .unwrap();
    hosts.switch.unplug(&hosts.server).unwrap();
    let before = watched.asked("periodic");
    watched.wait_until_asked("periodic", before + 12, Duration::from_secs(40));
    assert_eq!(watched.of("silent"), []);
}

/// Its kernel is told to keep quiet, so that whatever the host sends is the daemon's.
#[test]
fn all_that_it_ever_sends_are_arp_probes_from_its_own_mac_five_a_second() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let client = &hosts.client;
    client
        .set_parameter("ipv4/conf/all/arp_ignore", "8")
        .unwrap();
    let sent = Tapped::start(client, "out");
    let watched = Watched::start(
        client,
        &[
            "--track",
            "192.0.2.0/24",
            "--probe-interval",
            "1s",
            "--quiet-after",
            "2s",
        ],
    );
    // Addresses to care for, a takeover, a conflict, and somebody who wants to know who this is.
    let station = hosts.server.sender().unwrap();
    for last in 100..140 {
        let frame = Frame::announcement(hosts.server.mac(), [192, 0, 2, last]);
        station.send(&frame).unwrap();
    }
    announce(&hosts.server);
    announce(&hosts.rival);
    station
        .send(&Frame::request(hosts.server.mac(), SHARED, [192, 0, 2, 1]))
        .unwrap();
    watched.wait_for("conflict", SHARED_ADDRESS, LONG);
    watched.wait_until_asked("periodic", 150, LONG);

    // tcpdump writes a frame a moment after it was counted.
    let lines = eventually("more than 150 frames on the wire", SOON, || {
        let lines = sent.lines();
        Ok((lines.len() > 150).then_some(lines))
    })
    .unwrap();
    let metrics = watched.daemon.metrics().unwrap();
    let purposes = ["confirmation", "local", "resolution", "periodic"];
    let counted: u64 = purposes
        .iter()
        .map(|purpose| asked(&metrics, purpose))
        .sum();
    assert!(
        lines.len() as u64 <= counted,
        "{} of {counted}",
        lines.len()
    );
    let receivers = [MacAddr::BROADCAST, hosts.server.mac(), hosts.rival.mac()];
    for line in &lines {
        let question = question(line).unwrap_or_else(|| panic!("no question: {line}"));
        assert_eq!(question.from, client.mac());
        assert!(receivers.contains(&question.to), "{line}");
    }
    let times: Vec<_> = sent.questions().iter().map(|it| it.at).collect();
    assert!(most_within(&times, 0.99) <= 5);
}

/// The most frames within any time of this length, in seconds.
fn most_within(times: &[f64], length: f64) -> usize {
    let within = |from: f64| {
        let inside = |at: &&f64| (from..from + length).contains(*at);
        times.iter().filter(inside).count()
    };
    times.iter().map(|&from| within(from)).max().unwrap_or(0)
}

#[test]
fn three_daemons_on_a_segment_stay_within_one_budget_and_know_each_other() {
    let lab = Lab::new().unwrap();
    // So that a bystander sees what is for one host alone, too.
    let switch = lab.hub().unwrap();
    let hosts: Vec<_> = (1..4)
        .map(|number| {
            let host = switch.host(&format!("node{number}")).unwrap();
            host.add_address(&format!("192.0.2.{number}/24")).unwrap();
            // Each holds some of the addresses that all three care for.
            for last in 0..20 {
                let address = 100 + 20 * (number - 1) + last;
                host.add_address(&format!("192.0.2.{address}/32")).unwrap();
            }
            host
        })
        .collect();
    let bystander = switch.host("bystander").unwrap();
    let track: Vec<_> = (100..160)
        .map(|last| format!("192.0.2.{last}/32"))
        .collect();
    let track = track.join(",");
    let tapped = Tapped::start(&bystander, "in");
    // Nobody has ever heard a claim of any of them when the first question comes.
    let options = ["--track", track.as_str(), "--probe-interval", "15s"];
    let watched: Vec<_> = hosts
        .iter()
        .map(|host| Watched::start(host, &options))
        .collect();
    let asked: Vec<_> = watched
        .iter()
        .map(|watched| watched.asked("periodic"))
        .collect();
    // Meanwhile addresses are taken over by a MAC that answers nothing, which each of them asks about.
    let others = [MacAddr([2, 0, 0, 0, 9, 1]), MacAddr([2, 0, 0, 0, 9, 2])];
    let sender = bystander.sender().unwrap();
    for mac in others {
        for last in TAKEN_OVER {
            let frame = Frame::announcement(mac, [192, 0, 2, last]);
            sender.send(&frame).unwrap();
        }
        for (watched, last) in watched
            .iter()
            .flat_map(|it| TAKEN_OVER.map(|last| (it, last)))
        {
            let ip = format!("192.0.2.{last}");
            watched.wait_for("new_binding", &ip, SOON);
        }
    }
    for (watched, asked) in watched.iter().zip(asked) {
        watched.wait_until_asked("confirmation", 4, LONG);
        watched.wait_until_asked("periodic", asked + 12, LONG);
    }
    let questions = tapped.questions();
    let times = |wanted: &dyn Fn(&Question) -> bool| -> Vec<_> {
        let wanted = questions.iter().filter(|question| wanted(question));
        wanted.map(|question| question.at).collect()
    };
    // Five a second, by which all pay for what one sends to everybody. Each of the others may have decided to ask in
    // the moment in which one did.
    let to_all = times(&|question| question.to == MacAddr::BROADCAST);
    assert!(to_all.len() > 36, "{}", to_all.len());
    let overdraft = watched.len() - 1;
    let (burst, sustained) = (most_within(&to_all, 0.99), most_within(&to_all, 9.99));
    assert!(
        burst <= 5 + overdraft && sustained <= 50 + overdraft,
        "{burst} in a second, {sustained} in ten"
    );
    // What one sends, whatever it is for, is within the same budget.
    for host in &hosts {
        let own = times(&|question| question.from == host.mac());
        assert!(most_within(&own, 0.99) <= 5, "{own:?}");
        let is_unicast =
            |question: &&Question| question.from == host.mac() && others.contains(&question.to);
        assert!(questions.iter().filter(is_unicast).count() >= 4);
        assert!(
            times(&|question| question.from == host.mac() && question.to == MacAddr::BROADCAST)
                .len()
                > 1,
            "each has its turn"
        );
    }
    for watched in &watched {
        for bad in ["probe_denied", "conflict", "contested", "silent"] {
            assert_eq!(watched.of(bad), [], "{bad}");
        }
        let moved: BTreeSet<_> = watched.of("moved").into_iter().map(|it| it.ip).collect();
        let taken_over = TAKEN_OVER.map(|last| format!("192.0.2.{last}"));
        assert!(moved.is_subset(&taken_over.into()), "{moved:?}");
    }
}

/// What a host does before it takes an address (RFC 5227 section 2.1.1). Says whether it may.
fn probe_for(host: &Host, address: [u8; 4]) -> bool {
    let (capture, sender) = (host.capture().unwrap(), host.sender().unwrap());
    let conflicts = |within: Duration| {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Some(frame) = capture.next(left()).unwrap() {
            let Some(arp) = frame.arp().filter(|_| !frame.sent) else {
                continue;
            };
            let is_used = arp.spa == address;
            let is_wanted = arp.spa == [0; 4] && arp.tpa == address && arp.sha != host.mac();
            if is_used || is_wanted {
                return true;
            }
        }
        false
    };
    // PROBE_WAIT drawn as short as can be: the listening before the first probe is nobody's to foresee.
    for wait in [1_000, 1_500, 2_000] {
        sender.send(&Frame::probe(host.mac(), address)).unwrap();
        if conflicts(Duration::from_millis(wait)) {
            return false;
        }
    }
    true
}

#[test]
fn a_host_that_boots_keeps_the_address_that_it_probes_for_while_the_daemon_would_ask() {
    let lab = Lab::new().unwrap();
    let switch = lab.bridge().unwrap();
    let monitor = switch.host("monitor").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let booting = switch.host("booting").unwrap();
    // Nobody has the address, and it matters: it is asked for every second.
    let options = ["--track", "192.0.2.10/32", "--probe-interval", "1s"];
    let watched = Watched::start(&monitor, &options);
    watched.wait_until_asked("periodic", 4, LONG);
    for _ in 0..2 {
        assert!(probe_for(&booting, SHARED), "it was taken for a rival");
    }
    let wish = |metrics: &Metrics| Ok(not_sent(metrics, "newcomer") >= 1);
    watched
        .daemon
        .wait_for_metrics("a question that was put off", SOON, wish)
        .unwrap();
    let finished = booting
        .run([
            "arping",
            "-D",
            "-c2",
            "-w3",
            "-I",
            INTERFACE,
            SHARED_ADDRESS,
        ])
        .unwrap();
    assert!(finished.status.success(), "{finished:?}");
    // Put off, not dropped.
    let before = watched.asked("periodic");
    watched.wait_until_asked("periodic", before + 2, Duration::from_secs(30));
    assert_eq!(watched.of("probe_denied"), []);
}

/// Servers that have the address for themselves only, and a router that answers for what is elsewhere.
#[test]
fn hidden_service_addresses_and_proxies_are_no_owners_when_asked() {
    let lab = Lab::new().unwrap();
    let hosts = before_the_duplicate(&lab);
    hosts.rival.add_address("192.0.2.12/24").unwrap();
    hosts
        .rival
        .set_parameter("ipv4/conf/all/arp_ignore", "1")
        .unwrap();
    hosts
        .rival
        .set_parameter("ipv4/conf/all/arp_announce", "2")
        .unwrap();
    hosts
        .rival
        .ip(["address", "add", "192.0.2.10/32", "dev", "lo"])
        .unwrap();
    let proxy = hosts.switch.host("proxy").unwrap();
    proxy.add_address("192.0.2.13/24").unwrap();
    proxy.add_cable("inside", "outside").unwrap();
    proxy
        .ip(["address", "add", "198.51.100.1/24", "dev", "inside"])
        .unwrap();
    proxy
        .ip(["route", "add", "192.0.2.128/25", "dev", "inside"])
        .unwrap();
    for (parameter, value) in [("ip_forward", "1"), ("conf/eth0/proxy_arp", "1")] {
        proxy
            .set_parameter(&format!("ipv4/{parameter}"), value)
            .unwrap();
    }
    let options = ["--track", "192.0.2.0/24", "--probe-interval", "1s"];
    let watched = Watched::start(&hosts.client, &options);
    hosts.ask().unwrap();
    for address in ["192.0.2.12", "192.0.2.13"] {
        hosts.client.ask(address).unwrap();
    }
    // It answers an ordinary request for what it thinks is elsewhere.
    hosts.client.ask("192.0.2.200").unwrap();
    watched.wait_for("new_binding", "192.0.2.200", SOON);
    take_over_and_back(&hosts, &watched);
    watched.wait_until_asked("periodic", 30, LONG);
    for bad in ["contested", "conflict"] {
        assert_eq!(watched.of(bad), [], "{bad}");
    }
}

/// The proxy gets the service address for a while, properly.
fn take_over_and_back(hosts: &Duplicate, watched: &Watched) {
    let address = format!("{SHARED_ADDRESS}/24");
    hosts.server.remove_address(&address).unwrap();
    let other = hosts.switch.host("other").unwrap();
    other.add_address(&address).unwrap();
    announce(&other);
    watched.wait_for("moved", SHARED_ADDRESS, Duration::from_secs(15));
    other.remove_address(&address).unwrap();
    hosts.server.add_address(&address).unwrap();
    announce(&hosts.server);
    eventually("the second move", Duration::from_secs(15), || {
        Ok((watched.of("moved").len() == 2).then_some(()))
    })
    .unwrap();
}

#[test]
fn off_means_that_nothing_is_sent() {
    let lab = Lab::new().unwrap();
    let hosts = before_the_duplicate(&lab);
    let sent = Tapped::start(&hosts.client, "out");
    let options = [
        "--active-probing",
        "off",
        "--track",
        "192.0.2.0/24",
        "--probe-interval",
        "1s",
    ];
    let watched = Watched::start(&hosts.client, &options);
    announce(&hosts.server);
    take_over(&hosts);
    watched.wait_for("moved", SHARED_ADDRESS, Duration::from_secs(20));
    assert_eq!(sent.questions(), []);
    let metrics = watched.daemon.metrics().unwrap();
    assert_eq!(
        metrics.get("arp_monitor_active_probing", &[("state", "off")]),
        Some(1.0)
    );
}

/// The network is the bridge's or the macvlan's, the wire is the network card's.
#[test]
fn who_has_the_network_asks_through_the_card_below_it() {
    let stacked = [
        vec![
            "link add over type bridge",
            "link set dev over address 02:00:00:00:0b:01",
            "link set dev eth0 master over",
        ],
        vec!["link add over link eth0 address 02:00:00:00:0b:01 type macvlan mode bridge"],
    ];
    for commands in stacked {
        let lab = Lab::new().unwrap();
        let switch = lab.bridge().unwrap();
        let (monitor, server) = (
            switch.host("monitor").unwrap(),
            switch.host("server").unwrap(),
        );
        let up = ["link set dev over up", "address add 192.0.2.1/24 dev over"];
        for command in commands.iter().chain(&up) {
            monitor.ip(command.split(' ')).unwrap();
        }
        server.add_address(&format!("{SHARED_ADDRESS}/24")).unwrap();
        let tapped = Tapped::start(&server, "in");
        let watched = Watched::start(
            &monitor,
            &["--track", "192.0.2.10/32", "--probe-interval", "2s"],
        );
        // Nobody else has asked, and the owner announces nothing: it has answered the daemon.
        watched.wait_for("new_binding", SHARED_ADDRESS, LONG);
        let questions = tapped.questions();
        assert!(!questions.is_empty());
        for question in questions {
            let from = question.from.to_string();
            assert_eq!(from, "02:00:00:00:0b:01", "{commands:?}");
        }
        assert_eq!(watched.of("silent"), []);
    }
}

#[test]
fn a_vlan_in_which_this_host_has_no_address_is_not_asked_on() {
    let lab = Lab::new().unwrap();
    let [monitor, other] = lab.pair("monitor", "other").unwrap();
    // An address in the untagged segment says nothing about the tagged one.
    monitor.add_address("192.0.2.1/24").unwrap();
    let watched = Watched::start(
        &monitor,
        &["--track", "192.0.2.0/24", "--probe-interval", "1s"],
    );
    let station = other.sender().unwrap();
    let capture = other.capture().unwrap();
    for mac in [other.mac(), MacAddr([2, 0, 0, 0, 9, 9])] {
        station
            .send(&Frame::announcement(mac, SHARED).tagged(100))
            .unwrap();
    }
    let wish = |metrics: &Metrics| Ok(not_sent(metrics, "off_link") >= 1);
    watched
        .daemon
        .wait_for_metrics("a question that was not put", SOON, wish)
        .unwrap();
    let mut heard = Vec::new();
    while let Some(frame) = capture.next(Duration::from_millis(200)).unwrap() {
        heard.extend(frame.arp().filter(|_| !frame.sent));
    }
    assert!(heard.iter().all(|frame| frame.tpa != SHARED), "{heard:?}");
}
