//! On which processor a test does its work: what a host sends is received on the processor that sent it.

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors that the calling thread may run on.
pub fn cpus() -> anyhow::Result<Vec<usize>> {
    let allowed =
        sched_getaffinity(None).context("cannot tell on which processors this may run")?;
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    ensure!(!cpus.is_empty(), "no processor to run on");
    Ok(cpus)
}

/// Keeps the calling thread on one processor from now on.
pub fn pin_this_thread(cpu: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("cannot run on processor {cpu}"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_pinned_thread_stays_where_it_was_put() {
        thread::spawn(|| {
            let last = cpus().unwrap().pop().unwrap();
            pin_this_thread(last).unwrap();
            assert_eq!(cpus().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }
}
