//! CPU time of processes and of the machine.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context as _, Result, bail};

/// Clock ticks of `/proc/stat` per second: `USER_HZ` of every supported architecture.
const USER_HZ: u64 = 100;

/// The CPU time of all threads of a process so far. It includes kernel time and softirqs that run in the context of
/// the process (on kernels without IRQ time accounting).
pub fn of_process(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        let path = task?.path().join("schedstat");
        // A thread may exit after it was listed.
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

/// The CPU time of the whole machine so far (proc(5), `/proc/stat`).
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

/// The peak memory of a process (proc(5), `VmHWM`), in MiB.
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
