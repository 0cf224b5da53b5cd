//! `probe check`: probes addresses and lists the hosts that reply.

pub(super) mod cluster_context;
pub(super) mod collect;
mod expectation;
pub(super) mod kubernetes;
pub(super) mod output;
pub(super) mod run;
mod summary;

use std::{
    fs,
    io::{self, Read as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use probe_common::wire::{MacAddr, Vlan};
use probe_datapath::capabilities;
use probe_detect::DetectConfig;
use probe_model::FindingOrigin;
use probe_prober::{
    ArpSocket,
    check::{HostNetwork, HostNetworkError, InvalidTarget, Target, TargetRange, parse_target_list},
};
use tokio::runtime;

use self::{
    cluster_context::CheckContext,
    expectation::CheckExpectation,
    output::CheckOutput,
    run::{CheckOptions, CheckRun},
};
use super::{
    Exit,
    cluster::ClusterArguments,
    detection::MacSet,
    exit::print_error,
    output::{OutputFormat, Printer, print_status},
    session::{StopSignal, init_logging},
    source::duration,
};
use crate::{client::Client, daemon::serve::DEFAULT_PATH};

/// The target that means standard input.
const STDIN: &str = "-";

/// The largest list: all addresses of a check, each on its own line with a comment.
const MAX_LIST_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 as expected (without --expect-…: no conflict), 1 conflict, 2 usage, 3 expectation not \
                  met, contested or, with --for, moved, 4 not all addresses could be probed."
)]
pub struct CheckArguments {
    /// Addresses: 192.0.2.7, 192.0.2.0/24, 192.0.2.10-192.0.2.20, 192.0.2.10-20, a file with a list of them or
    /// with address pools (YAML, as `probe pools` reads them), or - for either from standard input
    #[arg(value_name = "TARGET", required_unless_present = "kubernetes")]
    targets: Vec<String>,

    /// Check every address of the cluster that is on-link here, or those of them that are among the targets: an address
    /// of a service has exactly one owner, a node of the cluster; any other address of a pool has none. Otherwise exit 3
    #[arg(long, conflicts_with_all = ["expect_owner", "expect_free", "expect_mac"])]
    kubernetes: bool,

    #[command(flatten)]
    cluster: ClusterArguments,

    /// The socket of the daemon on this host: what a speaker on this host announces and, with --kubernetes, the cluster
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, hide_short_help = true)]
    socket: PathBuf,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Human)]
    output: OutputFormat,

    /// The interface to send probes on, instead of the one by the route
    #[arg(short, long, value_name = "IFACE")]
    interface: Option<String>,

    /// The VLAN to send probes in, for interfaces that carry tagged frames: 100, or 100.200 (200 inside 100)
    #[arg(long, value_name = "VID", default_value_t = Vlan::UNTAGGED, hide_default_value = true)]
    vlan: Vlan,

    /// Send ARP requests with this address of this host instead of ARP probes, for hosts that reply to no probe.
    /// Hosts that receive them refresh their neighbour entry for this host
    #[arg(long, value_name = "IP")]
    source_ip: Option<Ipv4Addr>,

    /// Probes a second, for more than ten addresses. More than the default can cut this host off:
    /// switches with Dynamic ARP Inspection shut a port above 15 ARP frames a second
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Time to wait for replies after the last probe
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = timeout, hide_short_help = true)]
    timeout: Duration,

    /// Watch the addresses for this time: probe them once a second, and check that each has exactly one owner all the
    /// time
    #[arg(long = "for", value_name = "DURATION", value_parser = watched)]
    duration: Option<Duration>,

    #[command(flatten)]
    expectation: ExpectationArguments,

    /// MACs that are one host; repeat the option for each host
    #[arg(long = "same-owner", value_name = "MAC,MAC…")]
    same_owner: Vec<MacSet>,
}

/// The expectation for each address.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
#[expect(clippy::struct_field_names, reason = "they are the names of the flags")]
struct ExpectationArguments {
    /// Expect exactly one owner of each address, otherwise exit 3
    #[arg(long)]
    expect_owner: bool,

    /// Expect no reply for any address, otherwise exit 3
    #[arg(long)]
    expect_free: bool,

