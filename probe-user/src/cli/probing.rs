//! The flags of asking.

use std::time::Duration;

use clap::{Args, ValueEnum, builder::ValueParser};
use probe_datapath::capabilities;
use probe_prober::{ArpSocket, ProbeSchedulerConfig, Prober, ProberState};

use super::source::duration;

/// Shorter would be a sweep, not care.
const SHORTEST: Duration = Duration::from_secs(1);

/// Whether to ask, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Asking")]
pub struct ProberArguments {
    /// Whether to ask by ARP probe who answers for an address, where listening leaves that open: after a
    /// takeover, when a conflict seems over, and now and then about each address that matters. At most five
    /// frames a second; `auto` asks if this process has the capability to (`CAP_NET_RAW`)
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ConfirmMode::Auto)]
    active_probing: ConfirmMode,

    /// How often each address that matters is asked about, by this node or another
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = ValueParser::new(interval))]
    probe_interval: Duration,

    /// Nodes that run this program on one segment; in a large fleet a few of them ask, chosen by lot
    /// [default: as many as are heard]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    fleet_size: Option<u32>,
}

/// When to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConfirmMode {
    /// If this process may.
    Auto,
    /// Never: only listen.
    Off,
}

impl ProberArguments {
    /// Whether this process is to ask: by what it was told, and what it may.
    pub fn initial_state(&self) -> ProberState {
        match self.active_probing {
            ConfirmMode::Off => ProberState::Off,
            ConfirmMode::Auto if capabilities::can_send_probes() => ProberState::On,
            ConfirmMode::Auto => ProberState::NotPermitted,
        }
    }

    /// Opens what it takes to ask, if the state is that it asks; says so, once.
    pub fn open(&self, state: ProberState) -> Result<Prober, ProberState> {
        match state {
            ProberState::Off => {
                tracing::info!("only listening, as --active-probing off wants it");
                return Err(state);
            }
            ProberState::NotPermitted => {
                tracing::warn!(
                    "only listening: asking takes CAP_NET_RAW, which this process lacks; grant it, or say \
                     --active-probing off"
                );
                return Err(state);
            }
            ProberState::On => {}
        }
        let socket = ArpSocket::sender().map_err(|error| {
            tracing::warn!(error = %anyhow::Error::new(error), "only listening");
            ProberState::NotPermitted
        })?;
        tracing::info!(every = ?self.probe_interval, "asking about what listening leaves open");
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
        interval >= SHORTEST,
        "at least {SHORTEST:?}: switches shut ports on which there is too much ARP"
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
        asking: ProberArguments,
    }

    fn parse(arguments: &[&str]) -> Result<ProberArguments, clap::Error> {
        let arguments = ["probe"].iter().chain(arguments);
        Command::try_parse_from(arguments).map(|command| command.asking)
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
    fn told_to_listen_only_it_opens_nothing() {
        let arguments = parse(&["--active-probing", "off"]).unwrap();
        assert_eq!(arguments.initial_state(), ProberState::Off);
        assert_eq!(
            arguments.open(ProberState::Off).err(),
            Some(ProberState::Off)
        );
    }

    #[test]
    fn bad_values_are_refused() {
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
