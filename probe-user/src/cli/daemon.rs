//! What the verbs that ask the daemon have in common.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use probe_model::FindingOrigin;
use serde::de::DeserializeOwned;
use tokio::runtime;

use super::output::{OutputFormat, Printer, is_closed};
use crate::{client::Client, daemon::serve::DEFAULT_PATH};

/// Where the daemon is, and how its answers are written.
#[derive(Clone, Debug, Args)]
pub struct DaemonArguments {
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Human)]
    output: OutputFormat,

    /// The socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,
}

impl DaemonArguments {
    /// Asks the daemon for records, and writes each.
    ///
    /// # Errors
    ///
    /// No daemon, or one that cannot be understood; standard output that cannot be written. That its reader
    /// has seen enough is none.
    pub fn print_list<T: DeserializeOwned>(
        &self,
        target: &str,
        write: impl FnMut(&mut Printer, T) -> std::io::Result<()>,
    ) -> anyhow::Result<Printer> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime")?;
        runtime.block_on(self.fetch_records(target, write))
    }

    async fn fetch_records<T: DeserializeOwned>(
        &self,
        target: &str,
        mut write: impl FnMut(&mut Printer, T) -> std::io::Result<()>,
    ) -> anyhow::Result<Printer> {
        let mut answer = Client::new(&self.socket).get(target).await?;
        let mut printer = Printer::new(self.output, FindingOrigin::Daemon);
        while let Some(record) = answer.record().await? {
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
