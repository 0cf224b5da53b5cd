//! Load generators: frames made in the kernel at the highest rate, or sent at a constant rate.

use std::{
    env, fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{Program, ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use probe_common::wire::MacAddr;
use probe_tests::{BatchSender, Frame, Host};

/// Loads the BPF programs of the benchmarks.
pub fn programs() -> Result<Ebpf> {
    let path = env::var_os("PROBE_BENCH_OBJECT").context(
        "PROBE_BENCH_OBJECT does not name the benchmarks' programs: run `cargo xtask bench`",
    )?;
    let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Ebpf::load(&object)?)
}

pub fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("there is no program {name}"))?;
    Ok(program.try_into()?)
}

/// The number of addresses with two alternating owners.
pub const PLANTED: usize = 100;

/// The address with this number.
pub fn address(number: usize) -> [u8; 4] {
    let [.., high, middle, low] = number.to_be_bytes();
    [10, high, middle, low]
}

/// Announcements of `addresses` addresses in order; every second round, another owner announces the first
/// [`PLANTED`].
pub fn announcements(addresses: usize) -> Vec<Vec<u8>> {
    let frame = |second: bool, number| {
        let [_, high, middle, low] = address(number);
        let owner = MacAddr([
            2,
            u8::from(second && number < PLANTED),
            0,
            high,
            middle,
            low,
        ]);
        Frame::announcement(owner, address(number))
            .of_length(Frame::MINIMUM)
            .bytes()
    };
    [false, true]
        .into_iter()
        .flat_map(|second| (0..addresses).map(move |number| frame(second, number)))
        .collect()
}

/// The result of a load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub frames: u64,
    pub took: Duration,
}

/// Sends `frames` repeatedly at `rate` per second, for `duration` or until `stop` is set.
pub fn steady(
    host: &Host,
    frames: &[Vec<u8>],
    rate: u64,
    duration: Duration,
    stop: &AtomicBool,
) -> Result<Sent> {
    /// Short enough for a smooth load, long enough to sleep.
    const PAUSE: Duration = Duration::from_micros(500);
    ensure!(
        rate <= 1_000_000 && duration <= Duration::from_mins(1),
        "a load out of bounds"
    );
    let sender = BatchSender::try_from(host.sender()?)?;
    let started = Instant::now();
    let (mut sent, mut position) = (0, 0);
    while started.elapsed() < duration && !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(started.elapsed().as_nanos())? * rate / 1_000_000_000;
        while sent < due {
            let most = usize::try_from(due - sent)?
                .min(BatchSender::BATCH)
                .min(frames.len() - position);
            let done = sender.send(&frames[position..position + most])?;
            position = (position + done) % frames.len();
            sent += done as u64;
            if done == 0 {
                thread::yield_now();
            }
        }
        thread::sleep(PAUSE);
    }
    Ok(Sent {
        frames: sent,
        took: started.elapsed(),
    })
}

/// A program that generates announcements in the kernel and sends them through a host's interface.
pub struct Storm {
    ebpf: Ebpf,
    words: Array<MapData, [u64; WORDS]>,
}

/// The same value as in the BPF program.
const WORDS: usize = 4;

impl Storm {
    /// Frames per call: few enough to check the clock in between.
    const CHUNK: u32 = 100_000;

    /// If `addresses` is 0, all addresses are random.
    pub fn new(host: &Host, addresses: u64, planted: u64) -> Result<Self> {
        let mut ebpf = programs()?;
        program::<Xdp>(&mut ebpf, "storm")?.load()?;
        let map = ebpf.take_map("STORM").context("there is no map STORM")?;
        let mut words = Array::try_from(map)?;
        let interface = u64::from(host.link()?.index()?);
        words.set(0, [interface, addresses, planted, 0], 0)?;
        Ok(Self { ebpf, words })
    }

    /// Runs the storm for this duration. Returns the number of frames.
    pub fn run(&mut self, host: &Host, duration: Duration) -> Result<Sent> {
        ensure!(duration <= Duration::from_mins(1), "a storm out of bounds");
        let storm = program::<Xdp>(&mut self.ebpf, "storm")?;
        let template = Frame::announcement(MacAddr::ZERO, [0; 4])
            .of_length(Frame::MINIMUM)
            .bytes();
        // Interface indexes belong to the namespace in which the program is run.
        let took = host.enter(|| {
            let started = Instant::now();
            while started.elapsed() < duration {
                storm.test_run(TestRunOptions {
                    data_in: Some(&template),
                    repeat: Self::CHUNK,
                    attrs: TestRunAttrs::new().xdp_live_frames(64),
                    ..TestRunOptions::default()
                })?;
            }
            Ok(started.elapsed())
        })?;
        let [.., frames] = self.words.get(&0, 0)?;
        Ok(Sent { frames, took })
    }
}
