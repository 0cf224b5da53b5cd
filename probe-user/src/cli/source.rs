//! The common flags of `run` and `watch`: interfaces, attachment, kernel side and detection.

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use ipnet::Ipv4Net;
use probe_common::event_filter::{FilterSettings, RateLimit};
use probe_datapath::{
    LoadOptions,
    interfaces::{AttachMode, InterfaceSelection, NamePattern, WatchPolicy},
};
use probe_detect::DetectConfig;

use super::detection::DetectionArguments;

/// The interfaces to watch, and the attachment.
#[derive(Clone, Debug, Args)]
pub struct SourceArguments {
    /// Watch these interfaces, by name or pattern (eth*); repeatable, or separated by commas [default: physical
    /// interfaces, bond masters instead of their ports, and the interface of the default route]
    #[arg(short, long = "interface", value_name = "IFACE", value_delimiter = ',')]
    interfaces: Vec<NamePattern>,

    /// Exclude these interfaces, by name or pattern
    #[arg(
        short = 'x',
        long = "exclude",
        value_name = "IFACE",
        value_delimiter = ','
    )]
    excluded: Vec<NamePattern>,

    /// How to attach for received frames. Some drivers interrupt the link for a moment when an XDP program is attached
    #[arg(long, value_enum, value_name = "MODE", default_value_t = AttachMode::Auto)]
    attach: AttachMode,

    #[command(flatten)]
    kernel: KernelArguments,

    #[command(flatten)]
    detection: DetectionArguments,
}

/// The settings of the kernel side.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kernel side")]
struct KernelArguments {
    /// Report an unchanged claim at most once in this time; 0s reports every frame
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    refresh: Duration,

    /// Observe only these addresses; repeatable, or separated by commas
    #[arg(long = "filter", value_name = "CIDR", value_delimiter = ',', value_parser = ipv4_network)]
    filter: Vec<Ipv4Net>,

    /// Observe the addresses in this file too, one CIDR a line, # for comments; reloaded on SIGHUP
    #[arg(long, value_name = "FILE")]
    filter_file: Option<PathBuf>,

    /// Maximum number of CIDRs in the filter
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    filter_capacity: u32,

    /// Memory of the ring buffers of all CPUs together, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    ring_memory: u32,

    /// Maximum number of addresses whose claims and requests the kernel side keeps
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(256..=4_194_304))]
    kernel_addresses: u32,

    /// Maximum number of new addresses that each CPU reports in a second; the rest is counted
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    new_address_rate: u32,
}

impl SourceArguments {
    /// The selection of interfaces and the attach mode.
    pub fn policy(&self) -> WatchPolicy {
        let selection = InterfaceSelection {
            include: self.interfaces.clone(),
            exclude: self.excluded.clone(),
        };
        WatchPolicy {
            selection,
            attach: self.attach,
        }
    }

    /// The settings of the kernel side.
    pub fn settings(&self) -> FilterSettings {
        self.kernel.settings()
    }

    /// The sizes of the maps.
    pub fn load_options(&self) -> LoadOptions {
        self.kernel.load_options()
    }

    /// The networks to watch: those of the flags and those in the file, which is read now. Empty means all.
    pub fn networks(&self) -> anyhow::Result<Vec<Ipv4Net>> {
        self.kernel.networks()
    }

    /// The settings of detection.
    pub fn detect_config(&self) -> DetectConfig {
        self.detection.config(probe_datapath::clock::MONOTONIC)
    }
}

impl KernelArguments {
    fn settings(&self) -> FilterSettings {
        FilterSettings {
            refresh_ns: u64::try_from(self.refresh.as_nanos()).unwrap_or(u64::MAX),
            new_address: RateLimit::per_second(self.new_address_rate, self.new_address_rate),
            ..FilterSettings::default()
        }
    }

    fn load_options(&self) -> LoadOptions {
        LoadOptions {
            ring_memory: (self.ring_memory as usize) << 20,
            addresses: self.kernel_addresses,
            filter_entries: self.filter_capacity,
        }
    }

    fn networks(&self) -> anyhow::Result<Vec<Ipv4Net>> {
        let mut networks = self.filter.clone();
        if let Some(path) = &self.filter_file {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read the filter {}", path.display()))?;
            networks.extend(
                parse_networks(&text)
                    .with_context(|| format!("in the filter {}", path.display()))?,
            );
            // An empty filter would watch all addresses, which an empty file probably does not intend.
            ensure!(
                !networks.is_empty(),
                "the filter {} lists no network",
                path.display()
            );
        }
        Ok(networks)
    }
}

/// Parses one network or address a line.
fn parse_networks(text: &str) -> anyhow::Result<Vec<Ipv4Net>> {
    let mut networks = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let network = ipv4_network(entry).with_context(|| format!("line {number}"))?;
        networks.push(network);
    }
    Ok(networks)
}

/// Parses a network or an address.
fn ipv4_network(text: &str) -> anyhow::Result<Ipv4Net> {
    let address = || text.parse::<Ipv4Addr>().map(Ipv4Net::from);
    text.parse::<Ipv4Net>()
        .or_else(|error| address().map_err(|_| error))
        .with_context(|| format!("{text:?} is not an IPv4 network like 192.0.2.0/24"))
}

/// Maximum duration; a longer one is probably a typing error.
const MAX_DURATION: Duration = Duration::from_hours(10 * 366 * 24);

/// Parses a duration that is not negative: `10s`, `1m 30s`, `500ms`.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration: jiff::SignedDuration = text
        .parse()
        .context("not a duration like 500ms, 10s or 1m 30s")?;
    let duration = Duration::try_from(duration).context("a duration cannot be negative")?;
    ensure!(duration <= MAX_DURATION, "must be at most ten years");
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_file_lists_networks_and_addresses_with_comments() {
        let networks = parse_networks("192.0.2.0/24 # pool\n\n# all ours\n198.51.100.7\n").unwrap();
        let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["192.0.2.0/24", "198.51.100.7/32"]);
    }

    #[test]
    fn invalid_line_is_reported_with_its_number() {
        let error = parse_networks("192.0.2.0/24\n192.0.2.0/33\n").unwrap_err();
        let complaint = format!("{error:#}");
        assert!(
            complaint.starts_with("line 2: \"192.0.2.0/33\""),
            "{complaint}"
        );
    }

    #[test]
    fn durations_are_parsed_and_never_negative() {
        assert_eq!(duration("1m 30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("0s").unwrap(), Duration::ZERO);
        for bad in ["", "10", "-1s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
