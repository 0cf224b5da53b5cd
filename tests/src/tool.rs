//! Short runs of system tools that configure the lab.

use std::{
    io::ErrorKind,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Runs `ip` with these words and returns what it printed.
pub fn ip<'a>(words: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
    let mut command = Command::new("ip");
    command.args(words).stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("`ip` is not installed: apt-get install iproute2")
        }
        result => result.with_context(|| format!("cannot run {command:?}"))?,
    };
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
