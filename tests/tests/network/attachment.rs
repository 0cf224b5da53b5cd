//! Coexistence with other programs on one interface: the daemon replaces and removes no program of others, sees
//! every frame nevertheless, and notices and repairs changes to its own programs.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TcAttachType};
use probe_common::{counter::Direction, event_filter::FilterSettings};
use probe_datapath::{Attachment, EventRings, Kernel, LoadOptions};
use probe_model::{Link, watched::AttachedMode};
use probe_tests::{
    CounterBalance, Daemon, DaemonSocket, Frame, Host, INTERFACE, Lab, Metrics, Process,
    ScatteringSender, Stream, eventually,
};
use tokio::runtime::{Builder, Runtime};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the daemon in this mode.
fn daemon<'a>(host: &'a Host, attach: &str) -> Daemon<'a> {
    host.ready_bare_daemon(&["-i", INTERFACE, "--attach", attach])
        .unwrap()
}

fn frame(host: &Host) -> Frame {
    Frame::announcement(host.mac(), [192, 0, 2, 1])
}

/// `AttachedMode` and reason from the metrics.
fn mode_and_reason(metrics: &Metrics) -> Option<(String, String)> {
    let sample = metrics.select("arp_monitor_interface_info", &[]).next()?;
    Some((
        sample.labels["mode"].clone(),
        sample.labels["reason"].clone(),
    ))
}

fn wait_for_mode(daemon: &Daemon<'_>, mode: &str, reason: &str) {
    let wanted = Some((mode.to_owned(), reason.to_owned()));
    daemon
        .wait_for_metrics(&format!("{mode} because of {reason}"), TIMEOUT, |metrics| {
            Ok(mode_and_reason(metrics) == wanted)
        })
        .unwrap();
}

/// The number of received frames that were counted.
fn counted(daemon: &Daemon<'_>) -> u64 {
    let metrics = daemon.metrics().unwrap();
    CounterBalance::read(&metrics, Direction::Ingress)
        .unwrap()
        .frames
}

/// Sends frames until one more is counted: while programs are exchanged, a frame may be missed.
fn wait_until_it_counts(daemon: &Daemon<'_>, sender: &Host) {
    let before = counted(daemon);
    let socket = sender.sender().unwrap();
    eventually("a frame to be counted", TIMEOUT, || {
        socket.send(&frame(sender))?;
        Ok((counted(daemon) > before).then_some(()))
    })
    .unwrap();
}

/// A program of another owner: a copy of our program in this process, which does not react when it is displaced.
struct OtherProgram {
    _attachment: Attachment,
    _kernel: Kernel,
    _rings: EventRings,
    _runtime: Runtime,
}

impl OtherProgram {
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
            let (mut kernel, rings) = Kernel::load(&options, &FilterSettings::default())?;
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

/// A BPF link of a process.
#[derive(Debug)]
struct BpfLink {
    kind: String,
    id: u64,
    program: u64,
}

/// The links of a process, from its descriptors in /proc.
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

/// Whether the first TC program of an interface is the daemon's.
fn is_first(daemon: &Daemon<'_>, host: &Host, hook: TcAttachType) -> Result<bool> {
    let programs = host.enter(|| Ok(SchedClassifier::query_tcx(INTERFACE, hook)?.1))?;
    let first = programs.first().context("there is no TC program")?.id();
    Ok(bpf_links(daemon.process())
        .iter()
        .any(|link| link.program == u64::from(first)))
}

const DIRECTIONS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// Detaches a program without its owner.
fn detach(host: &Host, link: &BpfLink) {
    let id = link.id.to_string();
    host.exec(["bpftool", "link", "detach", "id", &id]).unwrap();
}

#[test]
fn each_mode_counts_a_frame_and_reports_its_reason() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    for (attach, mode, reason) in [
        ("auto", "tc", "disables_offload"),
        ("native", "native", "requested"),
        ("tc", "tc", "requested"),
        ("generic", "generic", "requested"),
    ] {
        let daemon = daemon(&monitor, attach);
        let actual = mode_and_reason(&daemon.metrics().unwrap());
        assert_eq!(
            actual,
            Some((mode.to_owned(), reason.to_owned())),
            "{attach}"
        );
        peer.sender().unwrap().send(&frame(&peer)).unwrap();
        assert_eq!(
            daemon.wait_until_processed(1).unwrap().claims,
            1,
            "{attach}"
        );
        let expected = format!("reason={reason}");
        daemon
            .process()
            .wait_for_line(Stream::Stderr, TIMEOUT, |line| line.contains(&expected))
            .unwrap();
    }
}

