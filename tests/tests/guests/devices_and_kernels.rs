//! Tests that need other kernels or devices that not every machine has; they run in the guests of the kernel
//! matrix.
//!
//! A guest runs nothing else and one test at a time, so a test may use the state of the whole machine.

use std::{fs, io, time::Duration};

use anyhow::Context as _;
use aya::{
    programs::{ProgramError, loaded_programs},
    util::KernelVersion,
};
use probe_common::{counter::Direction, wire::MacAddr};
use probe_tests::{CounterBalance, Daemon, Frame, Host, INTERFACE, Lab, Stream, eventually};

/// Timeout: emulated machines are slow.
const TIMEOUT: Duration = Duration::from_secs(30);

const ADDRESS: [u8; 4] = [192, 0, 2, 10];
const OWNERS: [MacAddr; 2] = [
    MacAddr([2, 0, 0, 0, 0, 0xaa]),
    MacAddr([2, 0, 0, 0, 0, 0xbb]),
];

/// The sending side, and the interface that `probe` monitors on the other side.
struct Network<'a> {
    monitor: &'a Host,
    watched: &'a str,
    peer: &'a Host,
    sent_through: &'a str,
}

impl<'a> Network<'a> {
    fn of_cards(monitor: &'a Host, peer: &'a Host) -> Self {
        Self {
            monitor,
            watched: INTERFACE,
            peer,
            sent_through: INTERFACE,
        }
    }

    fn start(&self, mode: &str) -> Daemon<'a> {
        let daemon = self.monitor.daemon_on(self.watched, mode).unwrap();
        daemon.wait_until_ready().unwrap();
        daemon
    }

    fn send<'b>(&self, frames: impl IntoIterator<Item = &'b Frame>) {
        let sender = self.peer.sender_on(self.sent_through).unwrap();
        sender.send_all(frames).unwrap();
    }

    /// Every frame is counted under its kind and direction, and the counters add up; a request with two replies is
    /// a conflict in the given VLAN. SIGTERM leaves no program.
    fn assert_counts_frames_and_finds_conflicts(&self, mode: &str, vlan: &str) {
        let daemon = self.start(mode);
        let claims = (1..=100).map(|last| Frame::announcement(OWNERS[0], [192, 0, 2, last]));
        let probes = (1..=50).map(|last| Frame::probe(OWNERS[0], [198, 51, 100, last]));
        let bogus = vec![Frame::announcement(MacAddr::ZERO, ADDRESS); 20];
        let malformed = vec![Frame::announcement(OWNERS[0], ADDRESS).htype(6); 10];
        self.send(&claims.chain(probes).collect::<Vec<_>>());
        self.send(bogus.iter().chain(&malformed));
        let balance = daemon.wait_until_processed(180).unwrap();
        assert_eq!(
            (
                balance.claims,
                balance.probes,
                balance.bogus,
                balance.malformed
            ),
            (100, 50, 20, 10)
        );

        let sender = self.monitor.sender_on(self.watched).unwrap();
        let frame = Frame::announcement(self.monitor.mac(), [192, 0, 2, 200]);
        sender.send_all(&vec![frame; 5]).unwrap();
        let egress = daemon
            .wait_for_metrics("5 sent frames to be counted", TIMEOUT, |metrics| {
                Ok(CounterBalance::read(metrics, Direction::Egress)?.frames == 5)
            })
            .unwrap();
        CounterBalance::read(&egress, Direction::Egress)
            .unwrap()
            .check()
            .unwrap();

        self.send_two_replies();
        let conflict = daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
        assert_eq!(
            (conflict.ip.as_str(), conflict.vlan.as_str()),
            ("192.0.2.10", vlan)
        );
        assert_eq!(conflict.interface, self.watched);
        assert_eq!(conflict.macs().unwrap(), OWNERS);

        assert_eq!(daemon.terminate().unwrap().code(), Some(0));
        wait_for_loaded(&[]);
    }

    /// Sends a request for the address and two replies.
    fn send_two_replies(&self) {
        let (requester, requester_address) = (MacAddr([2, 0, 0, 0, 0, 0xcc]), [192, 0, 2, 1]);
        let reply = |owner| Frame::reply(owner, ADDRESS, requester, requester_address);
        self.send(&[
            Frame::request(requester, requester_address, ADDRESS),
            reply(OWNERS[0]),
            reply(OWNERS[1]),
        ]);
    }
}

