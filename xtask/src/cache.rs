//! Where tools are kept that cost minutes to build or fetch.
//!
//! Outside of the workspace, so that a clean clone does not pay for them again.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result};

/// The directory: `$PROBE_TOOL_CACHE`, or a part of the user's cache.
pub fn directory() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    variable("PROBE_TOOL_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("arp-monitor")))
        .or_else(|| Some(variable("HOME")?.join(".cache/arp-monitor")))
        .context("no place to keep tools in: set PROBE_TOOL_CACHE to a directory")
}
