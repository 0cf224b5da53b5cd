//! How it gets along with others on one interface: nobody's program is replaced or removed, it sees every
//! frame all the same, and what is done to its own it notices and repairs.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TcAttachType};
use probe_common::{counter::Direction, event_filter::Settings};
use probe_datapath::{Attachment, EventRings, Kernel, LoadOptions};
use probe_model::{Link, watched::AttachedMode};
use probe_tests::{
    Daemon, Frame, Host, INTERFACE, Lab, Ledger, Metrics, Process, ScatteringSender, SocketPlace,
    Stream, eventually,
};
use tokio::runtime::{Builder, Runtime};

const SOON: Duration = Duration::from_secs(10);

/// Starts the daemon in a mode.
fn daemon<'a>(host: &'a Host, attach: &str) -> Daemon<'a> {
    host.ready_bare_daemon(&["-i", INTERFACE, "--attach", attach])
        .unwrap()
}

fn frame(host: &Host) -> Frame {
    Frame::announcement(host.mac(), [192, 0, 2, 1])
}

/// `AttachedMode` and reason, as the metrics have them.
fn how(metrics: &Metrics) -> Option<(String, String)> {
    let sample = metrics.select("arp_monitor_interface_info", &[]).next()?;
    Some((
        sample.labels["mode"].clone(),
        sample.labels["reason"].clone(),
    ))
}

fn wait_for_mode(daemon: &Daemon<'_>, mode: &str, reason: &str) {
    let wanted = Some((mode.to_owned(), reason.to_owned()));
    daemon
        .wait_for_metrics(&format!("{mode} because of {reason}"), SOON, |metrics| {
            Ok(how(metrics) == wanted)
        })
        .unwrap();
}

/// Frames that arrived, as far as they were counted.
fn counted(daemon: &Daemon<'_>) -> u64 {
    let metrics = daemon.metrics().unwrap();
    Ledger::read(&metrics, Direction::Ingress).unwrap().frames
}

/// Sends frames until one more is counted: while programs are exchanged, one may pass between them.
fn wait_until_it_counts(daemon: &Daemon<'_>, sender: &Host) {
    let before = counted(daemon);
    let socket = sender.sender().unwrap();
    eventually("a frame to be counted", SOON, || {
        socket.send(&frame(sender))?;
        Ok((counted(daemon) > before).then_some(()))
    })
    .unwrap();
}

/// Somebody else's program: another copy of ours, in this process, which does nothing about being displaced.
struct Other {
    _attachment: Attachment,
    _kernel: Kernel,
    _rings: EventRings,
    _runtime: Runtime,
}

impl Other {
    fn attach(host: &Host, mode: AttachedMode) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let options = LoadOptions {
            ring_memory: 0,
            addresses: 256,
            filter_entries: 1,
        };
        let link = Link {
            index: host.link()?.index()?,
            name: INTERFACE.to_owned(),
            mtu: 1500,
            ..Link::default()
        };
        let (kernel, rings, attachment) = host.enter(|| {
            let _entered = runtime.enter();
            let (mut kernel, rings) = Kernel::load(&options, &Settings::default())?;
            let attachment = kernel.attach(&link, mode)?;
            Ok((kernel, rings, attachment))
        })?;
        Ok(Self {
            _attachment: attachment,
            _kernel: kernel,
            _rings: rings,
            _runtime: runtime,
        })
    }
}

/// A BPF link that a process holds.
#[derive(Debug)]
struct BpfLink {
    kind: String,
    id: u64,
    program: u64,
}

/// The links of a process, from what the kernel says of its descriptors.
fn bpf_links(process: &Process) -> Vec<BpfLink> {
    let directory = format!("/proc/{}/fdinfo", process.id());
    let mut links = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry.unwrap().path()) else {
            continue;
        };
        let fields: BTreeMap<_, _> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect();
        let number = |name: &str| fields.get(name)?.parse().ok();
        if let (Some(kind), Some(id), Some(program)) = (
            fields.get("link_type"),
            number("link_id"),
            number("prog_id"),
        ) {
            let kind = (*kind).to_owned();
            links.push(BpfLink { kind, id, program });
        }
    }
    links
}

/// Whether the first program that a frame meets in TC is one of the daemon's.
fn is_first(daemon: &Daemon<'_>, host: &Host, hook: TcAttachType) -> Result<bool> {
    let programs = host.enter(|| Ok(SchedClassifier::query_tcx(INTERFACE, hook)?.1))?;
    let first = programs.first().context("there is no TC program")?.id();
    Ok(bpf_links(daemon.process())
        .iter()
        .any(|link| link.program == u64::from(first)))
}

const BOTH: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// Takes a program away behind its owner's back.
fn detach(host: &Host, link: &BpfLink) {
    let id = link.id.to_string();
    host.exec(["bpftool", "link", "detach", "id", &id]).unwrap();
}

