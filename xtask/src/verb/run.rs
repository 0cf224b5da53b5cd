//! `cargo xtask run`: builds probe and executes it.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{host, verb::build};

pub fn run(arguments: &[OsString]) -> Result<()> {
    build::run()?;
    let probe = host::target_dir().join("release/probe");
    // Replacing this process leaves signals and the exit status to probe.
    let error = Command::new(&probe).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", probe.display()))
}