/// The names of our programs in the kernel, sorted.
fn loaded() -> Vec<String> {
    let mut names: Vec<_> = loaded_programs()
        .filter_map(|program| match program {
            // The program was freed after its ID was read.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                None
            }
            program => Some(
                program
                    .unwrap()
                    .name_as_str()
                    .unwrap_or_default()
                    .to_owned(),
            ),
        })
        .filter(|name| name.starts_with("arp_"))
        .collect();
    names.sort_unstable();
    names
}

fn wait_for_loaded(names: &[&str]) {
    // The kernel frees a program shortly after its last user is gone.
    eventually(&format!("only {names:?} to be loaded"), TIMEOUT, || {
        Ok((loaded() == names).then_some(()))
    })
    .with_context(|| format!("loaded programs: {:?}", loaded()))
    .unwrap();
}

fn kernel_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().unwrap() >= KernelVersion::new(major, minor, 0)
}

/// Whether TC programs are attached by links, which end with their process.
fn has_tcx() -> bool {
    kernel_at_least(6, 6)
}

fn veth(mode: &str) {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    Network::of_cards(&monitor, &peer).assert_counts_frames_and_finds_conflicts(mode, "0");
}

#[test]
fn native_xdp_on_veth_counts_frames_and_finds_conflicts() {
    veth("native");
}

#[test]
fn generic_xdp_on_veth_counts_frames_and_finds_conflicts() {
    veth("generic");
}

#[test]
fn tc_on_veth_counts_frames_and_finds_conflicts() {
    veth("tc");
}

/// An MTU above a page needs the program with multi-buffer support, which kernels have since 5.18.
#[test]
fn native_xdp_with_a_jumbo_mtu_works_where_the_kernel_supports_it() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    for host in [&monitor, &peer] {
        host.ip("link set dev eth0 mtu 9000".split(' ')).unwrap();
    }
    if kernel_at_least(5, 18) {
        Network::of_cards(&monitor, &peer).assert_counts_frames_and_finds_conflicts("native", "0");
    } else {
        assert_native_is_refused(&monitor);
        Network::of_cards(&monitor, &peer).assert_counts_frames_and_finds_conflicts("tc", "0");
    }
}

/// Two connected network cards of the guest, which become hosts of the lab.
#[test]
fn native_xdp_on_virtio_net_counts_frames_and_finds_conflicts() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = cards(&lab);
    Network::of_cards(&monitor, &peer).assert_counts_frames_and_finds_conflicts("native", "0");
}

/// A mode that the driver does not support is refused with an alternative, and no program stays attached.
fn assert_native_is_refused(monitor: &Host) {
    let words = ["run", "-i", INTERFACE, "--attach", "native"];
    let finished = monitor.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    assert!(finished.stderr.contains("--attach tc"), "{finished:?}");
    wait_for_loaded(&[]);
}

#[test]
fn tc_on_virtio_net_counts_frames_and_finds_conflicts() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = cards(&lab);
    Network::of_cards(&monitor, &peer).assert_counts_frames_and_finds_conflicts("tc", "0");
}

fn cards(lab: &Lab) -> [Host; 2] {
    ["monitor", "peer"].map(|name| {
        let host = card(lab, name, "virtio_net");
        // Like a real card, it would otherwise drop unicast frames for other hosts.
        host.ip("link set dev eth0 promisc on".split(' ')).unwrap();
        host
    })
}

