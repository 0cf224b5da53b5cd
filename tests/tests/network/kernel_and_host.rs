//! The programs in the kernel and the parser on the host agree on every frame, and the programs do not change it.
//! Frames go through `BPF_PROG_TEST_RUN`: no network is involved.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, bail};
use probe_common::{
    counter::{Counter, Counters, Direction},
    event::{ArpEvent, Hook},
    event_filter::{FilterSettings, RateLimit},
    parse::{ParsedFrame, parse},
    wire::{MacAddr, Operation, VlanTag, ethertype},
};
use probe_datapath::{
    EventRings, Kernel, LoadOptions,
    load_test::{TEST_RUN_INTERFACE, TestRun, min_test_frame},
};
use probe_tests::Frame;
use proptest::{
    prelude::Rng as _,
    test_runner::{RngAlgorithm, TestRng},
};

const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const ADDRESS: [u8; 4] = [192, 0, 2, 1];
const OTHER_ADDRESS: [u8; 4] = [192, 0, 2, 2];

/// The loaded programs, configured to emit every valid frame.
struct LoadedPrograms {
    kernel: Kernel,
    rings: EventRings,
    runtime: tokio::runtime::Runtime,
    /// The counters of each direction after the last comparison.
    counted: HashMap<Direction, Counters>,
    _alone: MutexGuard<'static, ()>,
}

