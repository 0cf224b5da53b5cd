//! Active probing: which findings it leads to, which frames it sends, and when it must not send.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use probe_common::wire::MacAddr;
use probe_tests::{
    Daemon, DaemonSocket, Finding, Frame, Host, INTERFACE, Lab, Link, Metrics, Process,
    SHARED_ADDRESS, Stream, ThreeHosts, eventually,
};

/// [`SHARED_ADDRESS`] as bytes.
const SHARED: [u8; 4] = [192, 0, 2, 10];
/// Timeout for an immediate event on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the first minute after a start, and more.
const LONG_TIMEOUT: Duration = Duration::from_secs(90);
/// A short `--probe-interval`, because the default is five minutes.
const SHORT_INTERVAL: [&str; 2] = ["--probe-interval", "2s"];
/// The last bytes of the addresses that are taken over while several daemons run.
const TAKEN_OVER: [u8; 2] = [200, 201];

/// A daemon with its own socket, through which every finding is read, including those that are not logged.
struct Watched<'a> {
    daemon: Daemon<'a>,
    daemon_socket: DaemonSocket,
}

impl<'a> Watched<'a> {
    fn start(host: &'a Host, options: &[&str]) -> Self {
        Self::on(
            host,
            &[&["-i", INTERFACE, "--attach", "tc"], options].concat(),
        )
    }

    fn on(host: &'a Host, options: &[&str]) -> Self {
        let daemon_socket = DaemonSocket::new().unwrap();
        let probing = if options.contains(&"--active-probing") {
            &[][..]
        } else {
            &["--active-probing", "auto"]
        };
        let options = [&["--socket", daemon_socket.argument()], probing, options].concat();
        Self {
            daemon: host.ready_bare_daemon(&options).unwrap(),
            daemon_socket,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let lines = self
            .daemon_socket
            .get("/v1/findings?since=0&follow=false")
            .unwrap();
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
        self.daemon_socket.records("/v1/bindings").unwrap()
    }

    fn probes_sent(&self, purpose: &str) -> u64 {
        probes_sent(&self.daemon.metrics().unwrap(), purpose)
    }

    fn wait_until_probed(&self, purpose: &str, frames: u64, within: Duration) {
        let what = format!("{frames} frames for {purpose}");
        let condition = |metrics: &Metrics| Ok(probes_sent(metrics, purpose) >= frames);
        self.daemon
            .wait_for_metrics(&what, within, condition)
            .unwrap();
    }
}

fn probes_sent(metrics: &Metrics, purpose: &str) -> u64 {
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

/// Three hosts, of which only the server has the shared address so far.
fn without_the_duplicate(lab: &Lab) -> ThreeHosts {
    let hosts = lab.three_hosts().unwrap();
    hosts.remove_duplicate().unwrap();
    hosts
}

/// The duplicate adds the address and announces it.
fn take_over(hosts: &ThreeHosts) {
    hosts
        .duplicate
        .add_address(&format!("{SHARED_ADDRESS}/24"))
        .unwrap();
    announce(&hosts.duplicate);
}

fn announce(host: &Host) {
    let frame = Frame::announcement(host.mac(), SHARED);
    host.sender().unwrap().send(&frame).unwrap();
}

/// The ARP frames on a host's interface as tcpdump prints them, with kernel timestamps and without loopback
/// traffic.
struct ArpCapture(Process);

impl ArpCapture {
    /// `direction` is `out` for frames that the host sends, `in` for frames that it receives.
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
            .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
                line.contains("listening on")
            })
            .unwrap();
        Self(tcpdump)
    }

    fn lines(&self) -> Vec<String> {
        self.0.lines(Stream::Stdout)
    }

    /// The ARP probes of daemons.
    fn probes(&self) -> Vec<ArpProbe> {
        self.lines()
            .iter()
            .filter_map(|line| parse_probe(line))
            .collect()
    }
}

