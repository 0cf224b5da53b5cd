//! Prevents the start of services during package installation.
//!
//! Debian's packages start their services when they are installed, unless `policy-rc.d` exits 101: a script that
//! both `invoke-rc.d` (System V) and `deb-systemd-invoke` (systemd) run. An existing script is kept, because the
//! owner of the machine has decided. Otherwise there is one for the duration of an installation.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};

/// The path of the script.
const POLICY_PATH: &str = "/usr/sbin/policy-rc.d";

/// Identifies a script that an earlier run did not remove.
const SIGNATURE: &str = "# Made by `cargo xtask`";

/// A guard: services are not started while it exists.
pub struct NoServices {
    ours: Option<PathBuf>,
}

impl NoServices {
    /// Installs the script, unless the machine has one.
    pub fn install() -> Result<Self> {
        Self::at(Path::new(POLICY_PATH))
    }

    fn at(path: &Path) -> Result<Self> {
        if is_stale(path) {
            fs::remove_file(path)
                .with_context(|| format!("cannot remove the old {}", path.display()))?;
        }
        match write(path) {
            Ok(()) => Ok(Self {
                ours: Some(path.to_owned()),
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { ours: None }),
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.ours {
            // If the script stays, it allows everything as soon as this process has exited.
            let _ = fs::remove_file(path);
        }
    }
}

/// A script that exits 101 (denied) while this process lives, and 0 after that, so that a script left behind by a
/// killed run has no effect.
fn script() -> String {
    let process = process::id();
    format!(
        "#!/bin/sh\n\
         {SIGNATURE} (process {process}), which installs programs for tests and prevents their services from starting.\n\
         # Without that process it may be deleted.\n\
         [ -d /proc/{process} ] && exit 101\n\
         exit 0\n"
    )
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(path)?;
    file.write_all(script().as_bytes())
}

fn is_stale(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(SIGNATURE))
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    fn path(name: &str) -> PathBuf {
        env::temp_dir().join(format!("policy-rc.d.{}.{name}", process::id()))
    }

    #[test]
    fn services_are_forbidden_while_the_guard_exists() {
        let path = path("held");
        let guard = NoServices::at(&path).unwrap();
        let status = Command::new("sh").arg(&path).status();
        drop(guard);
        assert_eq!(status.unwrap().code(), Some(101));
        assert!(!path.exists());
    }

    #[test]
    fn an_existing_policy_of_the_machine_is_kept() {
        let path = path("owner");
        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        drop(NoServices::at(&path).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(text, "#!/bin/sh\nexit 0\n");
    }

    #[test]
    fn the_policy_of_a_killed_run_is_replaced_and_removed() {
        let path = path("left");
        // No process has this number: it is above the kernel's own limit (PID_MAX_LIMIT).
        let old = script().replace(&process::id().to_string(), "4194305");
        fs::write(&path, old).unwrap();
        let replaced = NoServices::at(&path).unwrap();
        assert!(replaced.ours.is_some());
        drop(replaced);
        assert!(!path.exists());
    }
}
