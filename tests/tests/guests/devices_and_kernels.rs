//! What takes other kernels, or devices that not every machine has: runs in the guests of the kernel matrix.
//!
//! A guest has nothing else in it and runs one test at a time, so a test may look at the whole machine.

use std::{fs, io, time::Duration};

use anyhow::Context as _;
use aya::{
    programs::{ProgramError, loaded_programs},
    util::KernelVersion,
};
use probe_common::{counter::Direction, wire::MacAddr};
use probe_tests::{Daemon, Frame, Host, INTERFACE, Lab, Ledger, Stream, eventually};

/// Emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(30);

const ADDRESS: [u8; 4] = [192, 0, 2, 10];
const OWNERS: [MacAddr; 2] = [
    MacAddr([2, 0, 0, 0, 0, 0xaa]),
    MacAddr([2, 0, 0, 0, 0, 0xbb]),
];

/// What frames are sent through, and what `probe` watches on the other end.
struct Network<'a> {
    monitor: &'a Host,
    watched: &'a str,
    wire: &'a Host,
    sent_through: &'a str,
}

impl<'a> Network<'a> {
    fn of_cards(monitor: &'a Host, wire: &'a Host) -> Self {
        Self {
            monitor,
            watched: INTERFACE,
            wire,
            sent_through: INTERFACE,
        }
    }

    fn start(&self, mode: &str) -> Daemon<'a> {
        let daemon = self.monitor.daemon_on(self.watched, mode).unwrap();
        daemon.wait_until_ready().unwrap();
        daemon
    }

    fn send<'b>(&self, frames: impl IntoIterator<Item = &'b Frame>) {
        let sender = self.wire.sender_on(self.sent_through).unwrap();
        sender.send_all(frames).unwrap();
    }

    /// Every frame is counted under its kind, in the direction that it goes, and the counts add up; a
    /// question that gets two answers is a conflict, in the VLAN given. SIGTERM leaves nothing.
    fn counts_and_finds(&self, mode: &str, vlan: &str) {
        let daemon = self.start(mode);
        let claims = (1..=100).map(|last| Frame::announcement(OWNERS[0], [192, 0, 2, last]));
        let probes = (1..=50).map(|last| Frame::probe(OWNERS[0], [198, 51, 100, last]));
        let bogus = vec![Frame::announcement(MacAddr::ZERO, ADDRESS); 20];
        let malformed = vec![Frame::announcement(OWNERS[0], ADDRESS).htype(6); 10];
        self.send(&claims.chain(probes).collect::<Vec<_>>());
        self.send(bogus.iter().chain(&malformed));
        let ledger = daemon.wait_until_digested(180).unwrap();
        assert_eq!(
            (ledger.claims, ledger.probes, ledger.bogus, ledger.malformed),
            (100, 50, 20, 10)
        );

        let sender = self.monitor.sender_on(self.watched).unwrap();
        let frame = Frame::announcement(self.monitor.mac(), [192, 0, 2, 200]);
        sender.send_all(&vec![frame; 5]).unwrap();
        let egress = daemon
            .wait_for_metrics("5 frames to be seen going out", PATIENCE, |metrics| {
                Ok(Ledger::read(metrics, Direction::Egress)?.frames == 5)
            })
            .unwrap();
        Ledger::read(&egress, Direction::Egress)
            .unwrap()
            .check()
            .unwrap();

        self.answer_twice();
        let conflict = daemon.wait_for_finding("conflict", PATIENCE).unwrap();
        assert_eq!(
            (conflict.ip.as_str(), conflict.vlan.as_str()),
            ("192.0.2.10", vlan)
        );
        assert_eq!(conflict.interface, self.watched);
        assert_eq!(conflict.macs().unwrap(), OWNERS);

        assert_eq!(daemon.terminate().unwrap().code(), Some(0));
        wait_for_loaded(&[]);
    }

    /// Somebody asks for the address, and two machines answer.
    fn answer_twice(&self) {
        let (asker, askers_address) = (MacAddr([2, 0, 0, 0, 0, 0xcc]), [192, 0, 2, 1]);
        let answer = |owner| Frame::reply(owner, ADDRESS, asker, askers_address);
        self.send(&[
            Frame::request(asker, askers_address, ADDRESS),
            answer(OWNERS[0]),
            answer(OWNERS[1]),
        ]);
    }
}

