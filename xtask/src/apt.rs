//! Installs Debian packages, or says what to type where it may not.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{
    host,
    policy::NoServices,
    step::{self, say, slow_step, step},
};

/// Options that a person would type too.
const INSTALL: [&str; 2] = ["install", "--no-install-recommends"];

/// Whether this system has packages of Debian's kind.
pub fn exists() -> bool {
    host::program("apt-get").is_some()
}

/// The version that would be installed, when the package lists know one.
pub fn candidate(package: &str) -> Option<String> {
    let policy = host::output_of(
        Command::new("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C"),
    )?;
    parse_candidate(&policy)
}

fn parse_candidate(policy: &str) -> Option<String> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
}

/// Fetches the package lists, where that is allowed.
pub fn update() -> Result<()> {
    if !host::is_root() {
        return Ok(());
    }
    step("apt-get update", || {
        step::run(apt_get().args(["-qq", "update"]))
    })
}

/// Installs packages, and starts none of what is in them; where that is not allowed, the error says what to
/// type.
pub fn install(packages: &[String]) -> Result<()> {
    if !host::is_root() {
        bail!(
            "only root may install packages; type\n\n    {}\n",
            what_to_type(packages)
        );
    }
    slow_step(&format!("install {}", packages.join(" ")), || {
        let _no_services = NoServices::decree()?;
        let install = || {
            step::run(
                apt_get()
                    .args(["-qq", "--yes"])
                    // Debian's Rust packages exclude each other: rather fail than take away the
                    // one that somebody works with.
                    .arg("--no-remove")
                    .args(INSTALL)
                    .args(packages),
            )
        };
        install().or_else(|_| {
            say("that may be due to old package lists; fetching them and trying once more");
            update()?;
            install()
        })
    })
}

/// Downloads packages of this machine's own release into a directory, and installs none.
pub fn download(packages: &[&str], into: &Path) -> Result<()> {
    let download = || {
        step::run(
            apt_get()
                // apt's own user cannot write where the files of this one are.
                .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
                .args(packages)
                .current_dir(into),
        )
    };
    download().or_else(|_| {
        say("that may be due to old package lists; fetching them and trying once more");
        update()?;
        download()
    })
}

/// The command that installs packages.
pub fn what_to_type(packages: &[String]) -> String {
    format!("sudo apt-get {} {}", INSTALL.join(" "), packages.join(" "))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // A machine that was just switched on is often installing updates.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(["-o", "Dpkg::Use-Pty=0"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_from_the_policy() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n";
        assert_eq!(parse_candidate(policy).as_deref(), Some("1.96.0+dfsg1-1"));
    }

    #[test]
    fn a_package_without_a_version_is_not_available() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(parse_candidate(policy), None);
        assert_eq!(parse_candidate(""), None);
    }
}
