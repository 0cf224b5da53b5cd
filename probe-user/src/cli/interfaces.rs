//! `probe interfaces`: the watched interfaces of the daemon and their modes.

use clap::Args;

use super::{Exit, daemon::DaemonArguments, filter::InterfaceArguments, output::print_status};
use crate::daemon::serve::{InterfaceRecord, LinkState};

#[derive(Debug, Args)]
pub struct InterfacesArguments {
    #[command(flatten)]
    daemon: DaemonArguments,

    #[command(flatten)]
    interfaces: InterfaceArguments,
}

pub fn run(arguments: &InterfacesArguments) -> anyhow::Result<Exit> {
    let filter = arguments.interfaces.filter();
    let mut number = 0;
    let printer = arguments.daemon.print_list(
        &format!("/v1/interfaces{}", filter.to_query()),
        |printer, record: InterfaceRecord| {
            number += 1;
            printer.line(&record, &describe(&record))
        },
    )?;
    if number == 0 && printer.is_human_output() {
        print_status("no interface matches");
    }
    Ok(Exit::Success)
}

/// An interface in one line.
pub fn describe(record: &InterfaceRecord) -> String {
    let name = &record.interface;
    let Some(mode) = &record.mode else {
        let why = record.error.as_deref().unwrap_or("no reason was given");
        return format!("{name:<15}  NOT WATCHED: {why}");
    };
    let link = match record.link {
        LinkState::Up => "",
        LinkState::Down => "LINK DOWN: no frames arrive; ",
    };
    let vlans = match record.vlan_visible {
        Some(false) => "; VLANs cannot be distinguished",
        _ => "",
    };
    format!(
        "{name:<15}  {mode:<7}  {link}{} received, {} sent{vlans}",
        record.received, record.sent
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_a_line() {
        let mut record = InterfaceRecord {
            interface: "eth0".to_owned(),
            index: 2,
            mode: Some("tc".to_owned()),
            vlan_visible: Some(true),
            link: LinkState::Up,
            error: None,
            received: 12,
            sent: 3,
        };
        assert_eq!(
            describe(&record),
            "eth0             tc       12 received, 3 sent"
        );
        record.link = LinkState::Down;
        assert_eq!(
            describe(&record),
            "eth0             tc       LINK DOWN: no frames arrive; 12 received, 3 sent"
        );
        record.vlan_visible = Some(false);
        assert!(describe(&record).ends_with("VLANs cannot be distinguished"));
        record.mode = None;
        record.error = Some("no permission".to_owned());
        assert_eq!(
            describe(&record),
            "eth0             NOT WATCHED: no permission"
        );
    }
}
