//! A copy of the binary that every user may execute.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{daemon::binary, host::Host};

/// A copy of the binary in a directory that every user can enter; the build directory may belong to root. It is
/// removed on drop.
#[derive(Debug)]
pub struct PublicCopy {
    directory: PathBuf,
    binary: PathBuf,
}

impl PublicCopy {
    /// Creates a copy; there can be one for each host.
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

    /// The path of the copy.
    pub fn path(&self) -> &Path {
        &self.binary
    }
}

/// Copies the binary to a path and makes it executable for every user. A separate process writes the file: another
/// thread could inherit a descriptor of this process, and a file that is open for writing cannot be executed
/// (`ETXTBSY`).
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