    /// Expect this MAC to be the only owner of each address, otherwise exit 3
    #[arg(long, value_name = "MAC")]
    expect_mac: Option<MacAddr>,
}

impl ExpectationArguments {
    fn expectation(self) -> CheckExpectation {
        match self {
            Self {
                expect_mac: Some(mac),
                ..
            } => CheckExpectation::Mac(mac),
            Self {
                expect_owner: true, ..
            } => CheckExpectation::Owner,
            Self {
                expect_free: true, ..
            } => CheckExpectation::Free,
            _ => CheckExpectation::Nothing,
        }
    }
}

pub fn run(arguments: &CheckArguments) -> anyhow::Result<Exit> {
    init_logging("warn");
    if arguments.cluster.context.is_some() && !arguments.kubernetes {
        print_error(&anyhow::anyhow!("--context is for --kubernetes"));
        return Ok(Exit::Usage);
    }
    let targets = match targets(&arguments.targets) {
        Ok(targets) => targets,
        Err(error) if error.is::<InvalidTargetArgument>() => {
            print_error(&error);
            return Ok(Exit::Usage);
        }
        Err(error) => return Err(error),
    };
    // One thread: capabilities belong to threads, and all of them are dropped on the way.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        if arguments.kubernetes {
            kubernetes::check(arguments, &targets).await
        } else {
            check(arguments, &targets).await
        }
    });
    match result {
        Err(error) if is_usage_error(&error) => {
            print_error(&error);
            Ok(Exit::Usage)
        }
        result => result,
    }
}

fn is_usage_error(error: &anyhow::Error) -> bool {
    let network = error.downcast_ref::<HostNetworkError>();
    network.is_some_and(HostNetworkError::is_usage_error)
}

async fn check(arguments: &CheckArguments, targets: &[Target]) -> anyhow::Result<Exit> {
    let mut stop = StopSignal::listen()?;
    // First, because nothing works without the capability.
    let sender = ArpSocket::sender()?;
    let mut network = HostNetwork::read().await?;
    let interface = arguments.interface.as_deref();
    let ranges = network
        .resolve_targets(targets, interface, arguments.vlan)
        .await?;
    if let Some(from) = arguments.source_ip {
        network.check_source(from)?;
    }
    warn_of_unreachable(network.excluded_addresses());
    let daemon = Client::new(&arguments.socket);
    let context = CheckContext::Plain {
        expected: arguments.expectation.expectation(),
        speaker: kubernetes::announcements(&daemon, false).await,
    };
    run_check(arguments, context, sender, network, ranges, &mut stop).await
}

/// Sends the probes and prints the results.
async fn run_check(
    arguments: &CheckArguments,
    context: CheckContext,
    sender: ArpSocket,
    network: HostNetwork,
    ranges: Vec<TargetRange>,
    stop: &mut StopSignal,
) -> anyhow::Result<Exit> {
    let output = CheckOutput::Printer(Printer::new(arguments.output, FindingOrigin::Attached));
    let options = arguments.options();
    let check = CheckRun::open(&options, context, output, sender, network, ranges).await?;
    capabilities::drop_all().context("cannot drop capabilities")?;
    let outcome = check.run(stop).await?;
    if let Some(error) = &outcome.failure {
        print_error(error);
    }
    Ok(outcome.exit)
}

fn warn_of_unreachable(left_out: &[Ipv4Addr]) {
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(ToString::to_string).collect();
        print_status(&format!(
            "skipped, because no host can have it: {} (network and broadcast addresses)",
            names.join(", ")
        ));
    }
}

impl CheckArguments {
    /// The options of the check.
    fn options(&self) -> CheckOptions {
        CheckOptions {
            rate: self.rate,
            timeout: self.timeout,
            duration: self.duration,
            source_ip: self.source_ip,
            config: DetectConfig {
                same_owner: self.same_owner.iter().map(|set| set.0.clone()).collect(),
                ..DetectConfig::default()
            },
        }
    }
}

fn watched(text: &str) -> anyhow::Result<Duration> {
    let watched = duration(text)?;
    anyhow::ensure!(
        watched >= Duration::from_secs(1),
        "must be at least 1 s: addresses are probed once a second"
    );
    Ok(watched)
}

