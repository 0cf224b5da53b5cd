//! The flags that choose what is shown. They mean the same with every verb that has them.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use ipnet::IpNet;
use probe_common::wire::Vlan;
use probe_datapath::interfaces::NamePattern;
use probe_model::{FindingKind, Severity};

use crate::filter::{FilterError, MacPrefix, RecordFilter, ServicePattern, network};

/// Which addresses, whose, where.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Show only")]
pub struct AddressArguments {
    /// Addresses or networks; repeat it or separate with commas
    #[arg(long, value_name = "IP|CIDR", value_delimiter = ',', value_parser = parse_network)]
    ip: Vec<IpNet>,

    /// MACs or how they begin (00:00:5e); repeat it or separate with commas
    #[arg(long, value_name = "MAC", value_delimiter = ',')]
    mac: Vec<MacPrefix>,

    /// VLANs: 0 for untagged, 100, 100.200; repeat it or separate with commas
    #[arg(long, value_name = "VLAN", value_delimiter = ',')]
    vlan: Vec<Vlan>,

    /// Addresses of services of the cluster: NAMESPACE/NAME, or NAMESPACE/ for all of one; repeat it or separate with
    /// commas
    #[arg(long, value_name = "NS/NAME", value_delimiter = ',')]
    service: Vec<ServicePattern>,
}

/// Which findings.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Show only")]
pub struct FindingArguments {
    /// Findings of these kinds; repeat it or separate with commas
    #[arg(
        long, value_name = "KIND", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(FindingKind::LABELS)
            .map(|word| FindingKind::from_label(&word).unwrap_or(FindingKind::Conflict)),
    )]
    finding: Vec<FindingKind>,

    /// Findings of this severity or more
    #[arg(
        long, value_name = "SEVERITY",
        value_parser = PossibleValuesParser::new(Severity::LABELS)
            .map(|word| Severity::from_label(&word).unwrap_or(Severity::Info)),
    )]
    severity: Option<Severity>,
}

/// Which interfaces, for those verbs to which the flag means nothing else.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Show only")]
pub struct InterfaceArguments {
    /// Interfaces, by name or pattern (eth*); repeat it for more
    #[arg(short, long = "interface", value_name = "IFACE")]
    interfaces: Vec<NamePattern>,

    /// No interface of this name or pattern; repeat it for more
    #[arg(short = 'x', long = "exclude", value_name = "IFACE")]
    excluded: Vec<NamePattern>,
}

impl InterfaceArguments {
    /// What they choose.
    pub fn filter(&self) -> RecordFilter {
        RecordFilter {
            interfaces: self.interfaces.clone(),
            excluded: self.excluded.clone(),
            ..RecordFilter::default()
        }
    }
}

impl AddressArguments {
    /// What they choose of what was chosen.
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
    /// What they choose of what was chosen.
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
