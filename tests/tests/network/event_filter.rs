//! The event filter: the kernel side emits changes and accounts for every frame that it suppresses: under load, on
//! two CPUs at once, with a full ring, and with every budget exhausted.

use std::{net::Ipv4Addr, thread, time::Instant};

use probe_common::{
    counter::EmitOutcome,
    parse::MalformedReason,
    wire::{BogusFrameReason, FrameKind, MacAddr},
};
use probe_tests::{Frame, Host, Lab, Sender, cpus, pin_this_thread};

const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xbb]);
const ADDRESS: [u8; 4] = [192, 0, 2, 1];

/// Longer than a test runs.
const NO_REFRESH: [&str; 2] = ["--refresh", "1h"];

fn monitor_and_sender(lab: &Lab) -> [Host; 2] {
    lab.pair("monitor", "sender").unwrap()
}

/// The `number`th address of 10.0.0.0/8.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + number)
}

fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([2, 1, a, b, c, d])
}

/// Runs a function on two CPUs at once, each with its own sender and number, 0 or 1. On a machine with one CPU,
/// both run on that.
fn on_two_cpus(host: &Host, work: impl Fn(u32, &Sender) + Sync) {
    let cpus = cpus().unwrap();
    thread::scope(|scope| {
        for (number, cpu) in (0..2).zip(cpus.into_iter().cycle()) {
            let (host, work) = (&host, &work);
            scope.spawn(move || {
                let sender = host.sender().unwrap();
                pin_this_thread(cpu).unwrap();
                work(number, &sender);
            });
        }
    });
}

/// The `number`th frame of a mix: constant and changing owners, new addresses, requests with replies, ARP probes,
/// and every kind of invalid frame.
fn mixed(number: u32) -> Frame {
    let owner = mac(number % 3);
    let pick = number as usize / 8;
    let valid = Frame::announcement(owner, ADDRESS);
    match number % 8 {
        0 => valid,
        1 => Frame::announcement(A, [192, 0, 2, 2]),
        2 => Frame::announcement(owner, address(number)),
        3 => Frame::request(A, [192, 0, 2, 2], ADDRESS),
        4 => Frame::reply(owner, ADDRESS, A, [192, 0, 2, 2]),
        5 => Frame::probe(owner, address(number % 1000)),
        6 => match MalformedReason::ALL[pick % MalformedReason::COUNT] {
            MalformedReason::Truncated => valid.of_length(41),
            MalformedReason::HardwareType => valid.htype(6),
            MalformedReason::ProtocolType => valid.ptype(1),
            MalformedReason::AddressLength => valid.plen(16),
            MalformedReason::Operation => valid.oper(3),
            MalformedReason::VlanProtocol => valid.tagged_as(0x9200, 5),
        },
        _ => match BogusFrameReason::ALL[pick % BogusFrameReason::COUNT] {
            BogusFrameReason::ShaZero => valid.sha(MacAddr::ZERO),
            BogusFrameReason::ShaBroadcast => valid.sha(MacAddr::BROADCAST),
            BogusFrameReason::ShaMulticast => valid.sha(MacAddr([1, 0, 0x5e, 0, 0, 1])),
            BogusFrameReason::SpaUnspecified => valid.oper(2).spa([0; 4]),
            BogusFrameReason::SpaBroadcast => valid.spa([255; 4]),
            BogusFrameReason::SpaMulticast => valid.spa([224, 0, 0, 18]),
            BogusFrameReason::SpaLoopback => valid.spa([127, 0, 0, 1]),
        },
    }
}

