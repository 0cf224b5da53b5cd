//! `cargo xtask setup`: everything that building, linting and testing needs.

use anyhow::Result;

use crate::{kube_apiserver, manifest_tools, packages, step::say, toolchain};

pub fn run() -> Result<()> {
    let toolchain = toolchain::ensure()?;
    toolchain::ensure_clippy(&toolchain)?;
    packages::ensure_for_tests()?;
    manifest_tools::ensure()?;
    kube_apiserver::ensure()?;
    say(&format!(
        "ready: {} ({}) and {} for the eBPF programs",
        toolchain.rustc.display(),
        toolchain.release,
        toolchain.linker.display()
    ));
    Ok(())
}
