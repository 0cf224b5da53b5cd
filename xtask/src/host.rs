//! The machine, the workspace and the current cargo.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{ebpf, programs};

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The target directory of cargo.
pub fn target_dir() -> PathBuf {
    ebpf::cargo_target_dir(workspace())
}

/// The binary under test: `$PROBE_BIN`, or the output of `cargo xtask build`.
pub fn probe() -> PathBuf {
    env::var_os("PROBE_BIN").map_or_else(|| target_dir().join("release/probe"), PathBuf::from)
}

/// The cargo that runs this task, for user space, in the workspace root.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The commit that is checked out, if it is known.
pub fn revision() -> String {
    git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

/// The time of the commit in seconds since 1970, which is the timestamp of all build results. `SOURCE_DATE_EPOCH`
/// overrides it.
pub fn commit_time() -> u64 {
    env::var("SOURCE_DATE_EPOCH")
        .ok()
        .or_else(|| git(&["log", "-1", "--format=%ct"]))
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

fn git(words: &[&str]) -> Option<String> {
    let output = output_of(
        programs::command("git")
            .ok()?
            .args(words)
            .current_dir(workspace()),
    )?;
    Some(output.trim().to_owned())
}

/// Whether the process may install packages and create network namespaces.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Replaces a directory, if it exists, by a complete one.
pub fn replace_directory(new: &Path, old: &Path) -> Result<()> {
    if old.exists() {
        fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    fs::rename(new, old).with_context(|| format!("cannot make {}", old.display()))
}

/// The standard output of a command that succeeds.
pub fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).ok())?
}
