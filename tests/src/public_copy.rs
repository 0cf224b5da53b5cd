//! The binary where everybody may run it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{daemon::binary, host::Host};

/// A copy of the binary in a place that everybody may enter; the build directory may be root's alone. It goes
/// when it is dropped.
#[derive(Debug)]
pub struct PublicCopy {
    directory: PathBuf,
    binary: PathBuf,
}

impl PublicCopy {
    /// Makes one; there is room for one for each host.
    pub fn new(host: &Host) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(host.namespace());
        fs::create_dir(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let copy = Self {
            binary: directory.join("probe"),
            directory,
        };
        fs::copy(binary()?, &copy.binary).context("cannot copy the binary")?;
        for path in [&copy.directory, &copy.binary] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(copy)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.binary
    }
}

impl Drop for PublicCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