fn timeout(text: &str) -> anyhow::Result<Duration> {
    let timeout = duration(text)?;
    anyhow::ensure!(
        timeout <= Duration::from_mins(1),
        "no host replies after more than a minute"
    );
    Ok(timeout)
}

/// An invalid target argument. An error in a list is no usage error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct InvalidTargetArgument(InvalidTarget);

/// Reads the targets, and the files and standard input that they name.
fn targets(words: &[String]) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for word in words {
        match word.parse() {
            Ok(target) => targets.push(target),
            Err(_) if word == STDIN => {
                targets.extend(list(io::stdin().lock(), "standard input")?);
            }
            Err(InvalidTarget::Malformed(_)) if Path::new(word).exists() => {
                let file = fs::File::open(word).with_context(|| format!("cannot read {word}"))?;
                targets.extend(list(file, word)?);
            }
            Err(error) => return Err(InvalidTargetArgument(error).into()),
        }
    }
    anyhow::ensure!(
        words.is_empty() || !targets.is_empty(),
        "no IPv4 address to check"
    );
    Ok(targets)
}

fn list(source: impl io::Read, name: &str) -> anyhow::Result<Vec<Target>> {
    let mut text = String::new();
    let read = source.take(MAX_LIST_BYTES).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {name}"))?;
    let list = parse_target_list(&text).with_context(|| format!("in {name}"))?;
    if list.ipv6 > 0 {
        print_status(&format!(
            "{name}: {} skipped: IPv6 has no ARP",
            match list.ipv6 {
                1 => "one IPv6 range".to_owned(),
                number => format!("{number} IPv6 ranges"),
            }
        ));
    }
    Ok(list.targets)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        check: CheckArguments,
    }

    fn parsed(words: &[&str]) -> Result<CheckArguments, clap::Error> {
        let words = ["probe"].iter().chain(words);
        Command::try_parse_from(words).map(|command| command.check)
    }

    #[test]
    fn expectations_are_mutually_exclusive() {
        let expectation = |words: &[&str]| parsed(words).unwrap().expectation.expectation();
        assert_eq!(expectation(&["192.0.2.1"]), CheckExpectation::Nothing);
        assert_eq!(
            expectation(&["--expect-owner", "192.0.2.1"]),
            CheckExpectation::Owner
        );
        assert_eq!(
            expectation(&["--expect-free", "192.0.2.1"]),
            CheckExpectation::Free
        );
        let mac = "02:00:00:00:00:0a";
        assert_eq!(
            expectation(&["--expect-mac", mac, "192.0.2.1"]),
            CheckExpectation::Mac(mac.parse().unwrap())
        );
        for bad in [
            &["--expect-owner", "--expect-free", "192.0.2.1"][..],
            &["--expect-mac", "x", "192.0.2.1"],
            &["--rate", "0", "192.0.2.1"],
            &["--rate", "10001", "192.0.2.1"],
            &["--vlan", "4095", "192.0.2.1"],
            &["--timeout", "2m", "192.0.2.1"],
            &["--for", "-1s", "192.0.2.1"],
            &["--for", "0s", "192.0.2.1"],
            &["--source-ip", "eth0", "192.0.2.1"],
            &[],
        ] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn help_explains_the_low_default_rate() {
        let mut command = <Command as clap::CommandFactory>::command();
        let help = command.render_long_help().to_string();
        assert!(help.contains("Dynamic ARP"), "{help}");
    }

    #[test]
    fn target_is_an_address_range_or_file_else_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pools.yaml");
        fs::write(
            &path,
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: a}\nspec: {addresses: [192.0.2.8/31]}\n",
        )
        .unwrap();
        let words = ["192.0.2.1".to_owned(), path.display().to_string()];
        let read: Vec<_> = targets(&words)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(read, ["192.0.2.1", "192.0.2.8-192.0.2.9"]);
        for (word, why) in [
            ("no-such-file", "is not an address"),
            ("2001:db8::1", "IPv6"),
            (directory.path().to_str().unwrap(), "cannot read"),
        ] {
            let error = format!("{:#}", targets(&[word.to_owned()]).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