#[test]
fn each_mode_counts_a_frame_and_says_why_it_was_chosen() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    for (attach, mode, reason) in [
        ("auto", "tc", "disables_offload"),
        ("native", "native", "requested"),
        ("tc", "tc", "requested"),
        ("generic", "generic", "requested"),
    ] {
        let daemon = daemon(&monitor, attach);
        let said = how(&daemon.metrics().unwrap());
        assert_eq!(said, Some((mode.to_owned(), reason.to_owned())), "{attach}");
        wire.sender().unwrap().send(&frame(&wire)).unwrap();
        assert_eq!(daemon.wait_until_digested(1).unwrap().claims, 1, "{attach}");
        let expected = format!("reason={reason}");
        daemon
            .process()
            .wait_for_line(Stream::Stderr, SOON, |line| line.contains(&expected))
            .unwrap();
    }
}

#[test]
fn its_tc_programs_are_first_although_others_were_there_before() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let _other = Other::attach(&monitor, AttachedMode::Tc).unwrap();
    let daemon = daemon(&monitor, "tc");
    for hook in BOTH {
        assert!(is_first(&daemon, &monitor, hook).unwrap(), "{hook:?}");
    }
    wire.sender().unwrap().send(&frame(&wire)).unwrap();
    daemon.wait_until_digested(1).unwrap();
}

#[test]
fn its_tc_programs_go_back_in_front_of_one_that_came_later() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = daemon(&monitor, "tc");
    let _other = Other::attach(&monitor, AttachedMode::Tc).unwrap();
    for hook in BOTH {
        eventually("ours to be first again and the other to stay", SOON, || {
            let there =
                monitor.enter(|| Ok(SchedClassifier::query_tcx(INTERFACE, hook)?.1.len()))?;
            Ok((is_first(&daemon, &monitor, hook)? && there == 2).then_some(()))
        })
        .unwrap();
    }
    daemon
        .process()
        .wait_for_line(Stream::Stderr, SOON, |line| {
            line.contains("in front of ours")
        })
        .unwrap();
    wait_until_it_counts(&daemon, &wire);
}

#[test]
fn another_xdp_program_stays_and_auto_sees_the_frames_in_tc() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let _other = Other::attach(&monitor, AttachedMode::Native).unwrap();
    let before = monitor.link().unwrap().xdp_programs();
    assert_eq!(before.len(), 1);
    let daemon = daemon(&monitor, "auto");
    wire.sender().unwrap().send(&frame(&wire)).unwrap();
    daemon.wait_until_digested(1).unwrap();
    assert_eq!(how(&daemon.metrics().unwrap()).unwrap().0, "tc");
    assert_eq!(monitor.link().unwrap().xdp_programs(), before);
}

#[test]
fn the_verb_frees_the_xdp_slot_and_shows_the_interfaces_as_they_are_then() {
    let lab = Lab::new().unwrap();
    let place = SocketPlace::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&["--socket", place.word()]).unwrap();
    let words = ["release-xdp", "--socket", place.word()];
    let released = monitor.probe(&words).unwrap().finish(SOON).unwrap();
    let shown = released.success().unwrap();
    assert!(shown.contains(" tc "), "{shown}");
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
    wait_for_mode(&daemon, "tc", "released");
}

#[test]
fn on_sigusr1_the_xdp_slot_is_free_for_others_and_frames_are_seen_in_tc() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = daemon(&monitor, "native");
    wire.sender().unwrap().send(&frame(&wire)).unwrap();
    daemon.wait_until_digested(1).unwrap();
    let refused = Other::attach(&monitor, AttachedMode::Native).err().unwrap();
    assert!(refused.to_string().contains("--attach tc"), "{refused}");

    daemon.process().user_signal().unwrap();
    wait_for_mode(&daemon, "tc", "released");
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
    let _other = Other::attach(&monitor, AttachedMode::Native).unwrap();
    wire.sender().unwrap().send(&frame(&wire)).unwrap();
    let ledger = daemon.wait_until_digested(2).unwrap();
    assert_eq!(ledger.claims, 2, "it counts on where it was");
    assert_eq!(daemon.get("/readyz").unwrap().status, 200);
}

#[test]
fn a_program_that_somebody_detached_is_attached_again_within_seconds_and_reported() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    for (attach, kind) in [("native", "xdp"), ("tc", "tcx")] {
        let daemon = daemon(&monitor, attach);
        let links = bpf_links(daemon.process());
        let link = links.iter().find(|link| link.kind == kind).unwrap();
        detach(&monitor, link);
        daemon
            .process()
            .wait_for_line(Stream::Stderr, SOON, |line| {
                line.contains("WARN") && line.contains("somebody detached a program of ours")
            })
            .unwrap();
        // All of them are new, and none is left over.
        let old: Vec<_> = links.iter().map(|link| link.id).collect();
        eventually("as many new links", SOON, || {
            let now = bpf_links(daemon.process());
            let new = now.iter().all(|link| !old.contains(&link.id));
            Ok((new && now.len() == old.len()).then_some(()))
        })
        .unwrap();
        wait_until_it_counts(&daemon, &wire);
        assert_eq!(daemon.get("/readyz").unwrap().status, 200);
    }
}

