//! bpf-linker: found in the tool cache, or built there.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cache, host,
    step::{self, slow_step},
};

const VERSION: &str = "0.13.0";

/// The LLVM major versions that this version can be built for.
pub const SUPPORTED_LLVM: [u32; 3] = [21, 22, 23];

/// The path of the linker for an LLVM major version, whether or not it exists.
fn path(llvm: u32) -> Result<PathBuf> {
    if let Some(linker) = linker_override() {
        return Ok(linker);
    }
    Ok(root(llvm)?.join("bin/bpf-linker"))
}

/// Whether a recorded linker still works and matches the overrides.
pub fn is_current(linker: &Path, llvm: u32) -> bool {
    let is_overridden = ["PROBE_BPF_LINKER", "PROBE_TOOL_CACHE"]
        .iter()
        .any(|name| env::var_os(name).is_some());
    (!is_overridden || path(llvm).is_ok_and(|override_path| override_path == linker))
        && works(linker)
}

/// Whether a linker for this LLVM exists or can be built.
pub fn is_possible(llvm: u32) -> bool {
    path(llvm).is_ok_and(|linker| works(&linker))
        || (SUPPORTED_LLVM.contains(&llvm) && llvm_prefix(llvm).is_some())
}

/// Whether the linker has the right version and runs with its libLLVM.
fn works(linker: &Path) -> bool {
    host::output_of(Command::new(linker).arg("--version"))
        .is_some_and(|version| version.trim().ends_with(VERSION))
}

/// Finds the linker or builds it.
pub fn ensure(llvm: u32) -> Result<PathBuf> {
    let linker = path(llvm)?;
    if works(&linker) {
        return Ok(linker);
    }
    ensure!(
        linker_override().is_none(),
        "PROBE_BPF_LINKER={} is no working bpf-linker {VERSION}: correct or unset it",
        linker.display()
    );
    let prefix = llvm_prefix(llvm)
        .with_context(|| format!("no libLLVM.so of LLVM {llvm}: set LLVM_PREFIX to where it is"))?;
    slow_step(
        &format!("build bpf-linker {VERSION} for LLVM {llvm}"),
        || {
            step::run(
                host::cargo()
                    .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
                    .args(["--no-default-features", "--features"])
                    .arg(format!("llvm-{llvm}"))
                    // LLVM does the work: optimising the rest makes it no faster, but takes three times as long to
                    // build.
                    .arg("--debug")
                    .env("CARGO_PROFILE_DEV_DEBUG", "false")
                    // Replaces one that no longer runs.
                    .args(["--quiet", "--force", "--root"])
                    .arg(root(llvm)?)
                    .env("LLVM_PREFIX", prefix)
                    // The objects are not needed afterwards and do not belong in our target directory.
                    .env_remove("CARGO_TARGET_DIR"),
            )
        },
    )?;
    Ok(linker)
}

fn linker_override() -> Option<PathBuf> {
    env::var_os("PROBE_BPF_LINKER").map(PathBuf::from)
}

/// The root directory for `cargo install`.
fn root(llvm: u32) -> Result<PathBuf> {
    Ok(cache::directory()?.join(format!("bpf-linker-{VERSION}-llvm-{llvm}")))
}

/// The prefix of an installed LLVM of this major version with a shared library.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let given = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let override_path = [format!("llvm-config-{llvm}"), "llvm-config".to_owned()]
        .into_iter()
        .filter_map(|config| host::output_of(Command::new(config).arg("--prefix")))
        .map(|prefix| PathBuf::from(prefix.trim()));
    given
        .into_iter()
        .chain([debian])
        .chain(override_path)
        .find(|prefix| has_library(prefix, llvm))
}

fn has_library(prefix: &Path, llvm: u32) -> bool {
    ["lib64", "lib"].into_iter().any(|directory| {
        // A link to the real file, whose name contains the version.
        fs::canonicalize(prefix.join(directory).join("libLLVM.so"))
            .is_ok_and(|library| library.file_name().is_some_and(|name| is_major(name, llvm)))
    })
}

/// Whether `libLLVM.so.22.1` is of the given major version.
fn is_major(library: &OsStr, llvm: u32) -> bool {
    library
        .to_str()
        .and_then(|name| name.strip_prefix("libLLVM.so."))
        .and_then(|version| version.split('.').next())
        .is_some_and(|major| major.parse() == Ok(llvm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_parsed_from_the_library_name() {
        let is_major = |name: &str, llvm| is_major(OsStr::new(name), llvm);
        assert!(is_major("libLLVM.so.22.1", 22));
        assert!(is_major("libLLVM.so.22.1-rust-1.95.0-stable", 22));
        assert!(!is_major("libLLVM.so.22.1", 2));
        assert!(!is_major("libLLVM.so.21.1", 22));
        assert!(!is_major("libLLVM-14.so.1", 14));
    }
}