/// Names of the programs of ours that the kernel holds, sorted.
fn loaded() -> Vec<String> {
    let mut names: Vec<_> = loaded_programs()
        .filter_map(|program| match program {
            // It went between the look at its number and the look at the program.
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
    // The kernel frees a program a moment after the last user is gone.
    eventually(&format!("{names:?} alone to be loaded"), PATIENCE, || {
        Ok((loaded() == names).then_some(()))
    })
    .with_context(|| format!("there are {:?}", loaded()))
    .unwrap();
}

fn kernel_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().unwrap() >= KernelVersion::new(major, minor, 0)
}

/// Whether TC programs are held by links, which end with their process.
fn has_tcx() -> bool {
    kernel_at_least(6, 6)
}

fn veth(mode: &str) {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    Network::of_cards(&monitor, &wire).counts_and_finds(mode, "0");
}

#[test]
fn native_on_veth_counts_and_finds() {
    veth("native");
}

#[test]
fn generic_on_veth_counts_and_finds() {
    veth("generic");
}

#[test]
fn tc_on_veth_counts_and_finds() {
    veth("tc");
}

/// The plain program will not do for an MTU above a page; the one that will, kernels know from 5.18 on.
#[test]
fn native_on_a_jumbo_mtu_counts_and_finds_where_the_kernel_can() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    for host in [&monitor, &wire] {
        host.ip("link set dev eth0 mtu 9000".split(' ')).unwrap();
    }
    if kernel_at_least(5, 18) {
        Network::of_cards(&monitor, &wire).counts_and_finds("native", "0");
    } else {
        assert_native_is_refused(&monitor);
        Network::of_cards(&monitor, &wire).counts_and_finds("tc", "0");
    }
}

/// Two network cards of the guest with a cable between them, which are hosts of the lab for the while.
#[test]
fn native_on_virtio_net_counts_and_finds() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = cards(&lab);
    Network::of_cards(&monitor, &wire).counts_and_finds("native", "0");
}

/// What a driver cannot do is said, with the way out, and nothing stays attached.
fn assert_native_is_refused(monitor: &Host) {
    let words = ["run", "-i", INTERFACE, "--attach", "native"];
    let finished = monitor.probe(&words).unwrap().finish(PATIENCE).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    assert!(finished.stderr.contains("--attach tc"), "{finished:?}");
    wait_for_loaded(&[]);
}

#[test]
fn tc_on_virtio_net_counts_and_finds() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = cards(&lab);
    Network::of_cards(&monitor, &wire).counts_and_finds("tc", "0");
}

fn cards(lab: &Lab) -> [Host; 2] {
    ["monitor", "wire"].map(|name| {
        let host = card(lab, name, "virtio_net");
        // Like a real card, it would otherwise drop unicast frames for other hosts.
        host.ip("link set dev eth0 promisc on".split(' ')).unwrap();
        host
    })
}