/// An ARP probe of a daemon.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ArpProbe {
    /// The kernel timestamp in seconds.
    at: f64,
    from: MacAddr,
    to: MacAddr,
}

/// Parses a line of tcpdump as an ARP probe of a daemon, which has a mark and the daemon's own MAC.
fn parse_probe(line: &str) -> Option<ArpProbe> {
    let mut words = line.split_whitespace();
    let at = words.next()?.parse().ok()?;
    let source = words.next()?;
    let to = match words.nth(1)?.trim_end_matches(',') {
        "Broadcast" => MacAddr::BROADCAST,
        mac => mac.parse().ok()?,
    };
    let (_, what) = line.split_once(": Request who-has ")?;
    let is_marked = what.contains(&format!(" ({source}) tell 0.0.0.0, "));
    is_marked.then_some(ArpProbe {
        at,
        from: source.parse().ok()?,
        to,
    })
}

#[test]
fn two_hosts_that_keep_an_address_after_a_takeover_are_a_conflict_within_five_seconds() {
    let lab = Lab::new().unwrap();
    let hosts = without_the_duplicate(&lab);
    let watched = Watched::start(&hosts.client, &[]);
    hosts.resolve().unwrap();
    watched.wait_for("new_binding", SHARED_ADDRESS, TIMEOUT);
    let changed = Timestamp::now();
    take_over(&hosts);
    let conflict = watched.wait_for("conflict", SHARED_ADDRESS, TIMEOUT);
    let took = conflict.seconds_after(changed).unwrap();
    assert!((0.0..5.0).contains(&took), "{took}");
    assert_eq!(conflict.evidence, "confirmed");
    assert_eq!(conflict.counts["confirmed"], 1);
    assert_eq!(
        conflict.macs().unwrap(),
        [hosts.server.mac(), hosts.duplicate.mac()]
    );
    watched.wait_until_probed("confirmation", 4, TIMEOUT);
    assert_eq!(watched.probes_sent("confirmation"), 4);
}

#[test]
fn a_previous_owner_without_a_reply_makes_it_a_move_before_ten_seconds() {
    let lab = Lab::new().unwrap();
    let hosts = without_the_duplicate(&lab);
    let watched = Watched::start(&hosts.client, &[]);
    hosts.resolve().unwrap();
    watched.wait_for("new_binding", SHARED_ADDRESS, TIMEOUT);
    hosts
        .server
        .remove_address(&format!("{SHARED_ADDRESS}/24"))
        .unwrap();
    let changed = Timestamp::now();
    take_over(&hosts);
    let moved = watched.wait_for("moved", SHARED_ADDRESS, TIMEOUT);
    let took = moved.seconds_after(changed).unwrap();
    assert!((0.0..8.0).contains(&took), "{took}");
    for bad in ["contested", "conflict"] {
        assert_eq!(watched.of(bad), [], "{bad}");
    }
}

/// Only the daemon ever requests the address.
#[test]
fn periodic_probing_finds_an_unused_duplicate() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watched = Watched::start(
        &hosts.client,
        &["--track", "192.0.2.10/32", "--probe-interval", "2s"],
    );
    let conflict = watched.wait_for("conflict", SHARED_ADDRESS, LONG_TIMEOUT);
    assert_eq!(conflict.severity, "critical");
    assert_eq!(conflict.evidence, "duplicate_reply");
    assert_eq!(
        conflict.macs().unwrap(),
        [hosts.server.mac(), hosts.duplicate.mac()]
    );
}

/// This host has the address, and its own kernel neither replies to the probe nor is affected by it.
#[test]
fn periodic_probing_finds_another_owner_of_this_hosts_address() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watched = Watched::start(&hosts.server, &SHORT_INTERVAL);
    let sent = ArpCapture::start(&hosts.server, "out");
    let conflict = watched.wait_for("conflict", SHARED_ADDRESS, LONG_TIMEOUT);
    assert_eq!(
        (conflict.evidence.as_str(), conflict.severity.as_str()),
        (Some("local"), "critical")
    );
    sent.0
        .wait_for_line(Stream::Stdout, TIMEOUT, |_| true)
        .unwrap();
    let sent = sent.lines();
    assert!(
        sent.iter().all(|line| parse_probe(line).is_some()),
        "{sent:#?}"
    );
    assert!(watched.probes_sent("local") >= 1);
    let address = hosts
        .server
        .exec(["ip", "-o", "address", "show", "dev", INTERFACE])
        .unwrap();
    assert!(address.contains(SHARED_ADDRESS), "{address}");
}

