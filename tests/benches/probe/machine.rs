//! The machine on which the benchmarks run.

use std::{fs, thread};

use anyhow::{Context as _, Result};

/// Describes the machine and its load before the benchmark in one line.
pub fn shape() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| (key.trim() == name).then(|| value.trim().to_owned()))
    };
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let virtual_machine = field("flags").is_some_and(|flags| flags.contains("hypervisor"));
    let cores = thread::available_parallelism().context("cannot count CPUs")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's version")?;
    // Only the version numbers, without the builder.
    let kernel: String = kernel
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let load = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or("?");
    Ok(format!(
        "{model}, {cores} cores{}, Linux {kernel}, load average before the run {load}",
        if virtual_machine {
            " of a virtual machine"
        } else {
            ""
        }
    ))
}
