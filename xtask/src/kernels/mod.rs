//! The kernel matrix: tests that run on other kernels than this machine's, in guests under QEMU.
//!
//! Emulated in full, so neither KVM nor anything of the machine's is needed. A guest runs the very binaries
//! that were built for this machine, with the libraries that they name; only its kernel is another one.

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
use crate::{cache, step::step, tally::Tally};

/// The kernels of every run: the oldest that the programs support, and Debian's at the time of writing.
pub const MATRIX: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

/// Runs the test binaries on each kernel; their results go into the tally. Returns whether all went well.
pub fn run(versions: &[String], tests: &[PathBuf], tally: &mut Tally) -> Result<bool> {
    ensure!(
        ARCH == "x86_64",
        "the guests are x86-64 machines and run this machine's binaries, which are {ARCH}"
    );
    let mut all_well = true;
    for version in versions {
        let kernel = Kernel::find_or_fetch(version, &cache::directory()?.join("kernels"))?;
        let image = Image::new(&kernel, tests)
            .with_context(|| format!("cannot make an image for Linux {version}"))?;
        all_well &= step(&format!("Linux {version}"), || boot(&image, tests, tally))?;
    }
    Ok(all_well)
}

fn boot(image: &Image, tests: &[PathBuf], tally: &mut Tally) -> Result<bool> {
    let mut console = console::Console::default();
    let outcome = Guest::start(image)?.run(|line| {
        console.observe(line);
        tally.observe(line);
    });
    tally.settle();
    outcome?;
    let names = tests.iter().map(PathBuf::as_path).map(name_of);
    Ok(console.all_well(names.count()))
}

/// What a test binary is called: `counters` for `…/counters-0123456789abcdef`.
fn name_of(binary: &Path) -> &str {
    let stem = binary.file_name().and_then(|name| name.to_str());
    let stem = stem.unwrap_or("test");
    stem.rsplit_once('-').map_or(stem, |(name, _)| name)
}
