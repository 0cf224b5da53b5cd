//! The documented memory of the kernel side is what the kernel reports.

use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use probe_datapath::{Kernel, LoadOptions, memory};

/// The memory of all maps of this process, as the kernel reports it (`bpf_map_show_fdinfo`).
fn pinned() -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir("/proc/self/fdinfo").context("is /proc mounted?")? {
        // The descriptor of the directory itself is closed by now.
        let Ok(info) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        if field("map_type:").is_some() {
            sum += field("memlock:").context("a map without memlock")?;
        }
    }
    Ok(sum)
}

#[test]
fn the_kernel_side_uses_the_documented_memory() -> Result<()> {
    let options = LoadOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let before = pinned()?;
    let _entered = runtime.enter();
    let (_kernel, _rings) = Kernel::load(
        &options,
        &probe_common::event_filter::FilterSettings::default(),
    )?;
    let measured = pinned()? - before;
    let cpus = u32::try_from(thread::available_parallelism()?.get())?;
    let computed: u64 = memory::map_memory(&options, cpus)
        .iter()
        .map(|share| share.bytes)
        .sum();
    ensure!(
        measured.abs_diff(computed) * 20 < computed,
        "the kernel reports {measured} bytes, the computed size is {computed}"
    );
    Ok(())
}