impl LoadedPrograms {
    fn new() -> Result<Self> {
        // Loading takes memory and time; one at a time is easier on small machines.
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let unlimited = RateLimit {
            interval_ns: 0,
            tolerance_ns: u64::MAX,
        };
        let settings = FilterSettings {
            refresh_ns: 0,
            change: unlimited,
            new_address: unlimited,
            probe: unlimited,
            bogus: unlimited,
            filter: 0,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (kernel, rings) = {
            let _entered = runtime.enter();
            Kernel::load(&LoadOptions::default(), &settings)?
        };
        Ok(Self {
            kernel,
            rings,
            runtime,
            counted: HashMap::new(),
            _alone: alone,
        })
    }

    fn counters(&self, hook: Hook) -> Result<Counters> {
        let counters = self
            .kernel
            .counters()
            .read(TEST_RUN_INTERFACE, hook.direction())?;
        Ok(counters.unwrap_or_default())
    }

    fn events(&mut self) -> Vec<ArpEvent> {
        let _entered = self.runtime.enter();
        let mut events = Vec::new();
        assert!(self.rings.drain(1_000, |event| events.push(event)));
        assert_eq!(self.rings.undecodable(), 0);
        events
    }

    /// Runs one frame through one hook and compares the result with the host parser.
    fn compare(&mut self, hook: Hook, frame: &[u8]) -> Result<()> {
        let test_run = self.kernel.test_run(hook, frame, 1)?;
        assert_eq!(
            test_run.verdict,
            TestRun::pass_verdict(hook),
            "{hook} let the frame go: {frame:02x?}"
        );
        assert_eq!(test_run.frame, frame, "{hook} must not change the frame");

        let counted = self.counted.entry(hook.direction()).or_default();
        let mut expected = *counted;
        let events = self.events();
        match parse(&frame, VlanTag::NONE) {
            ParsedFrame::NotArp => assert!(events.is_empty(), "{hook}: {frame:02x?} → {events:?}"),
            ParsedFrame::Malformed(reason) => {
                expected.increment(Counter::Frames(Operation::Other));
                expected.increment(Counter::Malformed(reason));
                assert!(events.is_empty(), "{hook}: {frame:02x?} → {events:?}");
            }
            ParsedFrame::Arp(arp) => {
                expected.increment(Counter::Frames(arp.operation()));
                let kind = arp.kind();
                match (kind, arp.bogus()) {
                    (_, Some(reason)) => expected.increment(Counter::Bogus(reason)),
                    (probe_common::wire::FrameKind::Probe, None) => {
                        expected.increment(Counter::Probes);
                    }
                    _ => expected.increment(Counter::Claims),
                }
                expected.increment(Counter::Outcome(
                    kind,
                    probe_common::counter::EmitOutcome::Emitted,
                ));
                let [event] = events[..] else {
                    bail!("one event, not {events:?}")
                };
                assert_eq!(event.frame, arp, "{hook}");
                assert_eq!(event.kind(), Some(kind));
                assert_eq!(event.hook(), Some(hook));
                assert_eq!(event.ifindex, TEST_RUN_INTERFACE);
            }
        }
        let counters = self.counters(hook)?;
        assert_eq!(counters, expected, "{hook}: {frame:02x?}");
        self.counted.insert(hook.direction(), counters);
        Ok(())
    }
}

/// Valid frames, tagged frames, and frames that are invalid in one way each.
fn corpus() -> Vec<Frame> {
    let request = Frame::request(A, ADDRESS, OTHER_ADDRESS);
    let reply = Frame::reply(B, OTHER_ADDRESS, A, ADDRESS);
    let mut frames = vec![
        request.clone(),
        reply.clone(),
        Frame::announcement(A, ADDRESS),
        Frame::announcing_reply(A, ADDRESS),
        Frame::probe(A, OTHER_ADDRESS),
        // Not IP: of IP frames, the kernel only takes complete headers into a socket buffer.
        request.clone().ethertype(0x88cc),
        request.clone().htype(6),
        request.clone().ptype(0x86dd),
        request.clone().hlen(8),
        request.clone().plen(16),
        request.clone().oper(0),
        request.clone().oper(3),
        request.clone().oper(0x0201),
        request.clone().sha(MacAddr::ZERO),
        request.clone().sha(MacAddr::BROADCAST),
        request.clone().sha(MacAddr([1, 0, 0x5e, 0, 0, 1])),
        request.clone().sha(MacAddr([3, 0xbf, 192, 0, 2, 1])),
        request.clone().spa([127, 0, 0, 1]),
        request.clone().spa([224, 0, 0, 5]),
        request.clone().spa([255; 4]),
        request.clone().eth_src(B),
        reply.spa([0; 4]),
    ];
    let tagged = [
        vec![(0x8100, 100)],
        vec![(0x8100, 0xe064)],
        vec![(0x8100, 0x2000)],
        vec![(0x88a8, 100)],
        vec![(0x88a8, 100), (0x8100, 200)],
        vec![(0x8100, 100), (0x8100, 200)],
        vec![(0x88a8, 0), (0x8100, 200)],
        vec![(0x88a8, 1), (0x8100, 2), (0x8100, 3)],
    ];
    for tags in tagged {
        frames.push(
            tags.into_iter()
                .fold(request.clone(), |frame, (tpid, tci)| {
                    frame.tagged_as(tpid, tci)
                }),
        );
    }
    frames
}

#[test]
fn frames_of_every_length_have_the_same_result() -> Result<()> {
    let mut programs = LoadedPrograms::new()?;
    for frame in corpus() {
        for &hook in Hook::ALL {
            for length in min_test_frame(hook)..=64 {
                programs.compare(hook, &frame.clone().of_length(length).bytes())?;
            }
        }
    }
    Ok(())
}

#[test]
fn every_ethertype_is_parsed_alike_at_every_hook() -> Result<()> {
    let mut programs = LoadedPrograms::new()?;
    // Long enough for an IPv6 header: with its ethertype, a shorter frame never becomes a socket buffer.
    let frame = Frame::request(A, ADDRESS, OTHER_ADDRESS).of_length(64);
    for ethertype in 0..=u16::MAX {
        let bytes = frame.clone().ethertype(ethertype).bytes();
        for &hook in Hook::ALL {
            programs.compare(hook, &bytes)?;
        }
    }
    Ok(())
}

/// The ethertype behind one tag, and behind two.
#[test]
fn every_ethertype_behind_tags_is_parsed_alike_at_every_hook() -> Result<()> {
    let mut programs = LoadedPrograms::new()?;
    let frame = Frame::request(A, ADDRESS, OTHER_ADDRESS).of_length(64);
    let tagged = [
        frame.clone().tagged(100),
        frame.tagged_as(ethertype::QINQ, 300).tagged(100),
    ];
    let hooks = Hook::ALL.iter().cycle();
    for (ethertype, &hook) in (0..=u16::MAX).zip(hooks) {
        for frame in &tagged {
            programs.compare(hook, &frame.clone().ethertype(ethertype).bytes())?;
        }
    }
    // The interesting ones go through each hook.
    for ethertype in [ethertype::ARP, ethertype::VLAN, ethertype::QINQ] {
        for &hook in Hook::ALL {
            for frame in &tagged {
                programs.compare(hook, &frame.clone().ethertype(ethertype).bytes())?;
            }
        }
    }
    Ok(())
}

/// A million frames, each through one of the hooks. Reproducible: the generator always starts with the same seed.
#[test]
fn a_million_random_frames_have_the_same_result() -> Result<()> {
    /// Mostly ARP, because random ethertypes rarely are.
    const STARTS: [&[u8]; 5] = [
        &[],
        &[8, 6],
        &[8, 6, 0, 1, 8, 0, 6, 4, 0],
        &[0x81, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0],
        &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0],
    ];
    let mut programs = LoadedPrograms::new()?;
    let mut random = TestRng::deterministic_rng(RngAlgorithm::XorShift);
    let mut room = [0; 128];
    let hooks = Hook::ALL.iter().cycle();
    for (number, &hook) in (0..1_000_000).zip(hooks) {
        random.fill_bytes(&mut room);
        let start = STARTS[number % STARTS.len()];
        let rest = 3 + usize::from(room[127]) % 77;
        room[12..12 + start.len()].copy_from_slice(start);
        let frame = &room[..12 + start.len() + rest];
        // Of IP frames, the kernel only takes complete headers into a socket buffer.
        if matches!(frame[12..14], [0x08, 0] | [0x86, 0xdd]) {
            continue;
        }
        programs.compare(hook, frame)?;
    }
    Ok(())
}