/// Creates a host from a network card of the guest with this driver.
fn card(lab: &Lab, name: &str, driver: &str) -> Host {
    // A card that an earlier test used returns a moment after that test, possibly under another name.
    let what = format!("a network card with the driver {driver}");
    let card = eventually(&what, TIMEOUT, || {
        let mut interfaces =
            fs::read_dir("/sys/class/net")?.filter_map(|entry| Some(entry.ok()?.path()));
        let card = interfaces.find(|interface| {
            fs::read_link(interface.join("device/driver"))
                .is_ok_and(|target| target.ends_with(driver))
        });
        Ok(card.and_then(|card| Some(card.file_name()?.to_str()?.to_owned())))
    })
    .unwrap();
    lab.adopt(name, &card).unwrap()
}

/// The card removes the tags from frames before XDP. Without VLANs on it, it may be monitored by native XDP; with a
/// VLAN, it is monitored in TC, and each frame is observed in its VLAN.
#[test]
fn auto_on_a_card_that_strips_tags_uses_tc_where_a_vlan_is_in_use() {
    let lab = Lab::new().unwrap();
    let monitor = card(&lab, "monitor", "vmxnet3");
    let peer = card(&lab, "peer", "virtio_net");
    let network = Network::of_cards(&monitor, &peer);

    let reason = |daemon: &Daemon<'_>| {
        let metrics = daemon.metrics().unwrap();
        let mut info = metrics.select("arp_monitor_interface_info", &[]);
        let labels = &info.next().unwrap().labels;
        (labels["mode"].clone(), labels["reason"].clone())
    };
    let daemon = network.start("auto");
    let (_, without_vlan) = reason(&daemon);
    assert!(
        // The driver has XDP since Linux 6.6.
        ["native_available", "native_refused"].contains(&without_vlan.as_str()),
        "{without_vlan}"
    );
    assert_eq!(daemon.terminate().unwrap().code(), Some(0));

    add_vlan(&monitor);
    let daemon = network.start("auto");
    let expected = ("tc".to_owned(), "vlan_offload".to_owned());
    assert_eq!(reason(&daemon), expected);
    // One address with an owner in each of two VLANs is no conflict; two owners in one VLAN are.
    let requester = MacAddr([2, 0, 0, 0, 0, 0xcc]);
    let broadcast =
        |owner| Frame::reply(owner, ADDRESS, requester, [192, 0, 2, 1]).eth_dst(MacAddr::BROADCAST);
    network.send(&[
        Frame::request(requester, [192, 0, 2, 1], ADDRESS),
        broadcast(OWNERS[0]),
        Frame::request(requester, [192, 0, 2, 1], ADDRESS).tagged(100),
        broadcast(OWNERS[1]).tagged(100),
    ]);
    daemon.wait_until_processed(4).unwrap();
    assert!(daemon.findings().unwrap().is_empty());
    network.send(&[
        Frame::request(requester, [192, 0, 2, 1], ADDRESS).tagged(100),
        broadcast(OWNERS[1]).tagged(100),
        broadcast(OWNERS[0]).tagged(100),
    ]);
    let conflict = daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert_eq!(conflict.vlan, "100");
}

/// The sender's VLAN device leaves tagging to the card, and the veth passes the tag beside the frame, as a card
/// does that strips tags.
#[test]
fn tc_sees_the_vlan_of_a_stripped_tag() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    for host in [&monitor, &peer] {
        add_vlan(host);
    }
    let network = Network {
        sent_through: "eth0.100",
        ..Network::of_cards(&monitor, &peer)
    };
    let daemon = network.start("tc");
    network.send_two_replies();
    let conflict = daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert_eq!(conflict.vlan, "100");
    daemon.wait_until_processed(3).unwrap();
}

