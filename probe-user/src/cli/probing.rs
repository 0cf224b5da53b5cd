//! The flags of active probing.

use std::time::Duration;

use clap::{Args, ValueEnum, builder::ValueParser};
use probe_datapath::capabilities;
use probe_prober::{ArpSocket, ProbeSchedulerConfig, Prober, ProberState};

use super::source::duration;

/// Minimum interval; a shorter one would be a sweep.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Whether and how to send ARP probes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Active probing")]
pub struct ProberArguments {
    /// Send ARP probes after a takeover, when a conflict may be resolved, and periodically for tracked addresses; at
    /// most five frames a second
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ConfirmMode::Auto)]
    active_probing: ConfirmMode,

    /// Interval at which each tracked address is probed, by this node or another
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = ValueParser::new(interval))]
    probe_interval: Duration,

    /// Number of nodes that run this program on one segment; in a large fleet a few nodes, chosen at random, send the
    /// probes [default: estimated]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    fleet_size: Option<u32>,
}

/// When to send ARP probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConfirmMode {
    /// If this process has `CAP_NET_RAW`.
    Auto,
    /// Never.
    Off,
}

impl ProberArguments {
    /// Whether this process sends probes: by its settings and its capabilities.
    pub fn initial_state(&self) -> ProberState {
        match self.active_probing {
            ConfirmMode::Off => ProberState::Off,
            ConfirmMode::Auto if capabilities::can_send_probes() => ProberState::On,
            ConfirmMode::Auto => ProberState::NotPermitted,
        }
    }

    /// Opens the socket, if probing is on, and logs the state.
    pub fn open(&self, state: ProberState) -> Result<Prober, ProberState> {
        match state {
            ProberState::Off => {
                tracing::info!("active ARP probing disabled by --active-probing off");
                return Err(state);
            }
            ProberState::NotPermitted => {
                tracing::warn!(
                    "active ARP probing disabled: CAP_NET_RAW is missing; grant it, or set --active-probing off"
                );
                return Err(state);
            }
            ProberState::On => {}
        }
        let socket = ArpSocket::sender().map_err(|error| {
            tracing::warn!(error = %anyhow::Error::new(error), "active ARP probing disabled");
            ProberState::NotPermitted
        })?;
        tracing::info!(interval = ?self.probe_interval, "active ARP probing enabled");
        let config = ProbeSchedulerConfig {
            every: self.probe_interval,
            fleet: self.fleet_size,
            ..ProbeSchedulerConfig::default()
        };
        Ok(Prober::new(socket, &config))
    }
}

fn interval(text: &str) -> anyhow::Result<Duration> {
    let interval = duration(text)?;
    anyhow::ensure!(
        interval >= MIN_INTERVAL,
        "must be at least {MIN_INTERVAL:?}: switches shut down ports with too many ARP frames"
    );
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        prober: ProberArguments,
    }

    fn parse(arguments: &[&str]) -> Result<ProberArguments, clap::Error> {
        let arguments = ["probe"].iter().chain(arguments);
        Command::try_parse_from(arguments).map(|command| command.prober)
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_scheduler() {
        let (arguments, config) = (parse(&[]).unwrap(), ProbeSchedulerConfig::default());
        assert_eq!(
            (arguments.probe_interval, arguments.fleet_size),
            (config.every, config.fleet)
        );
        assert_eq!(arguments.active_probing, ConfirmMode::Auto);
    }

    #[test]
    fn passive_mode_opens_no_socket() {
        let arguments = parse(&["--active-probing", "off"]).unwrap();
        assert_eq!(arguments.initial_state(), ProberState::Off);
        assert_eq!(
            arguments.open(ProberState::Off).err(),
            Some(ProberState::Off)
        );
    }

    #[test]
    fn invalid_values_are_rejected() {
        for bad in [
            ["--active-probing", "always"],
            ["--probe-interval", "0s"],
            ["--probe-interval", "10"],
            ["--fleet-size", "0"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
