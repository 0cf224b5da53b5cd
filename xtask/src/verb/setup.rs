//! `cargo xtask setup`: installs everything that building, linting and testing needs.

use anyhow::Result;

use crate::{
    dashboard_tools, kube_apiserver,
    programs::{self, Use},
    python_tools,
    step::log,
    toolchain,
};

pub fn run() -> Result<()> {
    let toolchain = toolchain::ensure()?;
    toolchain::ensure_clippy(&toolchain)?;
    ensure_for_tests()?;
    log(&format!(
        "ready: {} ({}) and {} for the eBPF programs",
        toolchain.rustc.display(),
        toolchain.release,
        toolchain.linker.display()
    ));
    Ok(())
}

/// Installs what linting and testing need in addition to the toolchain.
pub fn ensure_for_tests() -> Result<()> {
    programs::ensure(&[Use::Build, Use::Demo, Use::Test, Use::Image, Use::Guest])?;
    python_tools::ensure()?;
    dashboard_tools::ensure()?;
    kube_apiserver::ensure()
}
