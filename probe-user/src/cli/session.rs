//! The loaded BPF programs and the monitor: the common part of `run` and `watch`.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::unix::net::UnixStream,
    panic, process,
    sync::Arc,
    thread,
    time::Duration,
};

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
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{broadcast, oneshot, watch},
    task::AbortHandle,
};
use tracing_subscriber::{EnvFilter, fmt, fmt::MakeWriter};

use super::{reload::Reloader, source::SourceArguments};
use crate::{
    daemon::{
        annotate,
        annotate::Annotator,
        monitor::{FINDING_CHANNEL_CAPACITY, Monitor, MonitorHandle},
        segments::SegmentName,
        supervisor::{DRIVER_STALL_LIMIT, STALL_LIMIT, Supervisor},
    },
    log_writer::LogWriter,
};

/// Time limit for shutdown; after it the process exits in any state.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Time limit for blocked threads at shutdown.
const BLOCKED_THREADS_LIMIT: Duration = Duration::from_millis(200);

/// The error for an exhausted thread limit.
const THREADS_NEEDED: &str = "cannot create threads (limit of processes: ulimit -u, TasksMax=)";

/// Threads of the runtime: one for detection, one for everything else.
const WORKER_THREADS: usize = 2;

/// The loaded BPF programs and their monitor.
pub struct Session {
    pub monitor: MonitorHandle,
    pub counters: CounterReader,
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
    pub links: watch::Receiver<Arc<Links>>,
    pub interface_commands: InterfacesHandle,
    /// All tasks.
    pub tasks: Supervisor,
    /// The monitor until it starts.
    waiting: Option<Monitor>,
    detection: Option<(AbortHandle, oneshot::Receiver<Vec<BindingRecord>>)>,
    interfaces: AbortHandle,
    stop: watch::Sender<bool>,
}

impl Session {
    /// Loads and attaches the programs. Detection starts with [`Session::start_monitor`]; subscribers before that miss
    /// nothing.
    pub async fn start(
        arguments: &SourceArguments,
        prober: Result<Prober, ProberState>,
    ) -> anyhow::Result<Self> {
        let (mut kernel, rings) = Kernel::load(&arguments.load_options(), &arguments.settings())?;
        kernel.set_watch_filter(&arguments.networks()?)?;
        let mut tasks = Supervisor::default();
        if let Some(log) = kernel.forward_log() {
            tasks.spawn_optional("bpf_log", log);
        }
        let counters = kernel.counters();
        let (links, link_watcher) = links::link_watcher().await?;
        tasks.spawn("links", link_watcher);
        let (interfaces, interface_commands) =
            InterfaceManager::attach(kernel, arguments.policy(), links.clone()).await?;
        let watched = interfaces.watched();
        let (monitor, handle) = Monitor::new(
            rings,
            arguments.detect_config(),
            prober,
            links.clone(),
            watched.clone(),
        )?;
        let interfaces = tasks.spawn_fallible("interfaces", DRIVER_STALL_LIMIT, interfaces.run());
        Ok(Self {
            monitor: handle,
            counters,
            watched,
            links,
            interface_commands,
            tasks,
            waiting: Some(monitor),
            detection: None,
            interfaces,
            stop: watch::Sender::new(false),
        })
    }

    /// Sets the segment names. Must be called before detection starts.
    pub fn name_segments(&mut self, names: Vec<SegmentName>) {
        if let Some(monitor) = &mut self.waiting {
            monitor.name_segments(names);
        }
    }

    /// Watches a cluster, if there is one: tracks the addresses of its services, and annotates findings. Must be called
    /// before detection starts and before anyone subscribes to findings.
    pub fn watch_cluster(
        &mut self,
        cluster: &ClusterHandle,
        neighbours: NeighbourReader,
    ) -> Option<Annotator> {
        if !cluster.is_on() {
            return None;
        }
        let (links, watched) = (self.links.clone(), self.watched.clone());
        let (expected, tracking) = crate::daemon::tracking::follow(
            cluster.cluster(),
            links.clone(),
            watched.clone(),
            cluster.segment_coverage().clone(),
        );
        self.tasks.spawn("tracking", tracking);
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
        self.tasks
            .spawn("annotation", annotator.clone().follow(raw, public));
        Some(annotator)
    }

    /// Starts detection with the events since the programs were attached.
    pub fn start_monitor(&mut self) {
        let Some(monitor) = self.waiting.take() else {
            return;
        };
        let mut stopped = self.stop.subscribe();
        let run = monitor.run(async move {
            // An error means that the session was dropped, which stops the task as well.
            let _ = stopped.wait_for(|&stop| stop).await;
        });
        let (send, undecided) = oneshot::channel();
        let detection = self.tasks.spawn_fallible("detection", STALL_LIMIT, async {
            // The session may have been dropped.
            let _ = send.send(run.await?);
            Ok::<_, io::Error>(())
        });
        self.detection = Some((detection, undecided));
    }

