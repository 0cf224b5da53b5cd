//! What one frame costs at each hook: `BPF_PROG_TEST_RUN`, against a program that does nothing.

use std::time::Duration;

use anyhow::{Result, bail};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use probe_common::{
    event::Hook,
    event_filter::{Rate, Settings},
    wire::MacAddr,
};
use probe_datapath::{EventRings, Kernel, LoadOptions};
use probe_tests::Frame;

use crate::{load, report::Section};

const ROUNDS: usize = 25;
/// Runs a round, for frames that stay in the kernel.
const QUIET_REPEAT: u32 = 100_000;
/// Runs a round, for frames that become events: what a ring of a mebibyte holds.
const EMITTED_REPEAT: u32 = 9_000;

const OWNER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const HERE: [u8; 4] = [192, 0, 2, 1];
const THERE: [u8; 4] = [192, 0, 2, 2];

const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::TcIngress];

const UNLIMITED: Rate = Rate {
    interval_ns: 0,
    ahead_ns: u64::MAX,
};

/// A frame, and what is to come of it.
struct Case {
    name: &'static str,
    frame: Vec<u8>,
    emitted: bool,
    /// The most that it may cost over the empty program, in ns.
    aim: Option<i64>,
}

fn cases() -> Vec<Case> {
    let case = |name, frame: Frame, emitted, aim| Case {
        name,
        frame: frame.of_length(Frame::MINIMUM).bytes(),
        emitted,
        aim,
    };
    let reply = || Frame::reply(OWNER, HERE, ASKER, THERE);
    let announcement = || Frame::announcement(OWNER, HERE);
    let request = || Frame::request(OWNER, HERE, THERE);
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
        "What a frame costs",
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
        if let Some(aim) = case.aim {
            let worst = over[0].max(over[1]);
            match groups.iter_mut().find(|(limit, _)| *limit == aim) {
                Some((_, most)) => *most = worst.max(*most),
                None => groups.push((aim, worst)),
            }
        }
    }
    for (aim, worst) in groups {
        let what = match aim {
            2 => "not ARP",
            60 => "unchanged claim",
            _ => "claim with its event",
        };
        section.aim(
            format!("{what}: at most {aim} ns over the empty program"),
            format!("at most {worst} ns"),
            worst <= aim,
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
        self.kernel.set(&settings(case.emitted))?;
        let repeat = if case.emitted {
            EMITTED_REPEAT
        } else {
            QUIET_REPEAT
        };
        if !case.emitted {
            // The first of its kind may be news.
            self.kernel.test_run(hook, &case.frame, 2)?;
            self.drain();
        }
        let trial = self.kernel.test_run(hook, &case.frame, repeat)?;
        let events = self.drain();
        if events != if case.emitted { repeat } else { 0 } {
            bail!(
                "{} at {hook}: {events} events of {repeat} frames",
                case.name
            );
        }
        Ok(trial.duration)
    }

    fn drain(&mut self) -> u32 {
        let _entered = self.runtime.enter();
        let mut events = 0;
        self.rings.drain(usize::MAX, |_| events += 1);
        events
    }
}

/// Nothing is news for an hour, or everything is.
fn settings(emit_all: bool) -> Settings {
    Settings {
        refresh_ns: if emit_all { 0 } else { 3_600_000_000_000 },
        change: UNLIMITED,
        new_address: UNLIMITED,
        probe: UNLIMITED,
        bogus: UNLIMITED,
        filter: 0,
    }
}
