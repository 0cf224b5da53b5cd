//! Installs Debian packages, or prints the command if it may not.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    executions, host,
    policy::NoServices,
    programs,
    step::{self, log, slow_step, step},
};

/// Packages that unpacked programs use from the machine: the C library, which matches its kernel and its dynamic
/// loader.
const NOT_UNPACKED: [&str; 1] = ["libc6"];

/// The options of an interactive installation.
const INSTALL: [&str; 2] = ["install", "--no-install-recommends"];

/// Whether this system uses Debian packages.
pub fn exists() -> bool {
    programs::find("apt-get").is_some()
}

/// The version that would be installed, if the package lists have one.
pub fn candidate(package: &str) -> Option<String> {
    let policy = host::output_of(
        programs::command("apt-cache")
            .ok()?
            .args(["policy", package])
            .env("LC_ALL", "C"),
    )?;
    parse_candidate(&policy)
}

/// Whether a package is installed.
pub fn is_installed(package: &str) -> bool {
    programs::command("dpkg-query").is_ok_and(|mut query| {
        host::output_of(
            query
                .args(["--show", "--showformat=${db:Status-Status}", package])
                .stderr(Stdio::null()),
        )
        .is_some_and(|status| status == "installed")
    })
}

fn parse_candidate(policy: &str) -> Option<String> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
}

/// Updates the package lists, if that is allowed.
pub fn update() -> Result<()> {
    if !host::is_root() {
        return Ok(());
    }
    step("apt-get update", || run(apt_get()?.args(["-qq", "update"])))
}

/// Installs packages without starting their services; if that is not allowed, the error contains the command.
pub fn install(packages: &[String]) -> Result<()> {
    if !host::is_root() {
        bail!(
            "only root may install packages; type\n\n    {}\n",
            install_command(packages)
        );
    }
    slow_step(&format!("install {}", packages.join(" ")), || {
        let _no_services = NoServices::install()?;
        let install = || {
            run(apt_get()?
                .args(["-qq", "--yes"])
                // Debian's Rust packages exclude each other: fail rather than remove the installed one.
                .arg("--no-remove")
                .args(INSTALL)
                .args(packages))
        };
        install().or_else(|_| {
            log("that may be due to old package lists; fetching them and trying once more");
            update()?;
            install()
        })
    })
}

/// Runs apt. Programs that apt itself runs, such as maintainer scripts and hooks, are not recorded: they are
/// dependencies of Debian's packages and not of this repository.
pub fn run(command: &mut Command) -> Result<()> {
    executions::paused(|| step::run(command))?
}

/// Unpacks every package in a directory into `root`, without maintainer scripts, and removes the package file.
pub fn unpack(packages: &Path, root: &Path) -> Result<()> {
    let entries =
        fs::read_dir(packages).with_context(|| format!("cannot read {}", packages.display()))?;
    for entry in entries {
        let package = entry?.path();
        if package.extension().is_none_or(|end| end != "deb") {
            continue;
        }
        if !is_left_out(&package) {
            step::run(programs::command("dpkg")?.arg("-x").arg(&package).arg(root))?;
        }
        fs::remove_file(&package)
            .with_context(|| format!("cannot remove {}", package.display()))?;
    }
    Ok(())
}

/// Whether the file, `NAME_VERSION_ARCHITECTURE.deb`, must not be unpacked.
fn is_left_out(package: &Path) -> bool {
    package
        .file_name()
        .and_then(|file| file.to_str()?.split('_').next())
        .is_some_and(|name| NOT_UNPACKED.contains(&name))
}

/// The command that installs packages.
pub fn install_command(packages: &[String]) -> String {
    format!("sudo apt-get {} {}", INSTALL.join(" "), packages.join(" "))
}

fn apt_get() -> Result<Command> {
    let mut command = programs::command("apt-get")?;
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // A machine often installs updates right after its boot.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(["-o", "Dpkg::Use-Pty=0"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_version_is_parsed_from_apt_policy() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n";
        assert_eq!(parse_candidate(policy).as_deref(), Some("1.96.0+dfsg1-1"));
    }

    #[test]
    fn the_c_library_is_not_unpacked() {
        assert!(is_left_out(Path::new("/p/libc6_2.36-9_amd64.deb")));
        assert!(!is_left_out(Path::new("/p/libc6-dev_2.36-9_amd64.deb")));
    }

    #[test]
    fn a_package_without_a_version_is_not_available() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(parse_candidate(policy), None);
        assert_eq!(parse_candidate(""), None);
    }
}
