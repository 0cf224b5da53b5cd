//! bpf-linker: found in the tool cache, or built there.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cache, host,
    step::{self, slow_step},
};

const VERSION: &str = "0.13.0";

/// The LLVM majors that this version can be built for.
pub const SUPPORTED_LLVM: [u32; 3] = [21, 22, 23];

/// Where the linker for an LLVM major is, or would be.
fn path(llvm: u32) -> Result<PathBuf> {
    if let Some(linker) = linker_override() {
        return Ok(linker);
    }
    Ok(root(llvm)?.join("bin/bpf-linker"))
}

/// Whether a linker found earlier still works, and is what the overrides ask for.
pub fn is_current(linker: &Path, llvm: u32) -> bool {
    let asks = ["PROBE_BPF_LINKER", "PROBE_TOOL_CACHE"]
        .iter()
        .any(|name| env::var_os(name).is_some());
    (!asks || path(llvm).is_ok_and(|asked| asked == linker)) && works(linker)
}

/// Whether there is a linker for this LLVM, or it can be built.
pub fn is_possible(llvm: u32) -> bool {
    path(llvm).is_ok_and(|linker| works(&linker))
        || (SUPPORTED_LLVM.contains(&llvm) && llvm_prefix(llvm).is_some())
}

/// Whether the linker is of the right version and runs, its libLLVM included.
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
                    // Its work is done by LLVM: optimising the rest makes it no faster, but takes
                    // three times as long to build.
                    .arg("--debug")
                    .env("CARGO_PROFILE_DEV_DEBUG", "false")
                    // Replaces one that no longer runs.
                    .args(["--quiet", "--force", "--root"])
                    .arg(root(llvm)?)
                    .env("LLVM_PREFIX", prefix)
                    // Its objects are of no use afterwards and do not belong among ours.
                    .env_remove("CARGO_TARGET_DIR"),
            )
        },
    )?;
    Ok(linker)
}

fn linker_override() -> Option<PathBuf> {
    env::var_os("PROBE_BPF_LINKER").map(PathBuf::from)
}

/// What `cargo install` takes for its root.
fn root(llvm: u32) -> Result<PathBuf> {
    Ok(cache::directory()?.join(format!("bpf-linker-{VERSION}-llvm-{llvm}")))
}

/// Where an LLVM with a shared library to link against is installed.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let set = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let asked = [format!("llvm-config-{llvm}"), "llvm-config".to_owned()]
        .into_iter()
        .filter(|config| llvm_config(config, "--version").is_some_and(|v| is_major(&v, llvm)))
        .find_map(|config| llvm_config(&config, "--prefix"))
        .map(PathBuf::from);
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    [set, Some(debian), asked]
        .into_iter()
        .flatten()
        .find(|prefix| {
            ["lib64", "lib"]
                .iter()
                .any(|directory| prefix.join(directory).join("libLLVM.so").exists())
        })
}

fn llvm_config(program: &str, question: &str) -> Option<String> {
    let answer = host::output_of(Command::new(program).arg(question))?;
    Some(answer.trim().to_owned())
}

fn is_major(version: &str, major: u32) -> bool {
    version.split('.').next() == Some(major.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_major_is_compared_whole() {
        assert!(is_major("22.1.8", 22));
        assert!(!is_major("2.2", 22));
        assert!(!is_major("22.1.8", 2));
    }
}
