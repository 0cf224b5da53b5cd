//! `probe bindings`: the bindings of the daemon.

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
    let target = format!("/v1/bindings{}", filter.to_query());
    let mut bindings: Vec<BindingRecord> = arguments.daemon.fetch(&target)?;
    // The daemon sends them unordered.
    bindings.sort_by_cached_key(|binding| {
        (
            binding.interface.clone(),
            binding.vlan.to_string(),
            binding.ip,
        )
    });
    let is_empty = bindings.is_empty();
    let printer = arguments
        .daemon
        .print(bindings, |printer, record| printer.binding(&record))?;
    if is_empty && printer.is_human_output() {
        print_status("no binding matches");
    }
    Ok(Exit::Success)
}
