//! Runs a check for another command: nothing is printed, the records are returned.

use std::{net::Ipv4Addr, time::Duration};

use probe_cluster::local_announcements::LocalAnnouncements;
use probe_detect::DetectConfig;
use probe_prober::{
    ArpSocket,
    check::{HostNetwork, HostNetworkError, TargetRange},
};

use super::{
    cluster_context::CheckContext,
    output::{CheckCollector, CheckOutput},
    run::{CheckOptions, CheckRun},
};
use crate::cli::session::StopSignal;

/// The time to wait for replies.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Why a check has no result.
#[derive(Debug, thiserror::Error)]
pub enum CheckNotRun {
    /// The check is not possible.
    #[error("{0}")]
    Impossible(String),
    /// The interface is down or has no carrier.
    #[error("{0}")]
    LinkDown(String),
    /// A signal stopped it.
    #[error("stopped")]
    Interrupted,
}

/// Checks these addresses, with `rate` probes a second for many addresses; the frames of the address `frames_of` are
/// kept too. `speaker` is what a speaker on this host announces.
pub async fn collect(
    network: HostNetwork,
    ranges: Vec<TargetRange>,
    rate: u32,
    frames_of: Option<Ipv4Addr>,
    speaker: LocalAnnouncements,
    stop: &mut StopSignal,
) -> Result<CheckCollector, CheckNotRun> {
    let options = CheckOptions {
        rate,
        timeout: TIMEOUT,
        duration: None,
        source_ip: None,
        config: DetectConfig::default(),
    };
    let output = CheckOutput::Collector(CheckCollector {
        frames_of,
        ..CheckCollector::default()
    });
    let impossible = |error: anyhow::Error| {
        let text = format!("{error:#}");
        match error.downcast_ref() {
            Some(HostNetworkError::UnusableInterface { .. }) => CheckNotRun::LinkDown(text),
            _ => CheckNotRun::Impossible(text),
        }
    };
    let sender = ArpSocket::sender().map_err(|error| impossible(error.into()))?;
    let context = CheckContext::none(speaker);
    let check = CheckRun::open(&options, context, output, sender, network, ranges).await;
    let outcome = check.map_err(impossible)?.run(stop).await;
    let outcome = outcome.map_err(impossible)?;
    if outcome.interrupted {
        return Err(CheckNotRun::Interrupted);
    }
    match (outcome.failure, outcome.output) {
        (Some(error), _) => Err(impossible(error)),
        (None, CheckOutput::Collector(collector)) => Ok(collector),
        (None, CheckOutput::Printer(_)) => Ok(CheckCollector::default()),
    }
}
