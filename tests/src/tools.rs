//! Tools that no package of this machine's Debian brings: `cargo xtask setup` puts them into a cache.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::daemon::target_directory;

/// What is installed for Python.
pub const PYTHON_REQUIREMENTS: &str = include_str!("../tools/requirements.txt");

/// Where tools are kept that cost minutes to build or fetch: `$PROBE_TOOL_CACHE`, or a part of the user's cache.
/// Outside of the workspace, so that a clean clone does not pay for them again.
pub fn tool_cache() -> anyhow::Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    variable("PROBE_TOOL_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("arp-monitor")))
        .or_else(|| Some(variable("HOME")?.join(".cache/arp-monitor")))
        .context("no place to keep tools in: set PROBE_TOOL_CACHE to a directory")
}

/// The environment of Python's tools, or where it belongs.
pub fn python_environment() -> anyhow::Result<PathBuf> {
    Ok(tool_cache()?.join("python"))
}

/// The kubectl of the cache, or where it belongs.
pub fn cached_kubectl() -> anyhow::Result<PathBuf> {
    Ok(tool_cache()?.join("kubectl/usr/bin/kubectl"))
}

/// Where `cargo xtask image` leaves the image: a directory in OCI's layout, with one image in it.
pub fn image_layout() -> anyhow::Result<PathBuf> {
    Ok(target_directory()?.join("image/oci"))
}

/// The Python that has what the manifests are judged and rendered with.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    existing(&python_environment()?.join("bin/python"))
}

/// The kubectl of the cache, or else the machine's.
pub(crate) fn kubectl() -> anyhow::Result<PathBuf> {
    // Without one in the cache, setup found the machine's good enough.
    Ok(existing(&cached_kubectl()?).unwrap_or_else(|_| "kubectl".into()))
}

fn existing(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        path.is_file(),
        "there is no {}: run `cargo xtask setup`",
        path.display()
    );
    Ok(path.to_owned())
}