/// Makes a host of a network card of the guest that has this driver.
fn card(lab: &Lab, name: &str, driver: &str) -> Host {
    // A card that an earlier test used returns a moment after that test, and perhaps under another name.
    let what = format!("a network card with the driver {driver}");
    let card = eventually(&what, PATIENCE, || {
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

/// The card removes the tags from frames before XDP. Without VLANs on it, it may be watched by native XDP; with a
/// VLAN, it is watched in TC, and each frame is observed in its VLAN.
#[test]
fn auto_on_a_card_that_strips_tags_uses_tc_where_a_vlan_is_in_use() {
    let lab = Lab::new().unwrap();
    let monitor = card(&lab, "monitor", "vmxnet3");
    let wire = card(&lab, "wire", "virtio_net");
    let network = Network::of_cards(&monitor, &wire);

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
        ["native_is_free", "native_refused"].contains(&without_vlan.as_str()),
        "{without_vlan}"
    );
    assert_eq!(daemon.terminate().unwrap().code(), Some(0));

    add_vlan(&monitor);
    let daemon = network.start("auto");
    let expected = ("tc".to_owned(), "vlan_offload".to_owned());
    assert_eq!(reason(&daemon), expected);
    // One address with an owner in each of two VLANs is no conflict, and two owners in one VLAN are.
    let requester = MacAddr([2, 0, 0, 0, 0, 0xcc]);
    let broadcast =
        |owner| Frame::reply(owner, ADDRESS, requester, [192, 0, 2, 1]).eth_dst(MacAddr::BROADCAST);
    network.send(&[
        Frame::request(requester, [192, 0, 2, 1], ADDRESS),
        broadcast(OWNERS[0]),
        Frame::request(requester, [192, 0, 2, 1], ADDRESS).tagged(100),
        broadcast(OWNERS[1]).tagged(100),
    ]);
    daemon.wait_until_digested(4).unwrap();
    assert!(daemon.findings().unwrap().is_empty());
    network.send(&[
        Frame::request(requester, [192, 0, 2, 1], ADDRESS).tagged(100),
        broadcast(OWNERS[1]).tagged(100),
        broadcast(OWNERS[0]).tagged(100),
    ]);
    let conflict = daemon.wait_for_finding("conflict", PATIENCE).unwrap();
    assert_eq!(conflict.vlan, "100");
}

/// The sender's VLAN device leaves the tag to the card, and the cable hands it on beside the frame, as a card
/// does that strips tags.
#[test]
fn tc_sees_the_vlan_of_a_stripped_tag() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    for host in [&monitor, &wire] {
        add_vlan(host);
    }
    let network = Network {
        sent_through: "eth0.100",
        ..Network::of_cards(&monitor, &wire)
    };
    let daemon = network.start("tc");
    network.answer_twice();
    let conflict = daemon.wait_for_finding("conflict", PATIENCE).unwrap();
    assert_eq!(conflict.vlan, "100");
    daemon.wait_until_digested(3).unwrap();
}

#[test]
fn tc_sees_a_tag_that_is_in_the_bytes() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    add_vlan(&monitor);
    let daemon = Network::of_cards(&monitor, &wire).start("tc");
    let claim = Frame::announcement(OWNERS[0], ADDRESS);
    let rival = Frame::announcement(OWNERS[1], ADDRESS);
    // One address in two VLANs, which is none of its owners' fault.
    for _ in 0..5 {
        for frame in [claim.clone().tagged(100), rival.clone().tagged(200)] {
            wire.sender().unwrap().send(&frame).unwrap();
        }
    }
    daemon.wait_until_digested(10).unwrap();
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
fn tc_on_a_bond_counts_and_finds() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let network = bonded(&monitor, &wire);
    network.counts_and_finds("tc", "0");
}

/// A program on the bond's port runs before the frame is the bond's, and counts it as the port's.
#[test]
fn native_on_a_port_of_a_bond_counts_for_the_port() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let network = Network {
        watched: INTERFACE,
        ..bonded(&monitor, &wire)
    };
    let daemon = network.start("native");
    network.answer_twice();
    let conflict = daemon.wait_for_finding("conflict", PATIENCE).unwrap();
    assert_eq!(conflict.interface, INTERFACE);
    daemon.wait_until_digested(3).unwrap();
}

/// Makes the monitor's network card the port of a bond.
fn bonded<'a>(monitor: &'a Host, wire: &'a Host) -> Network<'a> {
    for words in [
        "link add bond0 type bond mode active-backup miimon 10",
        "link set dev eth0 down",
        "link set dev eth0 master bond0",
        "link set dev bond0 up",
    ] {
        monitor.ip(words.split(' ')).unwrap();
    }
    eventually("the bond's carrier", PATIENCE, || {
        Ok(monitor.link_of("bond0")?.is_up().then_some(()))
    })
    .unwrap();
    Network {
        watched: "bond0",
        ..Network::of_cards(monitor, wire)
    }
}

const NATIVE: [&str; 2] = ["arp_tc_egress", "arp_xdp"];
const TC: [&str; 2] = ["arp_tc_egress", "arp_tc_ingress"];

