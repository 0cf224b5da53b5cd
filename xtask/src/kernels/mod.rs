//! The kernel matrix: tests in QEMU guests with other kernels than the machine's.
//!
//! The guests are fully emulated, so neither KVM nor devices of the machine are needed. A guest runs the binaries
//! that were built for this machine, with their libraries; only the kernel differs.

pub mod binaries;
mod console;
mod cpio;
mod debian;
mod guest;
mod image;
mod modules;
mod programs;
mod release;

use std::{
    env::consts::ARCH,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use self::{debian::Kernel, guest::Guest, image::Image};
use crate::{
    cache,
    step::{log, step},
    test_totals::TestTotals,
};

/// The kernels of every run: the oldest supported one, and Debian's current ones.
pub const MATRIX: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

/// Runs the test binaries on each kernel and adds their results to the totals. Returns whether all succeeded.
pub fn run(versions: &[String], tests: &[PathBuf], test_totals: &mut TestTotals) -> Result<bool> {
    ensure!(
        ARCH == "x86_64",
        "the guests are x86-64 machines and run this machine's binaries, which are {ARCH}"
    );
    let mut all_well = true;
    for version in versions {
        let kernel = Kernel::find_or_fetch(version, &cache::directory()?.join("kernels"))?;
        let image = Image::new(&kernel, tests)
            .with_context(|| format!("cannot make an image for Linux {version}"))?;
        all_well &= step(&format!("Linux {version}"), || {
            boot(&image, tests, test_totals)
        })?;
    }
    Ok(all_well)
}

/// How often a guest is booted whose kernel crashes before the tests. Observed once: an int3 oops in `sched_clock_cpu`
/// while Linux 6.12 booted on a busy machine.
const BOOTS: u32 = 3;

fn boot(image: &Image, tests: &[PathBuf], test_totals: &mut TestTotals) -> Result<bool> {
    let names = tests.iter().map(PathBuf::as_path).map(name_of);
    let binaries = names.count();
    for boot in 1..=BOOTS {
        let mut console = console::Console::default();
        let outcome = Guest::start(image)?.run(|line| {
            console.observe(line);
            test_totals.observe(line);
        });
        if console.has_started() || boot == BOOTS {
            test_totals.fail_pending();
            outcome?;
            return Ok(console.all_well(binaries));
        }
        log("the kernel crashed before the tests: booting again");
    }
    Ok(false)
}

/// The name of a test binary: `counters` for `…/counters-0123456789abcdef`.
fn name_of(binary: &Path) -> &str {
    let stem = binary.file_name().and_then(|name| name.to_str());
    let stem = stem.unwrap_or("test");
    stem.rsplit_once('-').map_or(stem, |(name, _)| name)
}