fn every_frame_of_a_load_on_two_cpus_is_accounted_for(attach: &str) {
    const EACH: u32 = 104_000;
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor
        .ready_bare_daemon(&["-i", "eth0", "--attach", attach])
        .unwrap();
    on_two_cpus(&sender, |number, socket| {
        for frame in 0..EACH {
            socket.send(&mixed(number * EACH + frame)).unwrap();
        }
    });
    let sent = 2 * u64::from(EACH);
    let balance = daemon.wait_until_processed(sent).unwrap();
    let eighth = sent / 8;
    assert_eq!(
        (
            balance.frames,
            balance.malformed,
            balance.bogus,
            balance.claims,
            balance.probes
        ),
        (sent, eighth, eighth, 5 * eighth, eighth)
    );
    for kind in [FrameKind::Claim, FrameKind::Probe] {
        for outcome in [EmitOutcome::Emitted, EmitOutcome::Unchanged] {
            assert!(balance.outcome(kind, outcome) > 0, "{kind} {outcome}");
        }
    }
    for outcome in [EmitOutcome::Emitted, EmitOutcome::RateLimited] {
        assert!(balance.outcome(FrameKind::Bogus, outcome) > 0, "{outcome}");
    }
}

#[test]
fn every_frame_of_a_load_on_two_cpus_is_accounted_for_in_tc() {
    every_frame_of_a_load_on_two_cpus_is_accounted_for("tc");
}

#[test]
fn every_frame_of_a_load_on_two_cpus_is_accounted_for_in_native_xdp() {
    every_frame_of_a_load_on_two_cpus_is_accounted_for("native");
}

#[test]
fn a_full_ring_is_counted_and_the_next_claim_is_emitted() {
    // Far more than the rings of a mebibyte can hold.
    const EACH: u32 = 20_000;
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let options = ["--ring-memory", "1", "--new-address-rate", "1000000"];
    let daemon = monitor.ready_daemon(&options).unwrap();

    daemon.process().pause().unwrap();
    on_two_cpus(&sender, |number, socket| {
        for frame in number * EACH..(number + 1) * EACH {
            socket
                .send(&Frame::announcement(A, address(frame)))
                .unwrap();
        }
    });
    daemon.process().resume().unwrap();

    let sent = 2 * EACH;
    let before = daemon.wait_until_processed(sent.into()).unwrap();
    let lost = before.outcome(FrameKind::Claim, EmitOutcome::RingFull);
    assert!(lost > 0, "{before:?}");
    assert_eq!(lost + before.received, u64::from(sent));

    // The rings were not drained while they filled, so the last event was lost.
    let last = Frame::announcement(A, address(sent - 1));
    sender.sender().unwrap().send(&last).unwrap();
    let after = daemon.wait_until_processed(u64::from(sent) + 1).unwrap();
    assert_eq!(after.received, before.received + 1);
    assert_eq!(after.outcome(FrameKind::Claim, EmitOutcome::RingFull), lost);
}

#[test]
fn bogus_frames_and_probes_do_not_change_the_state_of_a_claim() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&NO_REFRESH).unwrap();
    let claim = Frame::announcement(A, ADDRESS);
    let unknown_hosts = [
        Frame::probe(B, ADDRESS),
        Frame::announcement(B, ADDRESS).sha(MacAddr::ZERO),
        Frame::announcement(B, ADDRESS).sha(MacAddr::BROADCAST),
        Frame::announcement(B, ADDRESS).sha(MacAddr([1, 0, 0x5e, 0, 0, 1])),
    ];
    let socket = sender.sender().unwrap();
    socket.send(&claim).unwrap();
    socket.send_all(&unknown_hosts).unwrap();
    socket.send(&claim).unwrap();

    let balance = daemon.wait_until_processed(6).unwrap();
    assert_eq!((balance.claims, balance.probes, balance.bogus), (2, 1, 3));
    assert_eq!(balance.outcome(FrameKind::Claim, EmitOutcome::Emitted), 1);
    assert_eq!(balance.outcome(FrameKind::Claim, EmitOutcome::Unchanged), 1);
}

