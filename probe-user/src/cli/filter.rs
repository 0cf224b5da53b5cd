//! The filter flags, with the same meaning in all commands.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use ipnet::IpNet;
use probe_common::wire::Vlan;
use probe_datapath::interfaces::NamePattern;
use probe_model::{FindingKind, Severity};

use crate::filter::{FilterError, MacPrefix, RecordFilter, ServicePattern, network};

/// Selects by address, MAC, VLAN and service.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Filters")]
pub struct AddressArguments {
    /// Only these addresses or networks; repeatable, or separated by commas
    #[arg(long, value_name = "IP|CIDR", value_delimiter = ',', value_parser = parse_network)]
    ip: Vec<IpNet>,

    /// Only these MACs or MAC prefixes (00:00:5e); repeatable, or separated by commas
    #[arg(long, value_name = "MAC", value_delimiter = ',')]
    mac: Vec<MacPrefix>,

    /// Only these VLANs: 0 for untagged, 100, 100.200; repeatable, or separated by commas
    #[arg(long, value_name = "VLAN", value_delimiter = ',')]
    vlan: Vec<Vlan>,

    /// Only addresses of these services: NAMESPACE/NAME, or NAMESPACE/ for a whole namespace; repeatable, or separated
    /// by commas
    #[arg(long, value_name = "NS/NAME", value_delimiter = ',')]
    service: Vec<ServicePattern>,
}

/// Selects by kind and severity.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Filters")]
pub struct FindingArguments {
    /// Only findings of these kinds; repeatable, or separated by commas
    #[arg(
        long, value_name = "KIND", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(FindingKind::LABELS)
            .map(|word| FindingKind::from_label(&word).unwrap_or(FindingKind::Conflict)),
    )]
    finding: Vec<FindingKind>,

    /// Only findings of this severity or higher
    #[arg(
        long, value_name = "SEVERITY",
        value_parser = PossibleValuesParser::new(Severity::LABELS)
            .map(|word| Severity::from_label(&word).unwrap_or(Severity::Info)),
    )]
    severity: Option<Severity>,
}

/// Selects by interface, for verbs where `--interface` has no other meaning.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Filters")]
pub struct InterfaceArguments {
    /// Only these interfaces, by name or pattern (eth*); repeatable
    #[arg(short, long = "interface", value_name = "IFACE")]
    interfaces: Vec<NamePattern>,

    /// Exclude these interfaces, by name or pattern; repeatable
    #[arg(short = 'x', long = "exclude", value_name = "IFACE")]
    excluded: Vec<NamePattern>,
}

impl InterfaceArguments {
    /// The filter of these flags.
    pub fn filter(&self) -> RecordFilter {
        RecordFilter {
            interfaces: self.interfaces.clone(),
            excluded: self.excluded.clone(),
            ..RecordFilter::default()
        }
    }
}

impl AddressArguments {
    /// Restricts a filter by these flags.
    pub fn narrow(&self, filter: RecordFilter) -> RecordFilter {
        RecordFilter {
            networks: self.ip.clone(),
            macs: self.mac.clone(),
            vlans: self.vlan.clone(),
            services: self.service.clone(),
            ..filter
        }
    }
}

impl FindingArguments {
    /// Restricts a filter by these flags.
    pub fn narrow(&self, filter: RecordFilter) -> RecordFilter {
        RecordFilter {
            kinds: self.finding.clone(),
            severity: self.severity,
            ..filter
        }
    }
}

fn parse_network(text: &str) -> Result<IpNet, FilterError> {
    network(text)
}
