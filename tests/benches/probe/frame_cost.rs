//! The cost of one frame at each hook: `BPF_PROG_TEST_RUN`, compared with an empty program.

use std::time::Duration;

use anyhow::{Result, bail};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use probe_common::{
    event::Hook,
    event_filter::{FilterSettings, RateLimit},
    wire::MacAddr,
};
use probe_datapath::{EventRings, Kernel, LoadOptions};
use probe_tests::Frame;

use crate::{load, report::Section};

const ROUNDS: usize = 25;
/// Repetitions per round, for frames that stay in the kernel.
const QUIET_REPEAT: u32 = 100_000;
/// Repetitions per round, for frames that become events: the capacity of a ring of a mebibyte.
const EMITTED_REPEAT: u32 = 9_000;

const OWNER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const REQUESTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const ADDRESS: [u8; 4] = [192, 0, 2, 1];
const OTHER_ADDRESS: [u8; 4] = [192, 0, 2, 2];

const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::TcIngress];

const UNLIMITED: RateLimit = RateLimit {
    interval_ns: 0,
    tolerance_ns: u64::MAX,
};

/// A frame and its expected outcome.
struct Case {
    name: &'static str,
    frame: Vec<u8>,
    emitted: bool,
    /// The largest cost over the empty program, in ns.
    target: Option<i64>,
}

fn cases() -> Vec<Case> {
    let case = |name, frame: Frame, emitted, target| Case {
        name,
        frame: frame.of_length(Frame::MINIMUM).bytes(),
        emitted,
        target,
    };
    let reply = || Frame::reply(OWNER, ADDRESS, REQUESTER, OTHER_ADDRESS);
    let announcement = || Frame::announcement(OWNER, ADDRESS);
    let request = || Frame::request(OWNER, ADDRESS, OTHER_ADDRESS);
    vec![
        case("not ARP", announcement().ethertype(0x0800), false, Some(2)),
        case(
            "not ARP, tagged",
            announcement().ethertype(0x0800).tagged(100),
            false,
            Some(2),
        ),
        case("malformed", announcement().htype(6), false, None),
        case(
            "unchanged claim, announcement",
            announcement(),
            false,
            Some(60),
        ),
        case("unchanged claim, reply", reply(), false, Some(60)),
        case("unchanged claim, request", request(), false, Some(60)),
        case(
            "unchanged claim, tagged reply",
            reply().tagged(100),
            false,
            Some(60),
        ),
        case(
            "claim with its event, announcement",
            announcement(),
            true,
            Some(150),
        ),
        case("claim with its event, reply", reply(), true, Some(150)),
        case("claim with its event, request", request(), true, Some(150)),
    ]
}

pub fn run() -> Result<Section> {
    let mut bench = Bench::new()?;
    let cases = cases();
    // Per hook: the empty program, then each case.
    let mut times = vec![vec![Vec::new(); cases.len() + 1]; HOOKS.len()];
    for _ in 0..ROUNDS {
        for (hook, times) in HOOKS.into_iter().zip(&mut times) {
            times[0].push(bench.empty(hook, &cases[0].frame)?);
            for (case, times) in cases.iter().zip(&mut times[1..]) {
                times.push(bench.run(hook, case)?);
            }
        }
    }
    Ok(section(&cases, &times))
}

fn section(cases: &[Case], times: &[Vec<Vec<Duration>>]) -> Section {
    let mut section = Section::new(
        "Cost of a frame",
        format!(
            "`cargo xtask bench frame-cost`: `BPF_PROG_TEST_RUN`, {QUIET_REPEAT} runs a round ({EMITTED_REPEAT} where \
             each becomes an event, its ring drained between rounds), best of {ROUNDS} interleaved rounds, in ns \
             a frame.\n"
        ),
        &["frame", "XDP", "over empty", "TC", "over empty"],
    );
    let best = |hook: usize, row: usize| {
        let best = times[hook][row].iter().min().copied().unwrap_or_default();
        i64::try_from(best.as_nanos()).unwrap_or(i64::MAX)
    };
    section.row([
        "(empty program)".to_owned(),
        best(0, 0).to_string(),
        String::new(),
        best(1, 0).to_string(),
        String::new(),
    ]);
    let mut groups: Vec<(i64, i64)> = Vec::new();
    for (case, row) in cases.iter().zip(1..) {
        let over = [0, 1].map(|hook| best(hook, row) - best(hook, 0));
        section.row([
            case.name.to_owned(),
            best(0, row).to_string(),
            over[0].to_string(),
            best(1, row).to_string(),
            over[1].to_string(),
        ]);
        if let Some(target) = case.target {
            let worst = over[0].max(over[1]);
            match groups.iter_mut().find(|(limit, _)| *limit == target) {
                Some((_, most)) => *most = worst.max(*most),
                None => groups.push((target, worst)),
            }
        }
    }
    for (target, worst) in groups {
        let what = match target {
            2 => "not ARP",
            60 => "unchanged claim",
            _ => "claim with its event",
        };
        section.target(
            format!("{what}: at most {target} ns over the empty program"),
            format!("at most {worst} ns"),
            worst <= target,
        );
    }
    section
}

struct Bench {
    kernel: Kernel,
    rings: EventRings,
    empty: Ebpf,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (kernel, rings) = {
            let _entered = runtime.enter();
            Kernel::load(&LoadOptions::default(), &settings(false))?
        };
        let mut empty = load::programs()?;
        for hook in HOOKS {
            match hook {
                Hook::Xdp => load::program::<Xdp>(&mut empty, "empty_xdp")?.load()?,
                Hook::TcIngress | Hook::TcEgress => {
                    load::program::<SchedClassifier>(&mut empty, "empty_tc")?.load()?;
                }
            }
        }
        Ok(Self {
            kernel,
            rings,
            empty,
            runtime,
        })
    }

    fn empty(&mut self, hook: Hook, frame: &[u8]) -> Result<Duration> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: QUIET_REPEAT,
            ..TestRunOptions::default()
        };
        let result = match hook {
            Hook::Xdp => load::program::<Xdp>(&mut self.empty, "empty_xdp")?.test_run(options)?,
            Hook::TcIngress | Hook::TcEgress => {
                load::program::<SchedClassifier>(&mut self.empty, "empty_tc")?.test_run(options)?
            }
        };
        Ok(result.duration)
    }

    fn run(&mut self, hook: Hook, case: &Case) -> Result<Duration> {
        self.kernel.set_filter_settings(&settings(case.emitted))?;
        let repeat = if case.emitted {
            EMITTED_REPEAT
        } else {
            QUIET_REPEAT
        };
        if !case.emitted {
            // The first frame of its kind may be emitted.
            self.kernel.test_run(hook, &case.frame, 2)?;
            self.drain();
        }
        let test_run = self.kernel.test_run(hook, &case.frame, repeat)?;
        let events = self.drain();
        if events != if case.emitted { repeat } else { 0 } {
            bail!(
                "{} at {hook}: {events} events of {repeat} frames",
                case.name
            );
        }
        Ok(test_run.duration)
    }

    fn drain(&mut self) -> u32 {
        let _entered = self.runtime.enter();
        let mut events = 0;
        self.rings.drain(usize::MAX, |_| events += 1);
        events
    }
}

/// The settings with which all frames are unchanged for an hour, or all are emitted.
fn settings(emit_all: bool) -> FilterSettings {
    FilterSettings {
        refresh_ns: if emit_all { 0 } else { 3_600_000_000_000 },
        change: UNLIMITED,
        new_address: UNLIMITED,
        probe: UNLIMITED,
        bogus: UNLIMITED,
        filter: 0,
    }
}
