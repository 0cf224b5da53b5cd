//! Who used how much of the CPUs.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context as _, Result, bail};

/// Ticks of `/proc/stat` in a second: `USER_HZ` of every architecture that this runs on.
const USER_HZ: u64 = 100;

/// CPU time of a process so far, of all its threads. What the kernel does in its name is included, and so
/// are softirqs that run on its time (kernels without IRQ time accounting).
pub fn of_process(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        let path = task?.path().join("schedstat");
        // A thread may end between being listed and being read.
        if let Ok(text) = fs::read_to_string(path) {
            total += on_cpu(&text)?;
        }
    }
    Ok(total)
}

fn on_cpu(schedstat: &str) -> Result<Duration> {
    let nanos = schedstat
        .split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .with_context(|| format!("unexpected schedstat {schedstat:?}"))?;
    Ok(Duration::from_nanos(nanos))
}

/// What the whole machine did so far (proc(5), `/proc/stat`).
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub busy: Duration,
    pub softirq: Duration,
}

impl Machine {
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .map_while(|field| field.parse().ok())
            .collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
            bail!("unexpected /proc/stat");
        };
        let time = |ticks: u64| Duration::from_millis(ticks * 1000 / USER_HZ);
        Ok(Self {
            busy: time(user + nice + system + irq + softirq),
            softirq: time(softirq),
        })
    }
}

impl Sub for Machine {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            softirq: self.softirq.saturating_sub(earlier.softirq),
        }
    }
}

/// The most memory that a process ever had (proc(5), `VmHWM`), in MiB.
pub fn peak_memory(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kibibytes: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .and_then(|value| value.trim().parse().ok())
        .with_context(|| format!("{path} has no VmHWM"))?;
    Ok(kibibytes / 1024.0)
}
