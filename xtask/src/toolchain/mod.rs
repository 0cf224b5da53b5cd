//! Finds or installs a toolchain for the kernel side, and records its location.
//!
//! The parts must match: a compiler, the library sources of the same compiler (`core` is built for the BPF target),
//! and a bpf-linker for its LLVM.

mod candidate;
pub mod choice;
pub mod linker;
mod version;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use self::{
    candidate::Candidate,
    choice::{Rejected, choose, distribution_packages},
};
use crate::{
    apt,
    ebpf::{self, Toolchain},
    host,
    programs::CLIPPY_PACKAGE,
    step::log,
};

/// The recorded toolchain, or a new one.
pub fn ensure() -> Result<Toolchain> {
    if let Some(toolchain) = recorded() {
        return Ok(toolchain);
    }
    log("looking for a compiler for the eBPF programs");
    let candidate = find_or_install()?;
    log(&format!("using {candidate}"));
    let llvm = candidate.version.llvm;
    let toolchain = Toolchain {
        linker: linker::ensure(llvm)?,
        rustc: candidate.rustc,
        cargo: candidate.cargo,
        release: candidate.version.release,
        llvm,
    };
    let file = host::workspace().join(ebpf::FILE);
    fs::write(&file, toolchain.to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(toolchain)
}

/// The toolchain of the last setup, unless it has changed.
fn recorded() -> Option<Toolchain> {
    let toolchain = Toolchain::read(host::workspace()).ok()?;
    let is_current =
        candidate::is_current(&toolchain) && linker::is_current(&toolchain.linker, toolchain.llvm);
    is_current.then_some(toolchain)
}

fn find_or_install() -> Result<Candidate> {
    let mut installed = Vec::new();
    loop {
        let rejected = match choose(candidate::all()?, linker::is_possible) {
            Ok(candidate) => return Ok(candidate),
            Err(rejected) => rejected,
        };
        let packages = debian_remedy(&rejected)?.filter(|packages| *packages != installed);
        let Some(packages) = packages else {
            bail!(next_step(&rejected));
        };
        apt::install(&packages)?;
        installed = packages;
    }
}

/// The packages to install on Debian, whose package lists may be missing or old.
fn debian_remedy(rejected: &Rejected) -> Result<Option<Vec<String>>> {
    if !apt::exists() {
        return Ok(None);
    }
    let remedy = || {
        let compiler_is_given = candidate::rustc_override().is_some();
        choice::remedy(rejected, compiler_is_given, apt::candidate)
    };
    if let Some(packages) = remedy() {
        return Ok(Some(packages));
    }
    apt::update()?;
    Ok(remedy())
}

fn next_step(rejected: &Rejected) -> String {
    format!(
        "no compiler here can build the eBPF programs:\n\
         {rejected}\n\
         \n\
         On Debian 12 with its security updates, type\n\
         \n    {}\n\
         \n\
         Elsewhere, type\n\
         \n    rustup toolchain install nightly --component rust-src --component clippy\n\
         \n\
         and install the LLVM development package (libLLVM.so) of the major version that \
         `rustc +nightly -vV` names,\n\
         or set PROBE_EBPF_RUSTC to a rustc that has both, and LLVM_PREFIX to where that LLVM is. \
         Then try again.",
        apt::install_command(&distribution_packages())
    )
}

/// The lint driver of the toolchain's compiler.
pub fn clippy(toolchain: &Toolchain) -> PathBuf {
    toolchain.rustc.with_file_name("cargo-clippy")
}

/// Ensures that the kernel side can be linted.
pub fn ensure_clippy(toolchain: &Toolchain) -> Result<()> {
    if clippy(toolchain).is_file() {
        return Ok(());
    }
    if apt::exists() && toolchain.rustc.starts_with(Path::new("/usr")) {
        return apt::install(&[CLIPPY_PACKAGE.to_owned()]);
    }
    bail!(
        "{} has no clippy beside it: with rustup, `rustup component add clippy --toolchain NAME`",
        toolchain.rustc.display()
    )
}
