//! `probe bindings`: which address is at which MAC, as the daemon knows it.

use clap::Args;
use probe_model::BindingRecord;

use super::{
    Exit,
    daemon::DaemonArguments,
    filter::{AddressArguments, InterfaceArguments},
    output::print_status,
};

#[derive(Debug, Args)]
pub struct BindingsArguments {
    #[command(flatten)]
    daemon: DaemonArguments,

    #[command(flatten)]
    interfaces: InterfaceArguments,

    #[command(flatten)]
    addresses: AddressArguments,
}

pub fn run(arguments: &BindingsArguments) -> anyhow::Result<Exit> {
    let filter = arguments.addresses.narrow(arguments.interfaces.filter());
    let mut number = 0;
    let printer = arguments.daemon.print_list(
        &format!("/v1/bindings{}", filter.to_query()),
        |printer, record: BindingRecord| {
            number += 1;
            printer.binding(&record)
        },
    )?;
    if number == 0 && printer.is_human_output() {
        print_status("no binding fits");
    }
    Ok(Exit::Success)
}