#[test]
fn whoever_detaches_it_again_and_again_meets_longer_and_longer_waits() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = daemon(&monitor, "tc");
    let mut gone = Vec::new();
    for times in 1..=3 {
        // Only links that are new: a detached one stays in the list until the daemon lets go of it.
        let link = eventually("a new link", SOON, || {
            let links = bpf_links(daemon.process());
            Ok(links
                .into_iter()
                .find(|link| link.kind == "tcx" && !gone.contains(&link.id)))
        })
        .unwrap();
        gone.extend(bpf_links(daemon.process()).iter().map(|link| link.id));
        detach(&monitor, &link);
        eventually("a report of it", SOON, || {
            let lines = daemon.process().lines(Stream::Stderr);
            let reports = lines.iter().filter(|line| line.contains("reattaching"));
            Ok((reports.count() == times).then_some(()))
        })
        .unwrap();
    }
    let waits: Vec<_> = daemon
        .process()
        .lines(Stream::Stderr)
        .iter()
        .filter_map(|line| seconds(line.split_once("retry_in=")?.1.split(' ').next()?))
        .collect();
    let [first, second, third] = waits[..] else {
        panic!("{waits:?}")
    };
    // What is left of 0, 2 and 4 s when it is written.
    assert!(first == 0.0, "{waits:?}");
    assert!(0.0 < second && second <= 2.0, "{waits:?}");
    assert!(2.0 < third && third <= 4.0, "{waits:?}");
}

/// A duration as the log has it: a number and its unit.
fn seconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_alphabetic() || c == 'µ')?;
    let number: f64 = text[..unit].parse().ok()?;
    let factor = match &text[unit..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Some(number * factor)
}

#[test]
fn ip_link_set_xdp_off_does_not_take_it_away() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = daemon(&monitor, "native");
    let programs = monitor.link().unwrap().xdp_programs();
    // The kernel refuses: the link holds the slot.
    let refused = monitor.ip(["link", "set", "dev", INTERFACE, "xdp", "off"]);
    assert!(refused.is_err());
    assert_eq!(monitor.link().unwrap().xdp_programs(), programs);
    wire.sender().unwrap().send(&frame(&wire)).unwrap();
    daemon.wait_until_digested(1).unwrap();
}

/// Two hosts on a cable that carries frames of 9000 bytes.
fn jumbo_pair(lab: &Lab) -> [Host; 2] {
    let hosts = lab.pair("monitor", "wire").unwrap();
    for host in &hosts {
        host.ip(["link", "set", "dev", INTERFACE, "mtu", "9000"])
            .unwrap();
    }
    hosts
}

#[test]
fn an_interface_with_a_jumbo_mtu_is_attached_natively_and_sees_small_and_large_frames() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = jumbo_pair(&lab);
    let daemon = daemon(&monitor, "native");
    assert_eq!(monitor.link().unwrap().xdp_programs().len(), 1);
    let socket = wire.sender().unwrap();
    for length in [42, 60, 1514, 4096, 9014] {
        socket.send(&frame(&wire).of_length(length)).unwrap();
    }
    assert_eq!(daemon.wait_until_digested(5).unwrap().claims, 5);
}

#[test]
fn headers_that_are_not_in_the_linear_part_of_a_buffer_are_read_in_every_mode() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = jumbo_pair(&lab);
    for attach in ["tc", "native", "generic"] {
        let daemon = daemon(&monitor, attach);
        let socket = wire.scattering_sender().unwrap();
        for long in [
            frame(&wire),
            frame(&wire).tagged(100),
            Frame::probe(wire.mac(), [192, 0, 2, 9]),
        ] {
            socket
                .send(&long.of_length(ScatteringSender::SHORTEST))
                .unwrap();
        }
        let ledger = daemon.wait_until_digested(3).unwrap();
        assert_eq!(
            (ledger.claims, ledger.probes),
            (2, 1),
            "{attach}: {ledger:?}"
        );
    }
}

#[test]
fn scattered_headers_of_what_the_host_sends_are_read() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = jumbo_pair(&lab);
    let daemon = daemon(&monitor, "tc");
    let socket = monitor.scattering_sender().unwrap();
    let long = frame(&monitor).of_length(ScatteringSender::SHORTEST);
    socket.send(&long).unwrap();
    daemon
        .wait_for_metrics("a claim that was sent", SOON, |metrics| {
            Ok(Ledger::read(metrics, Direction::Egress)?.claims == 1)
        })
        .unwrap();
}