/// XDP and TCX programs end with their process. The filters of clsact, below 6.6, pass every frame until the
/// next start removes them; the qdisc stays, it may be somebody else's.
#[test]
fn what_a_kill_leaves_the_next_start_removes() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let network = Network::of_cards(&monitor, &wire);
    for (mode, programs, filters) in [("native", NATIVE, &TC[..1]), ("tc", TC, &TC[..])] {
        network.start(mode).kill().unwrap();
        wait_for_loaded(if has_tcx() { &[] } else { filters });

        let daemon = network.start(mode);
        wait_for_loaded(&programs);
        network.answer_twice();
        let ledger = daemon.wait_until_digested(3).unwrap();
        assert_eq!(ledger.frames, 3, "no frame is counted twice");
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

/// Below 6.6 the next start may be in another mode than the one that was killed.
#[test]
fn what_a_kill_in_another_mode_left_is_removed_too() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let network = Network::of_cards(&monitor, &wire);
    network.start("tc").kill().unwrap();
    let daemon = network.start("native");
    wait_for_loaded(&NATIVE);
    daemon.terminate().unwrap();
    wait_for_loaded(&[]);
}

/// `probe watch` runs beside `probe run`, and each may be killed: below 6.6 only what a dead one left is removed.
#[test]
fn what_a_living_probe_has_attached_is_left_alone_by_others() {
    const TWICE: [&str; 4] = [
        "arp_tc_egress",
        "arp_tc_egress",
        "arp_tc_ingress",
        "arp_tc_ingress",
    ];
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let network = Network::of_cards(&monitor, &wire);
    let first = network.start("tc");
    for _ in 0..2 {
        let words = ["-i", INTERFACE, "--attach", "tc"];
        let beside = monitor.bare_watch(&words).unwrap();
        wait_for_loaded(&TWICE);
        beside.kill().unwrap();
        beside.finish(PATIENCE).unwrap();
        wait_for_loaded(if has_tcx() { &TC } else { &TWICE });
    }
    network.answer_twice();
    first.wait_for_finding("conflict", PATIENCE).unwrap();
    assert_eq!(first.terminate().unwrap().code(), Some(0));
}

/// With TCX there are no filters to delete, which is all that is held there: `attachment.rs` takes links away.
#[test]
fn a_filter_that_somebody_deleted_is_put_back_and_reported() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let network = Network::of_cards(&monitor, &wire);
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
            .wait_for_line(Stream::Stderr, PATIENCE, |line| {
                reports += usize::from(line.contains("somebody detached a program of ours"));
                reports == if direction == "ingress" { 1 } else { 2 }
            })
            .unwrap();
        wait_for_loaded(&TC);
        eventually("the filters to be back", PATIENCE, || {
            let words = ["tc", "filter", "show", "dev", INTERFACE, direction];
            Ok(monitor.exec(words)?.contains("arp_tc").then_some(()))
        })
        .unwrap();
    }
    network.answer_twice();
    daemon.wait_for_finding("conflict", PATIENCE).unwrap();
}

/// What a living one attached is not taken for left behind by the next one.
#[test]
fn two_at_once_do_not_get_in_each_others_way() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let network = Network::of_cards(&monitor, &wire);
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
        .wait_for_line(Stream::Stderr, PATIENCE, |line| line.contains("serving"))
        .unwrap();
    wait_for_loaded(&[TC[0], TC[0], TC[1], TC[1]]);
    second.terminate().unwrap();
    second.exit_status(PATIENCE).unwrap();
    wait_for_loaded(&TC);
    network.answer_twice();
    assert_eq!(first.wait_until_digested(3).unwrap().frames, 3);
}

/// Below 6.6 the filters go with it, and no link is there to tell; so the daemon looks by itself. TCX programs
/// do without, and stay.
#[test]
fn a_clsact_qdisc_that_somebody_deletes_is_no_loss_for_long() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let network = Network::of_cards(&monitor, &wire);
    let daemon = network.start("tc");
    let qdisc = |verb| monitor.exec(["tc", "qdisc", verb, "dev", INTERFACE, "clsact"]);
    if has_tcx() {
        qdisc("add").unwrap();
    }
    qdisc("del").unwrap();
    daemon
        .wait_for_metrics("frames to be counted again", PATIENCE, |metrics| {
            network.answer_twice();
            Ok(Ledger::read(metrics, Direction::Ingress)?.frames > 0)
        })
        .unwrap();
}