    /// Detaches the programs, processes the remaining events and ends. Returns the bindings with a pending takeover.
    pub async fn end(&mut self) -> anyhow::Result<Vec<BindingRecord>> {
        // Detach first, so that no event is emitted that would not be read.
        self.interfaces.abort();
        // It was asked to end.
        let _ = self.tasks.join(&self.interfaces).await;
        self.stop.send_replace(true);
        let Some((detection, undecided)) = self.detection.take() else {
            return Ok(Vec::new());
        };
        self.tasks.join(&detection).await?;
        // A task that ended without an error has sent them.
        Ok(undecided.await.unwrap_or_default())
    }
}

/// The signals of a daemon, handled from the creation of this value: their default action ends the process, and a
/// sender does not know whether the start is complete. An early signal takes effect later.
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

    /// SIGHUP reloads the settings and the watch filter, SIGUSR1 releases the XDP slot for another program. The
    /// settings are also reloaded when their file changes.
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

/// SIGTERM and SIGINT, handled from the creation of this value, before anything is attached, so that a signal at any
/// time leads to an orderly shutdown.
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

    /// Completes when a signal has arrived.
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

/// Runs a future on the runtime for watching: one worker for detection, one for all other tasks.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    check_threads().context(THREADS_NEEDED)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        // The first thread for blocking work is created below and stays, so that later work always has one.
        .thread_keep_alive(Duration::MAX)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        tokio::task::spawn_blocking(|| {})
            .await
            .context("cannot start the runtime")?;
        future.await
    });
    // A thread blocked by a full pipe does not prevent the exit.
    runtime.shutdown_timeout(BLOCKED_THREADS_LIMIT);
    result
}

/// The runtime of health checks, metrics and the watchdog. It has its own worker, because a task that blocks its worker
/// also delays other tasks scheduled on it.
pub fn health_runtime() -> anyhow::Result<Runtime> {
    check_threads().context(THREADS_NEEDED)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("health")
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Creates as many threads as the runtime will, because the runtime panics if one cannot be created.
fn check_threads() -> io::Result<()> {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let mut threads = Vec::new();
    let mut created = Ok(());
    // The workers, one thread for blocking work, and one spare.
    for _ in 0..WORKER_THREADS + 2 {
        let wait = wait.clone();
        let thread = thread::Builder::new().spawn(move || {
            // Until the sender is dropped.
            drop(wait.lock().map(|wait| wait.recv()));
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                created = Err(error);
                break;
            }
        }
    }
    drop(release);
    for thread in threads {
        // The thread does nothing that could panic.
        let _ = thread.join();
    }
    created
}

/// Ends a stuck process five seconds after SIGTERM, SIGINT or [`ShutdownGuard::begin`], on a thread of its own that
/// does not depend on the runtime.
#[derive(Debug)]
pub struct ShutdownGuard(UnixStream);

impl ShutdownGuard {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (trigger, mut triggered) = UnixStream::pair()?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::low_level::pipe::register(signal, trigger.try_clone()?)?;
        }
        thread::Builder::new()
            .name("shutdown".to_owned())
            .spawn(move || {
                // An error is no reason to end the process.
                if triggered.read_exact(&mut [0]).is_ok() {
                    thread::sleep(SHUTDOWN_LIMIT);
                    signal_hook::low_level::exit(super::Exit::Failed as i32);
                }
            })?;
        Ok(Self(trigger))
    }

    /// Starts the time limit.
    pub fn begin(&self) {
        // It fails only after many calls.
        let _ = (&self.0).write(&[0]);
    }
}

/// Initialises logging to standard error; `RUST_LOG` sets the filter.
pub fn init_logging(default: &str) {
    init_logging_to(default, io::stderr);
}

/// Initialises logging for the daemon, which never waits for the reader of its log. Panics are logged too, because a
/// direct write to standard error could block.
pub fn init_daemon_logging(default: &str) -> io::Result<LogWriter> {
    let writer = LogWriter::start("stderr", io::stderr())?;
    init_logging_to(default, writer.clone());
    panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(writer)
}

fn init_logging_to(default: &str, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    // Replies to dropped netlink requests, as at shutdown, are not needed. Errors of the Kubernetes client are logged
    // by its callers, once instead of at each attempt.
    let default = format!("{default},netlink_proto=error,kube_client=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // Set once at start; a second subscriber is no reason to stop.
    let _ = fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .try_init();
}

/// Ends the process if a thread panics: during the start a panic may leave other threads waiting.
pub fn exit_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        process::exit(super::Exit::Failed as i32);
    }));
}
