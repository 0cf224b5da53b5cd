//! The binary where everybody may run it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

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
        install(&copy.binary)?;
        fs::set_permissions(&copy.directory, fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.binary
    }
}

/// Puts a copy of the binary there, for everybody to run. Another process writes it: a descriptor of this one would
/// go on to whatever another thread starts just then, and what is open for writing cannot be run (`ETXTBSY`).
pub fn install(copy: &Path) -> anyhow::Result<()> {
    let status = Command::new("install")
        .args(["-m", "755"])
        .args([binary()?.as_path(), copy])
        .status()
        .context("cannot run install")?;
    ensure!(
        status.success(),
        "cannot copy the binary to {}",
        copy.display()
    );
    Ok(())
}

impl Drop for PublicCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
