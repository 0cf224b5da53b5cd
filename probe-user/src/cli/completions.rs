//! `probe completions` and `probe man`: shell completions and man pages, from the same definitions as `--help`.

use std::{fs, io, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

use super::Exit;

#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArguments {
    /// Directory for probe.1, probe-watch.1 and so on
    directory: PathBuf,
}

pub fn completions(mut command: Command, arguments: &CompletionsArguments) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "probe", &mut script);
    match io::Write::write_all(&mut io::stdout().lock(), &script) {
        Err(error) if !super::output::is_closed(&error) => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(Exit::Success),
    }
}

pub fn man(command: Command, arguments: &ManArguments) -> anyhow::Result<Exit> {
    let directory = &arguments.directory;
    let failed = || format!("cannot write man pages to {}", directory.display());
    fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(command, directory).with_context(failed)?;
    Ok(Exit::Success)
}