#[test]
fn tc_programs_are_attached_before_existing_ones() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let _other = OtherProgram::attach(&monitor, AttachedMode::Tc).unwrap();
    let daemon = daemon(&monitor, "tc");
    for hook in DIRECTIONS {
        assert!(is_first(&daemon, &monitor, hook).unwrap(), "{hook:?}");
    }
    peer.sender().unwrap().send(&frame(&peer)).unwrap();
    daemon.wait_until_processed(1).unwrap();
}

#[test]
fn tc_programs_move_before_one_that_was_attached_later() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = daemon(&monitor, "tc");
    let _other = OtherProgram::attach(&monitor, AttachedMode::Tc).unwrap();
    for hook in DIRECTIONS {
        eventually(
            "our program to be first and the other one to stay",
            TIMEOUT,
            || {
                let attached =
                    monitor.enter(|| Ok(SchedClassifier::query_tcx(INTERFACE, hook)?.1.len()))?;
                Ok((is_first(&daemon, &monitor, hook)? && attached == 2).then_some(()))
            },
        )
        .unwrap();
    }
    daemon
        .process()
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
            line.contains("runs before ours")
        })
        .unwrap();
    wait_until_it_counts(&daemon, &peer);
}

#[test]
fn auto_uses_tc_beside_another_xdp_program() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let _other = OtherProgram::attach(&monitor, AttachedMode::Native).unwrap();
    let before = monitor.link().unwrap().xdp_programs();
    assert_eq!(before.len(), 1);
    let daemon = daemon(&monitor, "auto");
    peer.sender().unwrap().send(&frame(&peer)).unwrap();
    daemon.wait_until_processed(1).unwrap();
    assert_eq!(mode_and_reason(&daemon.metrics().unwrap()).unwrap().0, "tc");
    assert_eq!(monitor.link().unwrap().xdp_programs(), before);
}

#[test]
fn release_xdp_frees_the_slot_and_prints_the_new_interfaces() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor
        .ready_daemon(&["--socket", daemon_socket.argument()])
        .unwrap();
    let words = ["release-xdp", "--socket", daemon_socket.argument()];
    let released = monitor.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    let shown = released.success().unwrap();
    assert!(shown.contains(" tc "), "{shown}");
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
    wait_for_mode(&daemon, "tc", "released");
}

#[test]
fn sigusr1_frees_the_xdp_slot_and_continues_in_tc() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = daemon(&monitor, "native");
    peer.sender().unwrap().send(&frame(&peer)).unwrap();
    daemon.wait_until_processed(1).unwrap();
    let refused = OtherProgram::attach(&monitor, AttachedMode::Native)
        .err()
        .unwrap();
    assert!(refused.to_string().contains("--attach tc"), "{refused}");

    daemon.process().user_signal().unwrap();
    wait_for_mode(&daemon, "tc", "released");
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
    let _other = OtherProgram::attach(&monitor, AttachedMode::Native).unwrap();
    peer.sender().unwrap().send(&frame(&peer)).unwrap();
    let balance = daemon.wait_until_processed(2).unwrap();
    assert_eq!(balance.claims, 2, "the counters continue");
    assert_eq!(daemon.get("/readyz").unwrap().status, 200);
}

#[test]
fn a_detached_program_is_attached_again_within_seconds_and_reported() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    for (attach, kind) in [("native", "xdp"), ("tc", "tcx")] {
        let daemon = daemon(&monitor, attach);
        let links = bpf_links(daemon.process());
        let link = links.iter().find(|link| link.kind == kind).unwrap();
        detach(&monitor, link);
        daemon
            .process()
            .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
                line.contains("WARN")
                    && line.contains("another process detached one of our programs")
            })
            .unwrap();
        // All links are new, and no old one is left.
        let old: Vec<_> = links.iter().map(|link| link.id).collect();
        eventually("as many new links", TIMEOUT, || {
            let now = bpf_links(daemon.process());
            let new = now.iter().all(|link| !old.contains(&link.id));
            Ok((new && now.len() == old.len()).then_some(()))
        })
        .unwrap();
        wait_until_it_counts(&daemon, &peer);
        assert_eq!(daemon.get("/readyz").unwrap().status, 200);
    }
}

