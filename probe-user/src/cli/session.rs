//! What `run` and `watch` have in common: the loaded kernel side, joined to a monitor.

use std::{io, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use probe_common::economy::Settings;
use tokio::{signal::unix, sync::watch, task::JoinHandle};

use crate::{
    detect::DetectConfig,
    interfaces::{Interfaces, WatchedInterfaces},
    kernel::{CounterReader, Kernel, LoadOptions, Mode},
    links,
    monitor::{Monitor, MonitorHandle},
};

/// What to watch, and how.
#[derive(Debug, Args)]
pub struct SourceArguments {
    /// Interface to watch; repeat it for more
    #[arg(short, long = "interface", value_name = "IFACE", required = true)]
    interfaces: Vec<String>,

    /// How arriving frames are seen
    #[arg(long, value_enum, default_value_t = Mode::Native)]
    attach: Mode,

    /// How often an unchanged claim is reported by the kernel side; 0 reports every frame
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    refresh: jiff::SignedDuration,

    #[command(flatten)]
    detection: DetectionArguments,
}

/// The numbers of detection.
#[derive(Debug, Args)]
#[command(next_help_heading = "Detection")]
struct DetectionArguments {
    /// Silence of the owner before, until an address counts as moved
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    settle: jiff::SignedDuration,

    /// Time without evidence, until the end of a conflict is looked for
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    resolution_quiet: jiff::SignedDuration,

    /// Time without a second owner, until a quiet conflict ends
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    expiry: jiff::SignedDuration,
}

impl SourceArguments {
    fn settings(&self) -> Settings {
        let refresh_ns = u64::try_from(self.refresh.as_nanos()).unwrap_or(0);
        Settings {
            refresh_ns,
            ..Settings::default()
        }
    }
}

impl DetectionArguments {
    fn config(&self) -> DetectConfig {
        DetectConfig {
            settle: self.settle.unsigned_abs(),
            resolution_quiet: self.resolution_quiet.unsigned_abs(),
            expiry: self.expiry.unsigned_abs(),
            ..DetectConfig::default()
        }
    }
}

/// A running kernel side and its monitor.
pub struct Session {
    pub monitor: MonitorHandle,
    pub counters: CounterReader,
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
    task: JoinHandle<io::Result<()>>,
    interfaces: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Session {
    /// Loads, attaches and starts to watch.
    pub async fn start(arguments: &SourceArguments) -> anyhow::Result<Self> {
        let (mut kernel, rings) = Kernel::load(&LoadOptions::default(), &arguments.settings())?;
        kernel.forward_log();
        let counters = kernel.counters();
        let links = links::follow().await?;
        let interfaces = Interfaces::attach(
            kernel,
            arguments.interfaces.clone(),
            arguments.attach,
            links.clone(),
        )?;
        let watched = interfaces.watched();
        let (monitor, handle) =
            Monitor::new(rings, arguments.detection.config(), links, watched.clone())?;
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(monitor.run(async move {
            // An error means that the session is gone: a reason to stop as well.
            let _ = stopped.wait_for(|&stop| stop).await;
        }));
        let interfaces = tokio::spawn(interfaces.follow());
        Ok(Self {
            monitor: handle,
            counters,
            watched,
            task,
            interfaces,
            stop,
        })
    }

    /// Detaches, judges what is left in the rings and ends.
    pub async fn end(self) -> anyhow::Result<()> {
        // Detaching comes first, so that nothing is emitted that nobody would read.
        self.interfaces.abort();
        let _ = self.interfaces.await;
        self.stop.send_replace(true);
        self.task.await.context("the monitor broke down")??;
        Ok(())
    }
}

/// Completes on SIGTERM or SIGINT.
pub async fn stop_signal() -> io::Result<()> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The runtime of a verb that watches: one worker for detection, one for everything else.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(future)
}

/// Logs to standard error; `RUST_LOG` chooses what.
pub fn init_logging(default: &str) {
    use std::io::IsTerminal as _;
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // Set once at start; a second subscriber would be a mistake of ours, not a reason to stop.
    let _ = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .try_init();
}
