//! Every frame is counted exactly once, under its cause: the sent frames are compared with the scrape.

use probe_common::{
    counter::{Direction, EmitOutcome},
    parse::MalformedReason,
    wire::{BogusFrameReason, FrameKind, MacAddr, Operation, ethertype},
};
use probe_tests::{CounterBalance, Frame, Host, Lab, Metrics};

const OWNER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const ADDRESS: [u8; 4] = [192, 0, 2, 1];

/// A monitored host and a sender, connected directly, so that no other device sends or changes frames.
fn monitor_and_sender(lab: &Lab) -> [Host; 2] {
    lab.pair("monitor", "sender").unwrap()
}

fn valid_frame() -> Frame {
    Frame::announcement(OWNER, ADDRESS)
}

fn malformed(reason: MalformedReason) -> Frame {
    match reason {
        MalformedReason::Truncated => valid_frame().of_length(41),
        MalformedReason::HardwareType => valid_frame().htype(6),
        MalformedReason::ProtocolType => valid_frame().ptype(ethertype::ARP),
        MalformedReason::AddressLength => valid_frame().plen(16),
        MalformedReason::Operation => valid_frame().oper(3),
        MalformedReason::VlanProtocol => valid_frame().tagged_as(0x9100, 5),
    }
}

fn bogus(reason: BogusFrameReason) -> Frame {
    match reason {
        BogusFrameReason::ShaZero => valid_frame().sha(MacAddr::ZERO),
        BogusFrameReason::ShaBroadcast => valid_frame().sha(MacAddr::BROADCAST),
        BogusFrameReason::ShaMulticast => valid_frame().sha(MacAddr([1, 0, 0x5e, 0, 0, 1])),
        BogusFrameReason::SpaUnspecified => valid_frame().oper(2).spa([0; 4]),
        BogusFrameReason::SpaBroadcast => valid_frame().spa([255; 4]),
        BogusFrameReason::SpaMulticast => valid_frame().spa([224, 0, 0, 18]),
        BogusFrameReason::SpaLoopback => valid_frame().spa([127, 0, 0, 1]),
    }
}

/// `count` copies of each frame, with a different number for each, so that swapped counters are noticed.
fn different_numbers_of<T: Copy>(
    causes: &[T],
    frame: impl Fn(T) -> Frame,
) -> (Vec<(T, u64)>, Vec<Frame>) {
    let numbers: Vec<_> = causes.iter().copied().zip(2..).collect();
    let frames = numbers
        .iter()
        .flat_map(|&(cause, number)| (0..number).map(move |_| cause))
        .map(frame)
        .collect();
    (numbers, frames)
}

fn ingress(metrics: &Metrics, name: &str, label: &str, value: &str) -> u64 {
    metrics
        .count(name, &[("direction", "ingress"), (label, value)])
        .unwrap()
}

#[test]
fn each_malformed_frame_is_counted_under_its_reason() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let (numbers, frames) = different_numbers_of(MalformedReason::ALL, malformed);
    sender.sender().unwrap().send_all(&frames).unwrap();

    let sent = frames.len() as u64;
    let balance = daemon.wait_until_processed(sent).unwrap();
    assert_eq!((balance.frames, balance.malformed), (sent, sent));
    let metrics = daemon.metrics().unwrap();
    for (reason, number) in numbers {
        let name = "arp_monitor_malformed_frames_total";
        let counted = ingress(&metrics, name, "reason", reason.label());
        assert_eq!(counted, number, "{reason}");
    }
    let name = "arp_monitor_frames_total";
    let other = ingress(&metrics, name, "operation", Operation::Other.label());
    assert_eq!(other, sent, "the operation of a malformed frame is unknown");
}