#[test]
fn tc_sees_a_tag_that_is_in_the_bytes() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    add_vlan(&monitor);
    let daemon = Network::of_cards(&monitor, &peer).start("tc");
    let claim = Frame::announcement(OWNERS[0], ADDRESS);
    let duplicate = Frame::announcement(OWNERS[1], ADDRESS);
    // One address in two VLANs, which is no conflict.
    for _ in 0..5 {
        for frame in [claim.clone().tagged(100), duplicate.clone().tagged(200)] {
            peer.sender().unwrap().send(&frame).unwrap();
        }
    }
    daemon.wait_until_processed(10).unwrap();
    let metrics = daemon.metrics().unwrap();
    assert_eq!(metrics.count("arp_monitor_bindings", &[]).unwrap(), 2);
    assert_eq!(metrics.count("arp_monitor_open_conflicts", &[]).unwrap(), 0);
}

fn add_vlan(host: &Host) {
    let words = "link add link eth0 name eth0.100 type vlan id 100";
    host.ip(words.split(' ')).unwrap();
    host.ip("link set dev eth0.100 up".split(' ')).unwrap();
}

#[test]
fn tc_on_a_bond_counts_frames_and_finds_conflicts() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let network = bonded(&monitor, &peer);
    network.assert_counts_frames_and_finds_conflicts("tc", "0");
}

/// A program on the bond's port runs before the frame belongs to the bond, and counts it for the port.
#[test]
fn native_on_a_port_of_a_bond_counts_for_the_port() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let network = Network {
        watched: INTERFACE,
        ..bonded(&monitor, &peer)
    };
    let daemon = network.start("native");
    network.send_two_replies();
    let conflict = daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert_eq!(conflict.interface, INTERFACE);
    daemon.wait_until_processed(3).unwrap();
}

/// Makes the monitor's interface a port of a bond.
fn bonded<'a>(monitor: &'a Host, peer: &'a Host) -> Network<'a> {
    for words in [
        "link add bond0 type bond mode active-backup miimon 10",
        "link set dev eth0 down",
        "link set dev eth0 master bond0",
        "link set dev bond0 up",
    ] {
        monitor.ip(words.split(' ')).unwrap();
    }
    eventually("the bond's carrier", TIMEOUT, || {
        Ok(monitor.link_of("bond0")?.is_up().then_some(()))
    })
    .unwrap();
    Network {
        watched: "bond0",
        ..Network::of_cards(monitor, peer)
    }
}

const NATIVE: [&str; 2] = ["arp_tc_egress", "arp_xdp"];
const TC: [&str; 2] = ["arp_tc_egress", "arp_tc_ingress"];

/// XDP and TCX programs end with their process. The clsact filters, before 6.6, pass every frame until the next
/// start removes them; the qdisc stays because others may use it.
#[test]
fn the_next_start_removes_the_programs_of_a_killed_daemon() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let network = Network::of_cards(&monitor, &peer);
    for (mode, programs, filters) in [("native", NATIVE, &TC[..1]), ("tc", TC, &TC[..])] {
        network.start(mode).kill().unwrap();
        wait_for_loaded(if has_tcx() { &[] } else { filters });

        let daemon = network.start(mode);
        wait_for_loaded(&programs);
        network.send_two_replies();
        let balance = daemon.wait_until_processed(3).unwrap();
        assert_eq!(balance.frames, 3, "no frame is counted twice");
        assert_eq!(daemon.terminate().unwrap().code(), Some(0));
        wait_for_loaded(&[]);
    }
    if !has_tcx() {
        let qdiscs = monitor
            .exec(["tc", "qdisc", "show", "dev", INTERFACE])
            .unwrap();
        assert!(qdiscs.contains("clsact"), "{qdiscs}");
    }
}

/// Before 6.6, the next start may be in another mode than the one that was killed.
#[test]
fn the_next_start_removes_programs_of_another_mode_too() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let network = Network::of_cards(&monitor, &peer);
    network.start("tc").kill().unwrap();
    let daemon = network.start("native");
    wait_for_loaded(&NATIVE);
    daemon.terminate().unwrap();
    wait_for_loaded(&[]);
}

