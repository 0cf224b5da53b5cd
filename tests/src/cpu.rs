//! CPU affinity: frames are received on the CPU that sent them.

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that the calling thread may run on.
pub fn cpus() -> anyhow::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).context("cannot read the CPU affinity")?;
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    ensure!(!cpus.is_empty(), "no CPU is allowed");
    Ok(cpus)
}

/// Pins the calling thread to one CPU.
pub fn pin_this_thread(cpu: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("cannot pin the thread to CPU {cpu}"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_pinned_thread_runs_on_its_cpu() {
        thread::spawn(|| {
            let last = cpus().unwrap().pop().unwrap();
            pin_this_thread(last).unwrap();
            assert_eq!(cpus().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }
}