#[test]
fn each_bogus_frame_is_counted_under_its_reason() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let (numbers, frames) = different_numbers_of(BogusFrameReason::ALL, bogus);
    sender.sender().unwrap().send_all(&frames).unwrap();

    let sent = frames.len() as u64;
    let balance = daemon.wait_until_processed(sent).unwrap();
    assert_eq!((balance.frames, balance.bogus), (sent, sent));
    let metrics = daemon.metrics().unwrap();
    for (reason, number) in numbers {
        let name = "arp_monitor_bogus_frames_total";
        let counted = ingress(&metrics, name, "reason", reason.label());
        assert_eq!(counted, number, "{reason}");
    }
    let bindings = metrics.count("arp_monitor_bindings", &[]).unwrap();
    assert_eq!(bindings, 0, "a bogus frame creates no binding");
}

#[test]
fn claims_and_probes_are_counted_by_operation_with_and_without_tags() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let requester = sender.mac();
    let requests = [
        valid_frame(),
        valid_frame().of_length(Frame::MINIMUM),
        valid_frame().tagged(100),
        valid_frame().tagged(0xe000),
        valid_frame().tagged_as(ethertype::QINQ, 100).tagged(200),
        Frame::request(requester, [192, 0, 2, 2], ADDRESS),
    ];
    let replies = [
        Frame::reply(OWNER, ADDRESS, requester, [192, 0, 2, 2]),
        Frame::announcing_reply(OWNER, ADDRESS).tagged(100),
    ];
    let probes = [
        Frame::probe(requester, ADDRESS),
        Frame::probe(requester, ADDRESS).tagged(100),
        Frame::probe(requester, [192, 0, 2, 9]),
    ];
    let not_arp = [
        valid_frame().ethertype(ethertype::IPV4),
        valid_frame().tagged(1).tagged(2).tagged(3),
    ];
    let socket = sender.sender().unwrap();
    socket.send_all(&not_arp).unwrap();
    for frames in [&requests[..], &replies, &probes] {
        socket.send_all(frames).unwrap();
    }

    let balance = daemon.wait_until_processed(11).unwrap();
    assert_eq!((balance.frames, balance.claims, balance.probes), (11, 8, 3));
    let metrics = daemon.metrics().unwrap();
    let of = |operation: Operation| {
        let name = "arp_monitor_frames_total";
        ingress(&metrics, name, "operation", operation.label())
    };
    assert_eq!(of(Operation::Request), 9);
    assert_eq!(of(Operation::Reply), 2);
    assert_eq!(of(Operation::Other), 0);
    // 192.0.2.1 untagged, in VLAN 100 and in VLAN 100.200; the requester's own 192.0.2.2.
    assert_eq!(metrics.count("arp_monitor_bindings", &[]).unwrap(), 4);
}

#[test]
fn frames_of_every_length_are_counted_by_cause() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let socket = sender.sender().unwrap();
    let (mut truncated, mut whole) = (0, 0);
    for (frame, shortest) in [
        (valid_frame(), 42),
        (valid_frame().tagged(5), 46),
        (valid_frame().tagged_as(ethertype::QINQ, 5).tagged(6), 50),
    ] {
        for length in 14..=64 {
            socket.send(&frame.clone().of_length(length)).unwrap();
            if length < shortest {
                truncated += 1;
            } else {
                whole += 1;
            }
        }
    }
    let balance = daemon.wait_until_processed(truncated + whole).unwrap();
    assert_eq!((balance.malformed, balance.claims), (truncated, whole));
    let metrics = daemon.metrics().unwrap();
    let name = "arp_monitor_malformed_frames_total";
    let reason = MalformedReason::Truncated.label();
    assert_eq!(ingress(&metrics, name, "reason", reason), truncated);
}

#[test]
fn unchanged_claims_stay_in_the_kernel() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    // Longer than the test runs.
    let daemon = monitor.ready_daemon(&["--refresh", "1h"]).unwrap();
    sender
        .sender()
        .unwrap()
        .send_all(&vec![valid_frame(); 1000])
        .unwrap();
    let balance = daemon.wait_until_processed(1000).unwrap();
    assert_eq!(balance.outcome(FrameKind::Claim, EmitOutcome::Emitted), 1);
    assert_eq!(
        balance.outcome(FrameKind::Claim, EmitOutcome::Unchanged),
        999
    );
}