/// `probe watch` runs beside `probe run`, and each may be killed: before 6.6, only the programs of a dead process
/// are removed.
#[test]
fn programs_of_a_running_process_are_left_attached() {
    const TWICE: [&str; 4] = [
        "arp_tc_egress",
        "arp_tc_egress",
        "arp_tc_ingress",
        "arp_tc_ingress",
    ];
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let network = Network::of_cards(&monitor, &peer);
    let first = network.start("tc");
    for _ in 0..2 {
        let words = ["-i", INTERFACE, "--attach", "tc"];
        let beside = monitor.bare_watch(&words).unwrap();
        wait_for_loaded(&TWICE);
        beside.kill().unwrap();
        beside.finish(TIMEOUT).unwrap();
        wait_for_loaded(if has_tcx() { &TC } else { &TWICE });
    }
    network.send_two_replies();
    first.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert_eq!(first.terminate().unwrap().code(), Some(0));
}

/// With TCX there are no filters to delete; `attachment.rs` tests detached links.
#[test]
fn a_deleted_filter_is_restored_and_reported() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let network = Network::of_cards(&monitor, &peer);
    let daemon = network.start("tc");
    for direction in ["ingress", "egress"] {
        if has_tcx() {
            let words = ["tc", "filter", "show", "dev", INTERFACE, direction];
            let shown = monitor.run(words).unwrap();
            assert!(!shown.stdout.contains("arp_tc"), "{shown:?}");
            continue;
        }
        monitor
            .exec(["tc", "filter", "del", "dev", INTERFACE, direction])
            .unwrap();
        let mut reports = 0;
        daemon
            .process()
            .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
                reports +=
                    usize::from(line.contains("another process detached one of our programs"));
                reports == if direction == "ingress" { 1 } else { 2 }
            })
            .unwrap();
        wait_for_loaded(&TC);
        eventually("the filters to be restored", TIMEOUT, || {
            let words = ["tc", "filter", "show", "dev", INTERFACE, direction];
            Ok(monitor.exec(words)?.contains("arp_tc").then_some(()))
        })
        .unwrap();
    }
    network.send_two_replies();
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
}

/// The programs of a running process are not mistaken for leftovers by the next one.
#[test]
fn two_daemons_on_one_interface_work_independently() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let network = Network::of_cards(&monitor, &peer);
    let first = network.start("tc");
    let words = [
        "run",
        "-i",
        INTERFACE,
        "--attach",
        "tc",
        "--listen",
        "127.0.0.1:0",
    ];
    let mut second = monitor.probe(&words).unwrap();
    second
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| line.contains("serving"))
        .unwrap();
    wait_for_loaded(&[TC[0], TC[0], TC[1], TC[1]]);
    second.terminate().unwrap();
    second.exit_status(TIMEOUT).unwrap();
    wait_for_loaded(&TC);
    network.send_two_replies();
    assert_eq!(first.wait_until_processed(3).unwrap().frames, 3);
}

/// Before 6.6, the filters are deleted with it, and without a link there is no notification; so the daemon polls.
/// TCX programs need no qdisc and stay.
#[test]
fn a_deleted_clsact_qdisc_is_restored() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let network = Network::of_cards(&monitor, &peer);
    let daemon = network.start("tc");
    let qdisc = |verb| monitor.exec(["tc", "qdisc", verb, "dev", INTERFACE, "clsact"]);
    if has_tcx() {
        qdisc("add").unwrap();
    }
    qdisc("del").unwrap();
    daemon
        .wait_for_metrics("frames to be counted again", TIMEOUT, |metrics| {
            network.send_two_replies();
            Ok(CounterBalance::read(metrics, Direction::Ingress)?.frames > 0)
        })
        .unwrap();
}
