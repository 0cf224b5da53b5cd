//! A running kernel side, joined to a monitor: what `run` and `watch` have in common.

use std::{io, sync::Arc};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use super::source::SourceArguments;
use crate::{
    interfaces::{Interfaces, InterfacesHandle, WatchedInterfaces},
    kernel::{CounterReader, Kernel},
    links::{self, Links},
    monitor::{Monitor, MonitorHandle},
};

/// A running kernel side and its monitor.
pub struct Session {
    pub monitor: MonitorHandle,
    pub counters: CounterReader,
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
    pub links: watch::Receiver<Arc<Links>>,
    pub orders: InterfacesHandle,
    task: JoinHandle<io::Result<()>>,
    interfaces: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Session {
    /// Loads, attaches and starts to watch.
    pub async fn start(arguments: &SourceArguments) -> anyhow::Result<Self> {
        let (mut kernel, rings) = Kernel::load(&arguments.load_options(), &arguments.settings())?;
        kernel.watch_only(&arguments.networks()?)?;
        kernel.forward_log();
        let counters = kernel.counters();
        let links = links::follow().await?;
        let (interfaces, orders) =
            Interfaces::attach(kernel, arguments.policy(), links.clone()).await?;
        let watched = interfaces.watched();
        let (monitor, handle) = Monitor::new(
            rings,
            arguments.detect_config(),
            links.clone(),
            watched.clone(),
        )?;
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
            links,
            orders,
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

/// Obeys the signals of a daemon: SIGHUP reads the watch filter again, SIGUSR1 releases the XDP slot for
/// somebody else.
pub async fn obey_signals(arguments: SourceArguments, orders: InterfacesHandle) -> io::Result<()> {
    let mut reload = signal(SignalKind::hangup())?;
    let mut release = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = reload.recv() => match reload_filter(&arguments, &orders).await {
                Ok(networks) => tracing::info!(networks, "the watch filter was read again"),
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "the watch filter stays as it was"
                ),
            },
            _ = release.recv() => orders.release_xdp().await,
        }
    }
}

async fn reload_filter(
    arguments: &SourceArguments,
    orders: &InterfacesHandle,
) -> anyhow::Result<usize> {
    let networks = arguments.networks()?;
    let count = networks.len();
    orders.watch_only(networks).await?;
    Ok(count)
}

/// Completes on SIGTERM or SIGINT.
pub async fn stop_signal() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
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
