//! The compilers of this machine in order of preference.

use std::{
    env,
    fmt::{self, Display, Formatter},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::version::Version;
use crate::{ebpf, host};

/// A compiler, with the properties that decide whether it is suitable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub rustc: PathBuf,
    pub cargo: PathBuf,
    pub version: Version,
    pub has_cargo: bool,
    pub has_sources: bool,
}

impl Candidate {
    /// Inspects a compiler; one that cannot be run or has unexpected output is ignored.
    fn inspect(rustc: PathBuf, cargo: Option<PathBuf>) -> Option<Self> {
        let cargo = cargo.unwrap_or_else(|| rustc.with_file_name("cargo"));
        Some(Self {
            version: version(&rustc)?,
            has_sources: has_sources(&rustc),
            has_cargo: cargo.is_file(),
            rustc,
            cargo,
        })
    }
}

impl Display for Candidate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Version { release, llvm } = &self.version;
        write!(f, "{} ({release}, LLVM {llvm})", self.rustc.display())
    }
}

/// All compilers. An override excludes the others.
pub fn all() -> Result<Vec<Candidate>> {
    if let Some(rustc) = rustc_override() {
        let candidate = Candidate::inspect(rustc.clone(), cargo_override())
            .with_context(|| format!("PROBE_EBPF_RUSTC={} is no compiler", rustc.display()))?;
        return Ok(vec![candidate]);
    }
    let distribution = PathBuf::from("/usr/bin/rustc");
    Ok(rustup_compilers()
        .into_iter()
        .chain([distribution])
        .filter_map(|rustc| Candidate::inspect(rustc, cargo_override()))
        .collect())
}

/// Whether a recorded toolchain is unchanged and matches the overrides.
pub fn is_current(toolchain: &ebpf::Toolchain) -> bool {
    let matches_override =
        |path, wanted: Option<PathBuf>| wanted.is_none_or(|wanted| wanted == path);
    matches_override(toolchain.rustc.clone(), rustc_override())
        && matches_override(toolchain.cargo.clone(), cargo_override())
        && has_sources(&toolchain.rustc)
        && version(&toolchain.rustc).is_some_and(|version| {
            version.release == toolchain.release && version.llvm == toolchain.llvm
        })
}

/// The compiler in the override variable.
pub fn rustc_override() -> Option<PathBuf> {
    env::var_os("PROBE_EBPF_RUSTC").map(PathBuf::from)
}

fn cargo_override() -> Option<PathBuf> {
    env::var_os("PROBE_EBPF_CARGO").map(PathBuf::from)
}

/// The compilers of rustup's toolchains; those that are usually installed for eBPF come first.
///
/// The compilers themselves and not rustup's proxies, which would use this workspace's pinned toolchain.
fn rustup_compilers() -> Vec<PathBuf> {
    let Some(home) = host::output_of(Command::new("rustup").args(["show", "home"])) else {
        return Vec::new();
    };
    let Ok(toolchains) = fs::read_dir(Path::new(home.trim()).join("toolchains")) else {
        return Vec::new();
    };
    let mut toolchains: Vec<PathBuf> = toolchains.flatten().map(|entry| entry.path()).collect();
    toolchains.sort_by_key(|toolchain| {
        let is_nightly = toolchain
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("nightly"));
        (!is_nightly, toolchain.clone())
    });
    toolchains
        .into_iter()
        .map(|toolchain| toolchain.join("bin/rustc"))
        .collect()
}

fn version(rustc: &Path) -> Option<Version> {
    host::output_of(Command::new(rustc).arg("-vV"))?
        .parse()
        .ok()
}

/// Whether the library sources of this compiler are installed.
fn has_sources(rustc: &Path) -> bool {
    host::output_of(Command::new(rustc).args(["--print", "sysroot"])).is_some_and(|sysroot| {
        Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .is_file()
    })
}
