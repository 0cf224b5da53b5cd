//! `probe release-xdp`: frees the XDP slot of the watched interfaces for another program.

use clap::Args;

use super::{Exit, daemon::DaemonArguments, interfaces::describe};
use crate::daemon::serve::InterfaceRecord;

#[derive(Debug, Args)]
pub struct ReleaseXdpArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
}

pub fn run(arguments: &ReleaseXdpArguments) -> anyhow::Result<Exit> {
    let interfaces: Vec<InterfaceRecord> = arguments.daemon.post("/v1/release-xdp")?;
    arguments.daemon.print(interfaces, |printer, record| {
        printer.line(&record, &describe(&record))
    })?;
    Ok(Exit::Success)
}
