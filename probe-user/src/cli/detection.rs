//! The flags of detection: all parameters with their defaults.

use std::{net::IpAddr, str::FromStr, time::Duration};

use anyhow::Context as _;
use clap::{
    Args,
    builder::{RangedU64ValueParser, ValueParser},
};
use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_detect::{DetectConfig, IgnoreRule};
use probe_model::Clock;

use super::source::duration;

/// The settings of detection.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Detection")]
pub struct DetectionArguments {
    /// Track these addresses: a conflict of one is critical, and it is probed periodically. Gateways and this host's own
    /// addresses are always tracked
    #[arg(long = "track", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    tracked: Vec<IpNet>,

    /// MACs of one host; repeat the flag for each host
    #[arg(long = "same-owner", value_name = "MAC,MAC…")]
    same_owner: Vec<MacSet>,

    /// Count disputes about these addresses without reporting them, until @DATE or @TIME if given
    #[arg(long = "ignore", value_name = "CIDR[@EXPIRES]=REASON")]
    ignored: Vec<IgnoreArgument>,

    /// Report `moved` when the previous owner has been silent for this time
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    settle: Duration,

    /// Ignore claims by earlier owners for this time after a takeover
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, hide_short_help = true)]
    takeover_grace: Duration,

    /// Count replies to a request for this time
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, hide_short_help = true)]
    reply_window: Duration,

    /// Report a conflict after this number of returns in the alternation window
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one(), hide_short_help = true)]
    alternation_returns: usize,

    /// Length of the alternation window
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, hide_short_help = true)]
    alternation_window: Duration,

    /// Report a conflict after this number of returns in the slow alternation window
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one(), hide_short_help = true)]
    slow_alternation_returns: usize,

    /// Length of the slow alternation window
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = duration, hide_short_help = true)]
    slow_alternation_window: Duration,

    /// Grace period for this host to release an address that another host claims
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, hide_short_help = true)]
    local_grace: Duration,

    /// Check whether a conflict is over when there has been no evidence for this time
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    quiet_after: Duration,

    /// Expire a quiet conflict when no second owner has claimed the address for this time
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    expire_after: Duration,

    /// Report `probe_denied` for replies within this time after another host's ARP probe
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, hide_short_help = true)]
    probe_denied_window: Duration,

    /// Report `probe_denied` for an address and a probing host at most once in this time
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration, hide_short_help = true)]
    probe_denied_interval: Duration,

    /// Report `bogus_claim` for a sender and a reason at most once in this time
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, hide_short_help = true)]
    bogus_interval: Duration,

    /// Report a tracked address as silent when it has not been claimed for this time [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    silent_after: Option<Duration>,

    /// Maximum number of MACs of one address
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(2..=64), hide_short_help = true)]
    max_macs: usize,

    /// Maximum number of addresses
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = at_least_one(), hide_short_help = true)]
    max_bindings: usize,
}

fn at_least_one() -> ValueParser {
    RangedU64ValueParser::<usize>::new().range(1..).into()
}

impl DetectionArguments {
    /// The settings for the detector, with time stamps of this clock.
    pub fn config(&self, clock: Clock) -> DetectConfig {
        DetectConfig {
            settle: self.settle,
            takeover_grace: self.takeover_grace,
            reply_window: self.reply_window,
            alternation_returns: self.alternation_returns,
            alternation_window: self.alternation_window,
            slow_alternation_returns: self.slow_alternation_returns,
            slow_alternation_window: self.slow_alternation_window,
            local_grace: self.local_grace,
            quiet_after: self.quiet_after,
            expire_after: self.expire_after,
            probe_denied_window: self.probe_denied_window,
            probe_denied_interval: self.probe_denied_interval,
            bogus_interval: self.bogus_interval,
            silent_after: self.silent_after,
            max_macs: self.max_macs,
            max_bindings: self.max_bindings,
            same_owner: self.same_owner.iter().map(|set| set.0.clone()).collect(),
            ignore: self
                .ignored
                .iter()
                .map(|entry| entry.to_ignore_rule(clock))
                .collect(),
            tracked: self.tracked.clone(),
            ..DetectConfig::default()
        }
    }
}

