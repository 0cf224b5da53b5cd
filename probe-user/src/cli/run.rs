//! `probe run`: the daemon.

use std::{
    collections::HashMap,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use tokio::sync::{broadcast, oneshot};

use super::{
    Exit,
    session::{DaemonSignals, Session, StopSignal, block_on, init_logging},
    source::SourceArguments,
};
use crate::{
    detect::FindingKind,
    kernel::{self, capabilities},
    report::FindingRecord,
    serve::{self, Sources},
};

/// The range of ports that Prometheus keeps a list of is full; this one is ARP's RFC, 826, past its end.
const DEFAULT_LISTEN: &str = "127.0.0.1:10826";

/// One address is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    source: SourceArguments,

    /// Where to serve /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,
}

pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    init_logging("info");
    // What only a fuller set of capabilities may read.
    kernel::roster::read();
    // Takes CAP_SYS_RESOURCE, which goes next.
    kernel::preflight::raise_memlock_limit();
    // Before the runtime starts its threads, so that each of them has only what is kept.
    capabilities::drop_others().context("cannot drop capabilities")?;
    block_on(daemon(arguments))
}

async fn daemon(arguments: Arguments) -> anyhow::Result<Exit> {
    let signals = DaemonSignals::listen()?;
    let mut stop = StopSignal::listen()?;
    let listener = serve::bind(arguments.listen).await.with_context(|| {
        format!(
            "cannot listen on {} (another probe, or --listen another ADDR:PORT)",
            arguments.listen
        )
    })?;
    let session = Session::start(&arguments.source).await?;
    tokio::spawn(log_conflicts(session.findings.resubscribe()));
    tokio::spawn(signals.obey(arguments.source, session.orders.clone()));

    let (stop_serving, serving_stopped) = oneshot::channel::<()>();
    let sources = Sources {
        monitor: session.monitor.clone(),
        counters: session.counters.clone(),
        watched: session.watched.clone(),
    };
    let server = tokio::spawn(serve::serve(listener, sources, async {
        // An error means the same: the sender is gone.
        let _ = serving_stopped.await;
    }));
    tracing::info!(address = %arguments.listen, "serving /metrics, /healthz and /readyz");

    stop.received().await;
    tracing::info!("stopping");
    drop(stop_serving);
    session.end().await?;
    // A scrape that hangs does not keep the daemon: what matters is detached by now.
    server.abort();
    Ok(Exit::Fine)
}

/// Writes opened and closed conflicts to standard output, one JSON object a line.
async fn log_conflicts(mut findings: broadcast::Receiver<Arc<FindingRecord>>) {
    let mut last: HashMap<(String, String, IpAddr, FindingKind), Instant> = HashMap::new();
    loop {
        let record = match findings.recv().await {
            Ok(record) => record,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "findings came faster than they could be logged");
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if !is_logged(record.finding) {
            continue;
        }
        let now = Instant::now();
        last.retain(|_, logged| now.duration_since(*logged) < LOG_INTERVAL);
        let key = (
            record.interface.clone(),
            record.vlan.to_string(),
            record.ip,
            record.finding,
        );
        if last.insert(key, now).is_none()
            && let Err(error) = writeln!(std::io::stdout().lock(), "{}", record.to_json())
        {
            tracing::warn!(%error, "standard output is gone: conflicts are no longer logged there");
            return;
        }
    }
}

fn is_logged(kind: FindingKind) -> bool {
    match kind {
        FindingKind::Conflict
        | FindingKind::ConflictResolved
        | FindingKind::ConflictQuiet
        | FindingKind::ConflictExpired => true,
        FindingKind::NewBinding
        | FindingKind::Moved
        | FindingKind::Contested
        | FindingKind::ProbeDenied
        | FindingKind::BogusClaim
        | FindingKind::SourceMismatch
        | FindingKind::Silent => false,
    }
}