#[test]
fn a_conflict_is_resolved_when_one_owner_leaves() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watched = Watched::start(&hosts.client, &["--quiet-after", "5s"]);
    hosts.resolve().unwrap();
    watched.wait_for("conflict", SHARED_ADDRESS, TIMEOUT);
    // Only of a host that was observed to reply to a probe, silence shows that it is gone.
    watched.wait_until_probed("confirmation", 1, TIMEOUT);
    hosts.remove_duplicate().unwrap();
    let resolved = watched.wait_for("conflict_resolved", SHARED_ADDRESS, Duration::from_secs(30));
    assert_eq!(resolved.owners[0].macs, [hosts.server.mac().to_string()]);
    watched.wait_until_probed("resolution", 2, TIMEOUT);
    assert_eq!(watched.probes_sent("resolution"), 2);
    assert_eq!(watched.of("conflict_quiet"), []);
}

#[test]
fn a_conflict_on_an_off_link_address_becomes_quiet() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watched = Watched::start(&hosts.client, &["--quiet-after", "3s"]);
    hosts.resolve().unwrap();
    watched.wait_for("conflict", SHARED_ADDRESS, TIMEOUT);
    // The address is no longer on-link.
    hosts.client.remove_address("192.0.2.1/24").unwrap();
    hosts.client.add_address("198.51.100.1/24").unwrap();
    watched.wait_for("conflict_quiet", SHARED_ADDRESS, Duration::from_secs(20));
    let condition = |metrics: &Metrics| Ok(not_sent(metrics, "off_link") >= 1);
    watched
        .daemon
        .wait_for_metrics("an ARP probe that was not sent", TIMEOUT, condition)
        .unwrap();
    assert_eq!(watched.probes_sent("resolution"), 0);
}

#[test]
fn a_tracked_address_without_replies_is_silent_until_it_replies() {
    let lab = Lab::new().unwrap();
    let hosts = without_the_duplicate(&lab);
    hosts.server.add_address("192.0.2.11/24").unwrap();
    let options = ["--track", "192.0.2.10/32", "--probe-interval", "2s"];
    let watched = Watched::start(&hosts.client, &options);
    watched.wait_for("new_binding", SHARED_ADDRESS, LONG_TIMEOUT);
    // So that another host could reply, too.
    hosts.client.resolve("192.0.2.11").unwrap();
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
        "the address to reply again",
        Duration::from_secs(20),
        || Ok((!is_silent()).then_some(())),
    )
    .unwrap();
    assert_eq!(watched.of("silent").len(), 1);
}

#[test]
fn an_unplugged_cable_is_not_silence() {
    let lab = Lab::new().unwrap();
    let hosts = without_the_duplicate(&lab);
    hosts.server.add_address("192.0.2.11/24").unwrap();
    let options = [
        "--track",
        "192.0.2.10/32,192.0.2.11/32",
        "--probe-interval",
        "1s",
    ];
    let watched = Watched::start(&hosts.client, &options);
    watched.wait_for("new_binding", SHARED_ADDRESS, LONG_TIMEOUT);
    watched.wait_for("new_binding", "192.0.2.11", LONG_TIMEOUT);
    hosts.switch.unplug(&hosts.client).unwrap();
    let condition = |metrics: &Metrics| Ok(not_sent(metrics, "link_down") >= 6);
    watched
        .daemon
        .wait_for_metrics(
            "ARP probes that were not sent",
            Duration::from_secs(30),
            condition,
        )
        .unwrap();
    // An unplugged cable behind the switch is no silence either: the carrier stays, and no host replies.
    hosts.switch.plug(&hosts.client).unwrap();
    hosts
        .client
        .wait_for_link("the carrier", Link::is_up)
        .unwrap();
    hosts.switch.unplug(&hosts.server).unwrap();
    let before = watched.probes_sent("periodic");
    watched.wait_until_probed("periodic", before + 12, Duration::from_secs(40));
    assert_eq!(watched.of("silent"), []);
}

