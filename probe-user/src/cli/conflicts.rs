//! `probe conflicts`: the open conflicts of the daemon.

use clap::Args;
use probe_model::BindingRecord;

use super::{
    Exit,
    daemon::DaemonArguments,
    filter::{AddressArguments, InterfaceArguments},
    output::print_status,
};

#[derive(Debug, Args)]
pub struct ConflictsArguments {
    #[command(flatten)]
    daemon: DaemonArguments,

    #[command(flatten)]
    interfaces: InterfaceArguments,

    #[command(flatten)]
    addresses: AddressArguments,
}

pub fn run(arguments: &ConflictsArguments) -> anyhow::Result<Exit> {
    let filter = arguments.addresses.narrow(arguments.interfaces.filter());
    let mut number = 0;
    let printer = arguments.daemon.print_list(
        &format!("/v1/conflicts{}", filter.to_query()),
        |printer, record: BindingRecord| {
            number += 1;
            printer.binding(&record)
        },
    )?;
    if number > 0 {
        return Ok(Exit::Conflict);
    }
    if printer.is_human_output() {
        print_status("no open conflict observed by this node");
    }
    Ok(Exit::Success)
}
