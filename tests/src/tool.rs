//! Runs system tools that configure the lab.

use std::{
    io::ErrorKind,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Runs `ip` with these arguments and returns its standard output.
pub fn ip<'a>(words: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
    let mut command = Command::new("ip");
    // In a separate process group: Ctrl-C must not kill the tool that removes the lab because of it.
    command.args(words).stdin(Stdio::null()).process_group(0);
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