/// The kernel of the host sends no ARP, so that every ARP frame of the host is the daemon's.
#[test]
fn the_daemon_sends_only_arp_probes_from_its_own_mac_five_a_second() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let client = &hosts.client;
    client
        .set_parameter("ipv4/conf/all/arp_ignore", "8")
        .unwrap();
    let sent = ArpCapture::start(client, "out");
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
    // Tracked addresses, a takeover, a conflict, and a client that resolves the host's address.
    let sender = hosts.server.sender().unwrap();
    for last in 100..140 {
        let frame = Frame::announcement(hosts.server.mac(), [192, 0, 2, last]);
        sender.send(&frame).unwrap();
    }
    announce(&hosts.server);
    announce(&hosts.duplicate);
    sender
        .send(&Frame::request(hosts.server.mac(), SHARED, [192, 0, 2, 1]))
        .unwrap();
    watched.wait_for("conflict", SHARED_ADDRESS, LONG_TIMEOUT);
    watched.wait_until_probed("periodic", 150, LONG_TIMEOUT);

    // tcpdump writes a frame shortly after it was counted.
    let lines = eventually("more than 150 captured frames", TIMEOUT, || {
        let lines = sent.lines();
        Ok((lines.len() > 150).then_some(lines))
    })
    .unwrap();
    let metrics = watched.daemon.metrics().unwrap();
    let purposes = ["confirmation", "local", "resolution", "periodic"];
    let counted: u64 = purposes
        .iter()
        .map(|purpose| probes_sent(&metrics, purpose))
        .sum();
    assert!(
        lines.len() as u64 <= counted,
        "{} of {counted}",
        lines.len()
    );
    let receivers = [
        MacAddr::BROADCAST,
        hosts.server.mac(),
        hosts.duplicate.mac(),
    ];
    for line in &lines {
        let parse_probe = parse_probe(line).unwrap_or_else(|| panic!("not an ARP probe: {line}"));
        assert_eq!(parse_probe.from, client.mac());
        assert!(receivers.contains(&parse_probe.to), "{line}");
    }
    let times: Vec<_> = sent.probes().iter().map(|it| it.at).collect();
    assert!(max_within(&times, 0.99) <= 5);
}

/// The largest number of frames within any period of this length in seconds.
fn max_within(times: &[f64], length: f64) -> usize {
    let within = |from: f64| {
        let inside = |at: &&f64| (from..from + length).contains(*at);
        times.iter().filter(inside).count()
    };
    times.iter().map(|&from| within(from)).max().unwrap_or(0)
}

