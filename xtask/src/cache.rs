//! Where tools are kept that cost minutes to build or fetch.

use std::path::PathBuf;

use anyhow::Result;

/// The directory: `$PROBE_TOOL_CACHE`, or a part of the user's cache.
pub fn directory() -> Result<PathBuf> {
    probe_tests::tool_cache()
}