/// Sends a flood from one CPU, and returns the largest number of frames that pass a limit of `rate` per second with
/// a burst of the same size.
fn flood(host: &Host, rate: u64, frames: impl Iterator<Item = Frame> + Send) -> u64 {
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let sender = host.sender().unwrap();
            pin_this_thread(cpus().unwrap()[0]).unwrap();
            for frame in frames {
                sender.send(&frame).unwrap();
            }
        });
    });
    let earned = u128::from(rate) * start.elapsed().as_micros() / 1_000_000;
    rate + u64::try_from(earned).unwrap() + 1
}

#[test]
fn floods_of_bogus_frames_and_probes_are_limited_separately_from_claims() {
    const FLOOD: u32 = 20_000;
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&NO_REFRESH).unwrap();
    let bogus = flood(
        &sender,
        100,
        (0..FLOOD).map(|number| Frame::announcement(B, address(number)).sha(MacAddr::ZERO)),
    );
    let probes = flood(
        &sender,
        1_000,
        (0..FLOOD).map(|number| Frame::probe(mac(number), address(number))),
    );
    // The first claim, and as many changes as a burst allows.
    let changes =
        (0..11).map(|number| Frame::announcement(if number % 2 == 0 { A } else { B }, ADDRESS));
    let changes: Vec<_> = changes.collect();
    sender.sender().unwrap().send_all(&changes).unwrap();

    let sent = 2 * u64::from(FLOOD) + 11;
    let balance = daemon.wait_until_processed(sent).unwrap();
    for (kind, most) in [(FrameKind::Bogus, bogus), (FrameKind::Probe, probes)] {
        let emitted = balance.outcome(kind, EmitOutcome::Emitted);
        assert!((1..=most).contains(&emitted), "{kind}: {emitted} of {most}");
        let limited = balance.outcome(kind, EmitOutcome::RateLimited);
        assert_eq!(limited + emitted, u64::from(FLOOD), "{kind}");
    }
    assert_eq!(balance.outcome(FrameKind::Claim, EmitOutcome::Emitted), 11);
}

#[test]
fn a_flood_of_random_addresses_is_limited_and_evicts_no_known_address() {
    const FLOOD: u32 = 100_000;
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let options = [&NO_REFRESH[..], &["--new-address-rate", "100"]].concat();
    let daemon = monitor.ready_daemon(&options).unwrap();
    let socket = sender.sender().unwrap();
    let claim = Frame::announcement(A, ADDRESS);
    socket.send(&claim).unwrap();
    daemon.wait_until_processed(1).unwrap();
    // A multiplication by an odd number visits every address once, in pseudo-random order.
    let random = |number: u32| address(number.wrapping_mul(0x9e37_79b1) & 0x00ff_ffff);
    let most = flood(
        &sender,
        100,
        (0..FLOOD).map(|number| Frame::announcement(B, random(number))),
    );
    socket.send(&claim).unwrap();

    let sent = u64::from(FLOOD) + 2;
    let balance = daemon.wait_until_processed(sent).unwrap();
    let emitted = balance.outcome(FrameKind::Claim, EmitOutcome::Emitted);
    assert!((2..=most + 1).contains(&emitted), "{emitted} of {most}");
    let limited = balance.outcome(FrameKind::Claim, EmitOutcome::RateLimited);
    assert_eq!(limited + emitted + 1, sent);
    let unchanged = balance.outcome(FrameKind::Claim, EmitOutcome::Unchanged);
    assert_eq!(unchanged, 1, "the address was not evicted");
}

#[test]
fn a_refresh_of_zero_emits_every_probe() {
    let lab = Lab::new().unwrap();
    let [monitor, sender] = monitor_and_sender(&lab);
    let daemon = monitor.ready_daemon(&["--refresh", "0s"]).unwrap();
    let socket = sender.sender().unwrap();
    socket
        .send_all(&vec![Frame::probe(A, ADDRESS); 2_000])
        .unwrap();
    let balance = daemon.wait_until_processed(2_000).unwrap();
    assert_eq!(
        balance.outcome(FrameKind::Probe, EmitOutcome::Emitted),
        2_000
    );
}