#[test]
fn three_daemons_on_a_segment_share_one_probe_budget() {
    let lab = Lab::new().unwrap();
    // So that the observer receives unicast frames of others, too.
    let switch = lab.hub().unwrap();
    let hosts: Vec<_> = (1..4)
        .map(|number| {
            let host = switch.host(&format!("node{number}")).unwrap();
            host.add_address(&format!("192.0.2.{number}/24")).unwrap();
            // Each host owns some of the addresses that all three daemons track.
            for last in 0..20 {
                let address = 100 + 20 * (number - 1) + last;
                host.add_address(&format!("192.0.2.{address}/32")).unwrap();
            }
            host
        })
        .collect();
    let observer = switch.host("observer").unwrap();
    let track: Vec<_> = (100..160)
        .map(|last| format!("192.0.2.{last}/32"))
        .collect();
    let track = track.join(",");
    let captured = ArpCapture::start(&observer, "in");
    // No claim for any of them was observed before the first probe.
    let options = ["--track", track.as_str(), "--probe-interval", "15s"];
    let watched: Vec<_> = hosts
        .iter()
        .map(|host| Watched::start(host, &options))
        .collect();
    let probes_sent: Vec<_> = watched
        .iter()
        .map(|watched| watched.probes_sent("periodic"))
        .collect();
    // Meanwhile, a MAC that never replies takes over addresses, and each daemon sends probes for them.
    let others = [MacAddr([2, 0, 0, 0, 9, 1]), MacAddr([2, 0, 0, 0, 9, 2])];
    let sender = observer.sender().unwrap();
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
            watched.wait_for("new_binding", &ip, TIMEOUT);
        }
    }
    for (watched, probes_sent) in watched.iter().zip(probes_sent) {
        watched.wait_until_probed("confirmation", 4, LONG_TIMEOUT);
        watched.wait_until_probed("periodic", probes_sent + 12, LONG_TIMEOUT);
    }
    let probes = captured.probes();
    let times = |wanted: &dyn Fn(&ArpProbe) -> bool| -> Vec<_> {
        let wanted = probes.iter().filter(|parse_probe| wanted(parse_probe));
        wanted.map(|parse_probe| parse_probe.at).collect()
    };
    // Five broadcasts a second, a budget that the daemons share. Several may decide to send in the same moment.
    let to_all = times(&|parse_probe| parse_probe.to == MacAddr::BROADCAST);
    assert!(to_all.len() > 36, "{}", to_all.len());
    let overdraft = watched.len() - 1;
    let (burst, sustained) = (max_within(&to_all, 0.99), max_within(&to_all, 9.99));
    assert!(
        burst <= 5 + overdraft && sustained <= 50 + overdraft,
        "{burst} in a second, {sustained} in ten"
    );
    // The frames of one daemon for all purposes are within the same budget.
    for host in &hosts {
        let own = times(&|parse_probe| parse_probe.from == host.mac());
        assert!(max_within(&own, 0.99) <= 5, "{own:?}");
        let is_unicast = |parse_probe: &&ArpProbe| {
            parse_probe.from == host.mac() && others.contains(&parse_probe.to)
        };
        assert!(probes.iter().filter(is_unicast).count() >= 4);
        assert!(
            times(&|parse_probe| parse_probe.from == host.mac()
                && parse_probe.to == MacAddr::BROADCAST)
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

/// Sends the ARP probes of a host that configures an address (RFC 5227 section 2.1.1). Returns whether the address
/// is free.
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
    // PROBE_WAIT with its smallest value: no other host can foresee the time before the first probe.
    for wait in [1_000, 1_500, 2_000] {
        sender.send(&Frame::probe(host.mac(), address)).unwrap();
        if conflicts(Duration::from_millis(wait)) {
            return false;
        }
    }
    true
}

#[test]
fn a_booting_host_keeps_its_address_while_the_daemon_would_probe() {
    let lab = Lab::new().unwrap();
    let switch = lab.bridge().unwrap();
    let monitor = switch.host("monitor").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    let booting = switch.host("booting").unwrap();
    // The address is tracked and unused: it is probed every second.
    let options = ["--track", "192.0.2.10/32", "--probe-interval", "1s"];
    let watched = Watched::start(&monitor, &options);
    watched.wait_until_probed("periodic", 4, LONG_TIMEOUT);
    for _ in 0..2 {
        assert!(
            probe_for(&booting, SHARED),
            "the daemon must not prevent the configuration of the address"
        );
    }
    let condition = |metrics: &Metrics| Ok(not_sent(metrics, "booting_host") >= 1);
    watched
        .daemon
        .wait_for_metrics("a delayed ARP probe", TIMEOUT, condition)
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
    // Delayed, not dropped.
    let before = watched.probes_sent("periodic");
    watched.wait_until_probed("periodic", before + 2, Duration::from_secs(30));
    assert_eq!(watched.of("probe_denied"), []);
}

/// Servers that have the address on loopback only, and a router that replies for other networks.
#[test]
fn hidden_service_addresses_and_proxies_are_no_owners_when_probed() {
    let lab = Lab::new().unwrap();
    let hosts = without_the_duplicate(&lab);
    hosts.duplicate.add_address("192.0.2.12/24").unwrap();
    hosts
        .duplicate
        .set_parameter("ipv4/conf/all/arp_ignore", "1")
        .unwrap();
    hosts
        .duplicate
        .set_parameter("ipv4/conf/all/arp_announce", "2")
        .unwrap();
    hosts
        .duplicate
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
    hosts.resolve().unwrap();
    for address in ["192.0.2.12", "192.0.2.13"] {
        hosts.client.resolve(address).unwrap();
    }
    // The router replies to an ordinary request for an address that it believes to be elsewhere.
    hosts.client.resolve("192.0.2.200").unwrap();
    watched.wait_for("new_binding", "192.0.2.200", TIMEOUT);
    take_over_and_back(&hosts, &watched);
    watched.wait_until_probed("periodic", 30, LONG_TIMEOUT);
    for bad in ["contested", "conflict"] {
        assert_eq!(watched.of(bad), [], "{bad}");
    }
}

/// The proxy adds the service address for a while.
fn take_over_and_back(hosts: &ThreeHosts, watched: &Watched) {
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
fn active_probing_off_sends_nothing() {
    let lab = Lab::new().unwrap();
    let hosts = without_the_duplicate(&lab);
    let sent = ArpCapture::start(&hosts.client, "out");
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
    assert_eq!(sent.probes(), []);
    let metrics = watched.daemon.metrics().unwrap();
    assert_eq!(
        metrics.get("arp_monitor_active_probing", &[("state", "off")]),
        Some(1.0)
    );
}

/// The IP network belongs to the bridge or macvlan, and the frames go through the interface below.
#[test]
fn the_interface_below_the_network_device_sends_the_probes() {
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
        let captured = ArpCapture::start(&server, "in");
        let watched = Watched::start(
            &monitor,
            &["--track", "192.0.2.10/32", "--probe-interval", "2s"],
        );
        // No other host has sent a request, and the owner announces nothing: it has replied to the daemon.
        watched.wait_for("new_binding", SHARED_ADDRESS, LONG_TIMEOUT);
        let probes = captured.probes();
        assert!(!probes.is_empty());
        for parse_probe in probes {
            let from = parse_probe.from.to_string();
            assert_eq!(from, "02:00:00:00:0b:01", "{commands:?}");
        }
        assert_eq!(watched.of("silent"), []);
    }
}

#[test]
fn a_vlan_without_an_own_address_is_not_probed() {
    let lab = Lab::new().unwrap();
    let [monitor, other] = lab.pair("monitor", "other").unwrap();
    // An address in the untagged segment says nothing about the tagged one.
    monitor.add_address("192.0.2.1/24").unwrap();
    let watched = Watched::start(
        &monitor,
        &["--track", "192.0.2.0/24", "--probe-interval", "1s"],
    );
    let sender = other.sender().unwrap();
    let capture = other.capture().unwrap();
    for mac in [other.mac(), MacAddr([2, 0, 0, 0, 9, 9])] {
        sender
            .send(&Frame::announcement(mac, SHARED).tagged(100))
            .unwrap();
    }
    let condition = |metrics: &Metrics| Ok(not_sent(metrics, "off_link") >= 1);
    watched
        .daemon
        .wait_for_metrics("an ARP probe that was not sent", TIMEOUT, condition)
        .unwrap();
    let mut received = Vec::new();
    while let Some(frame) = capture.next(Duration::from_millis(200)).unwrap() {
        received.extend(frame.arp().filter(|_| !frame.sent));
    }
    assert!(
        received.iter().all(|frame| frame.tpa != SHARED),
        "{received:?}"
    );
}
