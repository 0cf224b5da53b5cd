//! Prometheus and what goes with it, for the tests of rules, alerts and the dashboard.
//!
//! Unpacked into the tool cache, not installed: the packages bring services that a machine on which something is
//! tested has no use for.

use std::{
    fs,
    path::Path,
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail, ensure};
use probe_tests::{DASHBOARD, PROMETHEUS};

use crate::{
    apt, cache, host,
    step::{self, slow_step},
};

/// Command, Debian package.
const PROGRAMS: [(&str, &str); 3] = [
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
];

/// Where the versions of what checks the dashboard are pinned.
const LOCK: [&str; 2] = ["package.json", "package-lock.json"];

/// Fetches what is missing; where that is not possible, the error says what to do.
pub fn ensure() -> Result<()> {
    prometheus()?;
    dashboard()
}

fn prometheus() -> Result<()> {
    let mut packages: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| probe_tests::prometheus_program(program).is_err())
        .map(|&(_, package)| package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    if !apt::exists() {
        bail!(
            "the tests cannot do without {}: install them with this system's package manager and try again",
            packages.join(", ")
        );
    }
    let directory = cache::directory()?.join(PROMETHEUS);
    slow_step(&format!("unpack {}", packages.join(" ")), || {
        let unfinished = unfinished(&directory)?;
        apt::download(&packages, &unfinished)?;
        for entry in fs::read_dir(&unfinished)? {
            let package = entry?.path();
            if package.extension().is_some_and(|end| end == "deb") {
                let unpack = ["-x".as_ref(), package.as_path(), unfinished.as_path()];
                step::run(Command::new("dpkg").args(unpack))?;
                fs::remove_file(&package)?;
            }
        }
        finish(&unfinished, &directory)
    })
}

fn dashboard() -> Result<()> {
    let directory = cache::directory()?.join(DASHBOARD);
    let pinned = host::workspace().join("tests/dashboard");
    if LOCK
        .iter()
        .all(|file| is_same(&pinned.join(file), &directory.join(file)))
    {
        return Ok(());
    }
    ensure!(
        host::program("npm").is_some(),
        "the dashboard cannot be checked without npm"
    );
    slow_step("npm ci", || {
        let unfinished = unfinished(&directory)?;
        for file in LOCK {
            fs::copy(pinned.join(file), unfinished.join(file))
                .with_context(|| format!("cannot copy {file}"))?;
        }
        step::run(
            Command::new("npm")
                .args([
                    "ci",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                    "--loglevel=error",
                ])
                .current_dir(&unfinished),
        )?;
        finish(&unfinished, &directory)
    })
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

/// Complete or not there at all, also when this is interrupted.
fn unfinished(directory: &Path) -> Result<std::path::PathBuf> {
    let unfinished = directory.with_extension(process::id().to_string());
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    Ok(unfinished)
}

fn finish(unfinished: &Path, directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::rename(unfinished, directory)
        .with_context(|| format!("cannot make {}", directory.display()))
}
