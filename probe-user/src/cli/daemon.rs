//! Common parts of the commands that read from the daemon.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use probe_model::FindingOrigin;
use serde::de::DeserializeOwned;
use tokio::runtime;

use super::output::{OutputFormat, Printer, is_closed};
use crate::{client::Client, daemon::serve::DEFAULT_PATH};

/// The socket of the daemon, and the output format.
#[derive(Clone, Debug, Args)]
pub struct DaemonArguments {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Human)]
    output: OutputFormat,

    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,
}

impl DaemonArguments {
    /// Requests records from the daemon, and writes each.
    ///
    /// # Errors
    ///
    /// If there is no daemon or it does not reply, or standard output cannot be written. A closed reader is no error.
    pub fn print_list<T: DeserializeOwned>(
        &self,
        target: &str,
        write: impl FnMut(&mut Printer, T) -> std::io::Result<()>,
    ) -> anyhow::Result<Printer> {
        self.print(self.fetch(target)?, write)
    }

    /// The records of the daemon: all of them are read before the first is written, so that a pager that waits for its
    /// user does not keep the daemon waiting.
    pub fn fetch<T: DeserializeOwned>(&self, target: &str) -> anyhow::Result<Vec<T>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime")?;
        Ok(runtime.block_on(Client::new(&self.socket).list(target))?)
    }

    /// Posts a request to the daemon, and returns the resulting records.
    pub fn post<T: DeserializeOwned>(&self, target: &str) -> anyhow::Result<Vec<T>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime")?;
        Ok(runtime.block_on(Client::new(&self.socket).post_list(target))?)
    }

    /// Writes records.
    pub fn print<T>(
        &self,
        records: Vec<T>,
        mut write: impl FnMut(&mut Printer, T) -> std::io::Result<()>,
    ) -> anyhow::Result<Printer> {
        let mut printer = Printer::new(self.output, FindingOrigin::Daemon);
        for record in records {
            match write(&mut printer, record) {
                Ok(()) => {}
                Err(error) if is_closed(&error) => return Ok(printer),
                Err(error) => return Err(error).context("cannot write to standard output"),
            }
        }
        match printer.flush() {
            Err(error) if !is_closed(&error) => {
                Err(error).context("cannot write to standard output")
            }
            _ => Ok(printer),
        }
    }
}