/// The MACs of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacSet(pub Vec<MacAddr>);

impl FromStr for MacSet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let macs = text
            .split(',')
            .map(|mac| mac.trim().parse().with_context(|| format!("{mac:?}")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(
            macs.len() > 1,
            "expected at least two MACs of one host, separated by commas"
        );
        Ok(Self(macs))
    }
}

/// `CIDR[@EXPIRES]=REASON`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IgnoreArgument {
    network: IpNet,
    until: Option<jiff::Timestamp>,
    reason: String,
}

impl IgnoreArgument {
    fn to_ignore_rule(&self, clock: Clock) -> IgnoreRule {
        IgnoreRule {
            network: self.network,
            reason: self.reason.clone(),
            expires: self.until.map(|until| clock.from_wall_clock(until)),
        }
    }
}

impl FromStr for IgnoreArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (which, reason) = text
            .split_once('=')
            .context("a reason is missing: CIDR=REASON")?;
        anyhow::ensure!(!reason.trim().is_empty(), "the reason is empty");
        let (network, until) = match which.split_once('@') {
            Some((network, until)) => (network, Some(parse_time(until)?)),
            None => (which, None),
        };
        let network = self::network(network)?;
        Ok(Self {
            network,
            until,
            reason: reason.trim().to_owned(),
        })
    }
}

/// Parses a network or an address.
fn network(text: &str) -> anyhow::Result<IpNet> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|error| address().map_err(|_| error))
        .with_context(|| format!("{text:?} is not an address or network like 192.0.2.0/24"))
}

/// Parses a date, which means its start in local time, or an RFC 3339 time.
fn parse_time(text: &str) -> anyhow::Result<jiff::Timestamp> {
    let parsed = text.parse::<jiff::Timestamp>().or_else(|_| {
        let date: jiff::civil::Date = text.parse()?;
        Ok::<_, jiff::Error>(date.to_zoned(jiff::tz::TimeZone::system())?.timestamp())
    });
    parsed.with_context(|| {
        format!("{text:?} is not a date like 2027-01-31 or a time like 2027-01-31T12:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use probe_model::Timestamp;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        detection: DetectionArguments,
    }

    fn config(arguments: &[&str]) -> Result<DetectConfig, clap::Error> {
        let arguments = ["probe"].iter().chain(arguments);
        Command::try_parse_from(arguments).map(|command| command.detection.config(Clock::Epoch))
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_detection() {
        assert_eq!(config(&[]).unwrap(), DetectConfig::default());
    }

    #[test]
    fn hosts_with_several_macs_can_be_declared() {
        let config = config(&["--same-owner", "02:00:00:00:00:01,02:00:00:00:00:02"]).unwrap();
        assert_eq!(config.same_owner.len(), 1);
        assert_eq!(config.same_owner[0].len(), 2);
    }

    #[test]
    fn ignore_entry_has_a_reason_and_an_optional_expiry() {
        let config = config(&[
            "--ignore",
            "192.0.2.0/24=lab",
            "--ignore",
            "198.51.100.7@2027-01-31T12:00:00Z=two sites = one address",
        ])
        .unwrap();
        let [for_ever, until] = &config.ignore[..] else {
            panic!("two entries")
        };
        assert_eq!((for_ever.reason.as_str(), for_ever.expires), ("lab", None));
        assert_eq!(until.network.to_string(), "198.51.100.7/32");
        assert_eq!(until.reason, "two sites = one address");
        assert_eq!(until.expires, Some(Timestamp(1_801_396_800_000_000_000)));
    }

    #[test]
    fn invalid_values_are_rejected() {
        for bad in [
            ["--settle", "-1s"],
            ["--max-macs", "1"],
            ["--max-bindings", "0"],
            ["--same-owner", "02:00:00:00:00:01"],
            ["--ignore", "192.0.2.0/24"],
            ["--ignore", "192.0.2.0/24="],
            ["--ignore", "192.0.2.0/24@soon=lab"],
            ["--track", "192.0.2.0/33"],
        ] {
            assert!(config(&bad).is_err(), "{bad:?}");
        }
    }
}