#[test]
fn a_refresh_of_zero_emits_every_claim() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&["--refresh", "0s"]).unwrap();
    sender
        .sender()
        .unwrap()
        .send_all(&vec![valid_frame(); 1000])
        .unwrap();
    let balance = daemon.wait_until_processed(1000).unwrap();
    assert_eq!(
        balance.outcome(FrameKind::Claim, EmitOutcome::Emitted),
        1000
    );
    assert_eq!(balance.received, 1000);
}

#[test]
fn counters_of_a_mixed_burst_add_up() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&[]).unwrap();
    // A mix of changing owners, new addresses, and every kind of invalid frame.
    let mixed = (0..20_000_u32).map(|number| {
        let [_, high, middle, low] = number.to_be_bytes();
        let owner = MacAddr([2, 0, 0, 0, 0, low % 3]);
        match number % 5 {
            0 => Frame::announcement(owner, ADDRESS),
            1 => Frame::announcement(owner, [10, high, middle, low]),
            2 => Frame::probe(owner, [10, high, middle, low]),
            3 => malformed(MalformedReason::ALL[usize::from(low) % MalformedReason::COUNT]),
            _ => bogus(BogusFrameReason::ALL[usize::from(low) % BogusFrameReason::COUNT]),
        }
    });
    let frames: Vec<_> = mixed.collect();
    sender.sender().unwrap().send_all(&frames).unwrap();
    let balance = daemon.wait_until_processed(20_000).unwrap();
    let each = 4_000;
    assert_eq!(
        (
            balance.malformed,
            balance.bogus,
            balance.claims,
            balance.probes
        ),
        (each, each, 2 * each, each)
    );
    for kind in FrameKind::ALL {
        assert_eq!(
            balance.outcome(*kind, EmitOutcome::Filtered),
            0,
            "no filter is set"
        );
    }
}

#[test]
fn frames_sent_by_the_host_are_counted_as_egress() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&[]).unwrap();
    monitor
        .sender()
        .unwrap()
        .send_all(&vec![valid_frame(); 3])
        .unwrap();
    sender
        .sender()
        .unwrap()
        .send_all(&vec![valid_frame(); 4])
        .unwrap();
    let ingress = daemon.wait_until_processed(4).unwrap();
    let egress = CounterBalance::read(&daemon.metrics().unwrap(), Direction::Egress).unwrap();
    egress.check().unwrap();
    assert_eq!((ingress.frames, egress.frames), (4, 3));
}

#[test]
fn every_series_exists_before_the_first_frame() {
    let lab = Lab::new().unwrap();
    let [monitor, _sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let metrics = daemon.metrics().unwrap();
    for &direction in Direction::ALL {
        assert_eq!(
            CounterBalance::read(&metrics, direction).unwrap(),
            CounterBalance::default()
        );
        let way = ("direction", direction.label());
        for reason in MalformedReason::ALL {
            let labels = [way, ("interface", "eth0"), ("reason", reason.label())];
            let value = metrics.get("arp_monitor_malformed_frames_total", &labels);
            assert_eq!(value, Some(0.0), "{labels:?}");
        }
        for reason in BogusFrameReason::ALL {
            let labels = [way, ("interface", "eth0"), ("reason", reason.label())];
            let value = metrics.get("arp_monitor_bogus_frames_total", &labels);
            assert_eq!(value, Some(0.0), "{labels:?}");
        }
    }
    assert_eq!(metrics.get("arp_monitor_bindings", &[]), Some(0.0));
    assert_eq!(metrics.get("arp_monitor_open_conflicts", &[]), Some(0.0));
    let info = [("interface", "eth0"), ("mode", "native")];
    assert_eq!(metrics.get("arp_monitor_interface_info", &info), Some(1.0));
    for finding in [
        "new_binding",
        "moved",
        "contested",
        "conflict",
        "conflict_resolved",
    ] {
        let labels = [("finding", finding)];
        let value = metrics.count("arp_monitor_findings_total", &labels);
        assert_eq!(value.unwrap(), 0, "{finding}");
    }
}
