//! Installing a program must not start it.
//!
//! Debian's packages start their services when they are installed, unless `policy-rc.d` says no: a script that
//! both `invoke-rc.d` (System V) and `deb-systemd-invoke` (systemd) ask. A machine that has one keeps it: its
//! owner has decided. Elsewhere there is one for as long as an installation takes.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};

/// Where Debian's tools look for it.
const PLACE: &str = "/usr/sbin/policy-rc.d";

/// How one that an earlier run had no time to remove is recognised.
const MARK: &str = "# Made by `cargo xtask`";

/// Packages start nothing as long as this is held.
pub struct NoServices {
    ours: Option<PathBuf>,
}

impl NoServices {
    /// Forbids it, where nobody else has said anything about it.
    pub fn decree() -> Result<Self> {
        Self::at(Path::new(PLACE))
    }

    fn at(place: &Path) -> Result<Self> {
        if is_left_behind(place) {
            fs::remove_file(place)
                .with_context(|| format!("cannot remove the old {}", place.display()))?;
        }
        match write(place) {
            Ok(()) => Ok(Self {
                ours: Some(place.to_owned()),
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { ours: None }),
            Err(error) => Err(error).with_context(|| format!("cannot write {}", place.display())),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(place) = &self.ours {
            // If it stays, it allows everything as soon as this process is gone.
            let _ = fs::remove_file(place);
        }
    }
}

/// Says no (101) while this process lives, and yes (0) after that, so that one that is left behind by a
/// killed run stops nothing.
fn script() -> String {
    let process = process::id();
    format!(
        "#!/bin/sh\n\
         {MARK} (process {process}), which installs programs for its tests and wants none started.\n\
         # Without that process it may be deleted.\n\
         [ -d /proc/{process} ] && exit 101\n\
         exit 0\n"
    )
}

fn write(place: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(place)?;
    file.write_all(script().as_bytes())
}

fn is_left_behind(place: &Path) -> bool {
    fs::read_to_string(place).is_ok_and(|text| text.contains(MARK))
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    fn place(name: &str) -> PathBuf {
        env::temp_dir().join(format!("policy-rc.d.{}.{name}", process::id()))
    }

    #[test]
    fn services_are_forbidden_while_it_is_held() {
        let place = place("held");
        let decree = NoServices::at(&place).unwrap();
        let verdict = Command::new("sh").arg(&place).status();
        drop(decree);
        assert_eq!(verdict.unwrap().code(), Some(101));
        assert!(!place.exists());
    }

    #[test]
    fn what_the_machines_owner_says_stays() {
        let place = place("owner");
        fs::write(&place, "#!/bin/sh\nexit 0\n").unwrap();
        drop(NoServices::at(&place).unwrap());
        let text = fs::read_to_string(&place).unwrap();
        fs::remove_file(&place).unwrap();
        assert_eq!(text, "#!/bin/sh\nexit 0\n");
    }

    #[test]
    fn one_that_a_killed_run_left_behind_is_replaced_and_goes() {
        let place = place("left");
        // No process has this number: it is above the kernel's own limit (PID_MAX_LIMIT).
        let old = script().replace(&process::id().to_string(), "4194305");
        fs::write(&place, old).unwrap();
        let replaced = NoServices::at(&place).unwrap();
        assert!(replaced.ours.is_some());
        drop(replaced);
        assert!(!place.exists());
    }
}
