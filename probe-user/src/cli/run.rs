//! `probe run`: the daemon.

use std::{
    collections::HashMap,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use tokio::sync::{broadcast, oneshot};

use super::{
    Exit,
    asking::AskingArguments,
    metrics::MetricsArguments,
    session::{DaemonSignals, Session, StopSignal, block_on, init_logging},
    source::SourceArguments,
    watch::NO_SOCKET,
};
use crate::{
    active::AskingState,
    detect::FindingKind,
    drill::Drills,
    history::History,
    kernel::{self, capabilities},
    neighbours::NeighbourReader,
    report::FindingRecord,
    serve::{self, ApiSocket, ApiSources, DEFAULT_PATH, Sources},
};

/// The range of ports that Prometheus keeps a list of is full; this one is ARP's RFC, 826, past its end.
const DEFAULT_LISTEN: &str = "127.0.0.1:10826";

/// One address is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to serve /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,

    /// The Unix socket on which findings, conflicts, bindings and interfaces are served, to root and its
    /// group; `none` for no socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,

    #[command(flatten)]
    metrics: MetricsArguments,

    #[command(flatten)]
    asking: AskingArguments,

    // Last, and with a heading: the headings within it go on to whatever comes after it.
    #[command(flatten, next_help_heading = "Interfaces")]
    source: SourceArguments,
}

pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    init_logging("info");
    // First of all, so that whoever lacks everything is told of what matters.
    kernel::preflight::check()?;
    // What only a fuller set of capabilities may read.
    kernel::roster::read();
    // Takes CAP_SYS_RESOURCE, which goes next.
    kernel::preflight::raise_memlock_limit();
    // Before the runtime starts its threads, so that each of them has only what is kept.
    let asking = arguments.asking.state();
    capabilities::drop_others(asking == AskingState::On).context("cannot drop capabilities")?;
    block_on(daemon(arguments, asking))
}

async fn daemon(arguments: Arguments, asking: AskingState) -> anyhow::Result<Exit> {
    let signals = DaemonSignals::listen()?;
    let mut stop = StopSignal::listen()?;
    let listener = serve::bind(arguments.listen).await.with_context(|| {
        format!(
            "cannot listen on {} (another probe, or --listen another ADDR:PORT)",
            arguments.listen
        )
    })?;
    let socket = if arguments.socket.as_os_str() == NO_SOCKET {
        None
    } else {
        Some(ApiSocket::bind(&arguments.socket)?)
    };
    let asking = arguments.asking.open(asking);
    let mut session = Session::start(&arguments.source, asking).await?;
    session.name_segments(arguments.metrics.segments);
    let neighbours = NeighbourReader::open().context("cannot open a netlink socket")?;
    let drills = Drills::default();
    tokio::spawn(log_conflicts(session.monitor.findings()));
    tokio::spawn(signals.obey(arguments.source, session.orders.clone()));

    let api = socket.map(|socket| tokio::spawn(serve_api(socket, &session, drills.clone())));
    session.begin();

    let (stop_serving, serving_stopped) = oneshot::channel::<()>();
    let sources = Sources {
        monitor: session.monitor.clone(),
        counters: session.counters.clone(),
        watched: session.watched.clone(),
        links: session.links.clone(),
        neighbours,
        drills,
        addresses: arguments.metrics.addresses,
    };
    let server = tokio::spawn(serve::serve(listener, sources, async {
        // An error means the same: the sender is gone.
        let _ = serving_stopped.await;
    }));
    tracing::info!(address = %arguments.listen, "serving /metrics, /healthz and /readyz");

    stop.received().await;
    tracing::info!("stopping");
    drop(stop_serving);
    // The socket goes with its task: nobody shall find it and be left waiting.
    if let Some(api) = api {
        api.abort();
        let _ = api.await;
    }
    session.end().await?;
    // A scrape that hangs does not keep the daemon: what matters is detached by now.
    server.abort();
    Ok(Exit::Fine)
}

/// Keeps the last findings, and serves them and the state of detection on the socket.
fn serve_api(
    socket: ApiSocket,
    session: &Session,
    drills: Drills,
) -> impl Future<Output = ()> + use<> {
    let history = History::default();
    tokio::spawn(history.clone().follow(session.monitor.findings()));
    let sources = ApiSources {
        monitor: session.monitor.clone(),
        watched: session.watched.clone(),
        links: session.links.clone(),
        history,
        drills,
    };
    tracing::info!(socket = %socket.path().display(), "serving findings and state");
    serve::serve_api(socket, sources)
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
