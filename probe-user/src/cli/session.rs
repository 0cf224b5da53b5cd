//! A running kernel side, joined to a monitor: what `run` and `watch` have in common.

use std::{io, sync::Arc};

use anyhow::Context as _;
use probe_datapath::{
    CounterReader, Kernel,
    interfaces::{InterfaceManager, InterfacesHandle},
};
use probe_kubernetes::ClusterHandle;
use probe_model::{BindingRecord, Links, watched::WatchedInterfaces};
use probe_network::{links, neighbours::NeighbourReader};
use probe_prober::{Prober, ProberState};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{broadcast, watch},
    task::JoinHandle,
};

use super::{reload::Reloader, source::SourceArguments};
use crate::daemon::{
    annotate,
    annotate::Annotator,
    monitor::{FINDING_CHANNEL_CAPACITY, Monitor, MonitorHandle},
    segments::SegmentName,
};

/// A running kernel side and its monitor.
pub struct Session {
    pub monitor: MonitorHandle,
    pub counters: CounterReader,
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
    pub links: watch::Receiver<Arc<Links>>,
    pub interface_commands: InterfacesHandle,
    /// Until it begins.
    waiting: Option<Monitor>,
    task: Option<JoinHandle<io::Result<Vec<BindingRecord>>>>,
    interfaces: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Session {
    /// Loads and attaches, to ask or only to listen. Nothing is judged until [`Session::start_monitor`], so whoever listens
    /// before that misses nothing.
    pub async fn start(
        arguments: &SourceArguments,
        asking: Result<Prober, ProberState>,
    ) -> anyhow::Result<Self> {
        let (mut kernel, rings) = Kernel::load(&arguments.load_options(), &arguments.settings())?;
        kernel.watch_only(&arguments.networks()?)?;
        kernel.forward_log();
        let counters = kernel.counters();
        let links = links::follow().await?;
        let (interfaces, interface_commands) =
            InterfaceManager::attach(kernel, arguments.policy(), links.clone()).await?;
        let watched = interfaces.watched();
        let (monitor, handle) = Monitor::new(
            rings,
            arguments.detect_config(),
            asking,
            links.clone(),
            watched.clone(),
        )?;
        Ok(Self {
            monitor: handle,
            counters,
            watched,
            links,
            interface_commands,
            waiting: Some(monitor),
            task: None,
            interfaces: tokio::spawn(interfaces.follow()),
            stop: watch::Sender::new(false),
        })
    }

    /// Takes the names that segments were given. To be called before it begins.
    pub fn name_segments(&mut self, names: Vec<SegmentName>) {
        if let Some(monitor) = &mut self.waiting {
            monitor.name_segments(names);
        }
    }

    /// Follows a cluster, if there is one: expects the addresses of its services, and lets findings go through the
    /// hands of who knows it. To be called before it begins, and before anybody listens.
    pub fn watch_cluster(
        &mut self,
        cluster: &ClusterHandle,
        neighbours: NeighbourReader,
    ) -> Option<Annotator> {
        if !cluster.is_on() {
            return None;
        }
        let (links, watched) = (self.links.clone(), self.watched.clone());
        let expected = crate::daemon::tracking::follow(
            cluster.cluster(),
            links.clone(),
            watched.clone(),
            cluster.segment_coverage().clone(),
        );
        if let Some(monitor) = &mut self.waiting {
            monitor.expect(expected);
        }
        let annotator = Annotator::new(annotate::AnnotatorSources {
            cluster: cluster.cluster(),
            health: cluster.health(),
            nodes: Arc::new(cluster.clone()),
            own_addresses: cluster.node_name().map(str::to_owned),
            monitor: self.monitor.clone(),
            neighbours,
            links,
            watched,
        });
        let (public, _) = broadcast::channel(FINDING_CHANNEL_CAPACITY);
        let raw = self.monitor.findings();
        self.monitor = self.monitor.with_findings(public.clone());
        tokio::spawn(annotator.clone().follow(raw, public));
        Some(annotator)
    }

    /// Begins to judge what the kernel side has seen since it was attached.
    pub fn start_monitor(&mut self) {
        let mut stopped = self.stop.subscribe();
        let run = |monitor: Monitor| {
            tokio::spawn(monitor.run(async move {
                // An error means that the session is gone: a reason to stop as well.
                let _ = stopped.wait_for(|&stop| stop).await;
            }))
        };
        self.task = self.waiting.take().map(run).or(self.task.take());
    }

    /// Detaches, judges what is left in the rings and ends. Returns the bindings whose takeover is not decided.
    pub async fn end(self) -> anyhow::Result<Vec<BindingRecord>> {
        // Detaching comes first, so that nothing is emitted that nobody would read.
        self.interfaces.abort();
        let _ = self.interfaces.await;
        self.stop.send_replace(true);
        match self.task {
            Some(task) => Ok(task.await.context("the monitor broke down")??),
            None => Ok(Vec::new()),
        }
    }
}

/// The signals of a daemon, listened to from when this is made: their default is to end the process, and
/// whoever sends one does not know how far the start has come. What comes early is obeyed later.
pub struct DaemonSignals {
    reload: Signal,
    release: Signal,
}

impl DaemonSignals {
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            reload: listen(SignalKind::hangup())?,
            release: listen(SignalKind::user_defined1())?,
        })
    }

    /// Obeys: SIGHUP reads the settings and the watch filter again, SIGUSR1 releases the XDP slot for somebody
    /// else. The settings are also read when their file changes.
    pub async fn run(mut self, mut reloader: Reloader, interface_commands: InterfacesHandle) {
        loop {
            tokio::select! {
                _ = self.reload.recv() => reloader.reload().await,
                () = reloader.changed() => reloader.reload().await,
                _ = self.release.recv() => interface_commands.release_xdp().await,
            }
        }
    }
}

/// SIGTERM and SIGINT, listened to from when this is made: before anything is attached, so that a signal
/// at any time ends the program in good order.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Completes when one has come.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot wait for signals")
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
    // When a question to netlink is dropped with who asked it, as at the end, its answer is of no use. What the client of
    // Kubernetes cannot do is said by who asked it, once and not at each try.
    let default = format!("{default},netlink_proto=error,kube_client=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // Set once at start; a second subscriber would be a mistake of ours, not a reason to stop.
    let _ = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .try_init();
}
