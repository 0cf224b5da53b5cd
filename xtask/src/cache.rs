//! The cache of tools that take minutes to build or download.

use std::path::PathBuf;

use anyhow::Result;

/// The tool cache: `$PROBE_TOOL_CACHE`, or a directory in the user's cache.
pub fn directory() -> Result<PathBuf> {
    probe_tests::tool_cache()
}