#[test]
fn repeated_detaching_increases_the_back_off() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = daemon(&monitor, "tc");
    let mut detached = Vec::new();
    for times in 1..=3 {
        // Only new links: a detached one stays in the list until the daemon closes it.
        let link = eventually("a new link", TIMEOUT, || {
            let links = bpf_links(daemon.process());
            Ok(links
                .into_iter()
                .find(|link| link.kind == "tcx" && !detached.contains(&link.id)))
        })
        .unwrap();
        detached.extend(bpf_links(daemon.process()).iter().map(|link| link.id));
        detach(&monitor, &link);
        eventually("the log line", TIMEOUT, || {
            let lines = daemon.process().lines(Stream::Stderr);
            let reports = lines
                .iter()
                .filter(|line| line.contains("attaching the programs again"));
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
    // The remainder of 0, 2 and 4 s at the time of the log line.
    assert!(first == 0.0, "{waits:?}");
    assert!(0.0 < second && second <= 2.0, "{waits:?}");
    assert!(2.0 < third && third <= 4.0, "{waits:?}");
}

/// Parses a duration in the log: a number and its unit.
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
fn ip_link_set_xdp_off_does_not_detach_the_program() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = daemon(&monitor, "native");
    let programs = monitor.link().unwrap().xdp_programs();
    // The kernel refuses because the link holds the slot.
    let refused = monitor.ip(["link", "set", "dev", INTERFACE, "xdp", "off"]);
    assert!(refused.is_err());
    assert_eq!(monitor.link().unwrap().xdp_programs(), programs);
    peer.sender().unwrap().send(&frame(&peer)).unwrap();
    daemon.wait_until_processed(1).unwrap();
}

/// Two connected hosts with an MTU of 9000 bytes.
fn jumbo_pair(lab: &Lab) -> [Host; 2] {
    let hosts = lab.pair("monitor", "peer").unwrap();
    for host in &hosts {
        host.ip(["link", "set", "dev", INTERFACE, "mtu", "9000"])
            .unwrap();
    }
    hosts
}

#[test]
fn native_xdp_with_a_jumbo_mtu_receives_small_and_large_frames() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = jumbo_pair(&lab);
    let daemon = daemon(&monitor, "native");
    assert_eq!(monitor.link().unwrap().xdp_programs().len(), 1);
    let socket = peer.sender().unwrap();
    for length in [42, 60, 1514, 4096, 9014] {
        socket.send(&frame(&peer).of_length(length)).unwrap();
    }
    assert_eq!(daemon.wait_until_processed(5).unwrap().claims, 5);
}

#[test]
fn headers_in_nonlinear_buffers_are_read_in_every_mode() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = jumbo_pair(&lab);
    for attach in ["tc", "native", "generic"] {
        let daemon = daemon(&monitor, attach);
        let socket = peer.scattering_sender().unwrap();
        for long in [
            frame(&peer),
            frame(&peer).tagged(100),
            Frame::probe(peer.mac(), [192, 0, 2, 9]),
        ] {
            socket
                .send(&long.of_length(ScatteringSender::SHORTEST))
                .unwrap();
        }
        let balance = daemon.wait_until_processed(3).unwrap();
        assert_eq!(
            (balance.claims, balance.probes),
            (2, 1),
            "{attach}: {balance:?}"
        );
    }
}

#[test]
fn nonlinear_headers_of_sent_frames_are_read() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = jumbo_pair(&lab);
    let daemon = daemon(&monitor, "tc");
    let socket = monitor.scattering_sender().unwrap();
    let long = frame(&monitor).of_length(ScatteringSender::SHORTEST);
    socket.send(&long).unwrap();
    daemon
        .wait_for_metrics("a sent claim", TIMEOUT, |metrics| {
            Ok(CounterBalance::read(metrics, Direction::Egress)?.claims == 1)
        })
        .unwrap();
}
