//! Asking on behalf of another verb: nothing is written, what was found out is kept.

use std::{net::Ipv4Addr, time::Duration};

use probe_detect::DetectConfig;
use probe_prober::{
    ArpSocket,
    check::{HostNetwork, TargetRange},
};

use super::{
    cluster_context::CheckContext,
    output::{CheckCollector, CheckOutput},
    run::{CheckOptions, CheckRun},
};
use crate::cli::session::StopSignal;

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum CheckNotRun {
    /// It could not be done.
    #[error("{0}")]
    Impossible(String),
    /// Somebody stopped it.
    #[error("stopped")]
    Interrupted,
}

/// Asks about these, so many a second if they are many; of one address the frames are kept as well.
pub async fn collect(
    network: HostNetwork,
    ranges: Vec<TargetRange>,
    rate: u32,
    frames_of: Option<Ipv4Addr>,
    stop: &mut StopSignal,
) -> Result<CheckCollector, CheckNotRun> {
    let order = CheckOptions {
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
    let impossible = |error: anyhow::Error| CheckNotRun::Impossible(format!("{error:#}"));
    let sender = ArpSocket::sender().map_err(|error| impossible(error.into()))?;
    let context = CheckContext::none();
    let inquiry = CheckRun::open(&order, context, output, sender, network, ranges).await;
    let outcome = inquiry.map_err(impossible)?.run(stop).await;
    let outcome = outcome.map_err(impossible)?;
    if outcome.interrupted {
        return Err(CheckNotRun::Interrupted);
    }
    match (outcome.failure, outcome.output) {
        (Some(error), _) => Err(impossible(error)),
        (None, CheckOutput::Collector(keeper)) => Ok(keeper),
        (None, CheckOutput::Printer(_)) => Ok(CheckCollector::default()),
    }
}
