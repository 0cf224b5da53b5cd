//! `probe run`: the daemon.

use std::{
    collections::HashMap,
    env,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, Command, FromArgMatches as _};
use probe_datapath::{capabilities, descriptors};
use probe_kubernetes::{ClusterHandle, ClusterTasks};
use probe_model::{FindingKind, FindingRecord, Severity};
use probe_network::neighbours::NeighbourReader;
use probe_notify::{NotificationCounts, Notifier};
use probe_prober::ProberState;
use sd_notify::NotifyState;
use tokio::{
    runtime::Handle,
    sync::{broadcast, oneshot, watch},
    task::{AbortHandle, JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    Exit,
    drift::DriftArguments,
    exit::print_error,
    kubernetes::KubernetesArguments,
    metrics::MetricsArguments,
    notify::{NotifierSetup, NotifyArguments},
    output::{is_closed, print_status},
    probing::ProberArguments,
    reload::Reloader,
    session::{
        DaemonSignals, Session, ShutdownGuard, StopSignal, block_on, exit_on_panic, health_runtime,
        init_daemon_logging,
    },
    source::SourceArguments,
    watch::NO_SOCKET,
};
use crate::{
    daemon::{
        annotate::Annotator,
        drift_reconciler,
        drift_reconciler::ClusterStatusHandle,
        drill::DrillSlot,
        health::{HealthEvaluator, HealthSources},
        history::FindingHistory,
        segments::SegmentName,
        serve,
        serve::{ApiSocket, ApiSources, DEFAULT_PATH, MetricsSources, RefusedConnections},
        supervisor::{DRIVER_STALL_LIMIT, Heartbeats, STALL_LIMIT, Supervisor, TaskFailure},
    },
    log_writer::LogWriter,
    settings::{Invocation, LoadedSettings, SettingsError},
};

/// Prometheus' list of default ports is full; this port is beyond it, and contains the number of the ARP RFC, 826.
const DEFAULT_LISTEN: &str = "127.0.0.1:10826";

/// The name of this command.
const VERB: &str = "run";

/// Minimum interval between log lines about one address.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Time limit for shutdown, including the release of the Lease and the last notifications.
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// The number of watchdog notifications per period.
const WATCHDOG_DIVISOR: u32 = 3;

#[derive(Debug, Args)]
#[command(
    after_help = "Each flag is also an environment variable (--listen: ARP_MONITOR_LISTEN) and a key of the settings \
                  file (listen). Flags override environment variables, which override the file."
)]
pub struct RunArguments {
    /// Read settings from this YAML file. It is reloaded when it changes, and on SIGHUP
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the settings in force with their sources, and exit; exits 2 if they are invalid
    #[arg(long)]
    check_config: bool,

    /// Serve /metrics, /healthz and /readyz on this address
    #[arg(long, value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,

    /// Serve findings and state on this Unix socket, to root and its group; `none` for no socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,

    #[command(flatten)]
    metrics: MetricsArguments,

    #[command(flatten)]
    prober: ProberArguments,

    #[command(flatten)]
    notify: NotifyArguments,

    #[command(flatten)]
    kubernetes: KubernetesArguments,

    #[command(flatten)]
    drift: DriftArguments,

    // Last, because its help heading applies to all following flags.
    #[command(flatten, next_help_heading = "Interfaces")]
    source: SourceArguments,
}

impl RunArguments {
    /// The interfaces, kernel-side settings and detection settings.
    pub const fn source(&self) -> &SourceArguments {
        &self.source
    }

    /// The segment names.
    pub fn segments(&self) -> &[SegmentName] {
        &self.metrics.segments
    }
}

pub fn run(command: Command) -> anyhow::Result<Exit> {
    let read = Invocation::new(command, VERB, env::args_os().collect(), env::vars_os()).and_then(
        |invocation| {
            let loaded = invocation.load()?;
            let arguments = RunArguments::from_arg_matches(&loaded.matches)?;
            Ok((invocation, loaded, arguments))
        },
    );
    let (invocation, loaded, arguments) = match read {
        Ok(read) => read,
        Err(SettingsError::Usage(error)) => error.exit(),
        Err(error) => return Ok(print_config_error(&error.into())),
    };
    if arguments.check_config {
        // Files that flags refer to are read as well.
        let networks = arguments.source.networks().map(drop);
        if let Err(error) = networks.and_then(|()| arguments.notify.check()) {
            return Ok(print_config_error(&error));
        }
        warn_of_unknown_variables(&invocation, |text| print_status(&format!("probe: {text}")));
        return match io::stdout().lock().write_all(loaded.show().as_bytes()) {
            Err(error) if !is_closed(&error) => {
                Err(error).context("cannot write to standard output")
            }
            _ => Ok(Exit::Success),
        };
    }
    if let Err(error) = arguments.notify.settings() {
        return Ok(print_config_error(&error));
    }
    // Checked first, so that the most important reason is reported.
    probe_datapath::preflight::check()?;
    // Reading them requires more capabilities than are kept.
    probe_datapath::program_list::read();
    // Requires CAP_SYS_RESOURCE, which is dropped next.
    probe_datapath::preflight::raise_memlock_limit();
    // Before any thread is started, so that all threads have only the kept capabilities.
    let prober = arguments.prober.initial_state();
    capabilities::drop_others(prober == ProberState::On).context("cannot drop capabilities")?;
    check_descriptors()?;
    // If a thread cannot be created, the runtime panics and leaves other threads waiting.
    exit_on_panic();
    let logs = DaemonLogs {
        stderr: init_daemon_logging("info").context("cannot start the log writer")?,
        stdout: LogWriter::start("stdout", io::stdout()).context("cannot start the log writer")?,
    };
    warn_of_unknown_variables(&invocation, |text| tracing::warn!("{text}"));
    let health = health_runtime()?;
    let shared = DaemonParts {
        logs: logs.clone(),
        health: health.handle().clone(),
    };
    let result = block_on(daemon(arguments, prober, invocation, loaded, shared));
    health.shutdown_background();
    logs.flush();
    result
}

/// The parts that outlive the daemon task.
struct DaemonParts {
    logs: DaemonLogs,
    /// The runtime of health checks, metrics and watchdog.
    health: Handle,
}

/// Standard output and standard error of the daemon, which never waits for their readers.
#[derive(Clone, Debug)]
struct DaemonLogs {
    stderr: LogWriter,
    stdout: LogWriter,
}

impl DaemonLogs {
    fn all(&self) -> Vec<LogWriter> {
        vec![self.stderr.clone(), self.stdout.clone()]
    }

    /// Waits a moment for the readers at the end.
    fn flush(&self) {
        for writer in self.all() {
            writer.flush();
        }
    }
}

/// Raises the limit of file descriptors, and rejects a limit that clients of the daemon could exhaust.
fn check_descriptors() -> anyhow::Result<()> {
    let limit = descriptors::raise_limit();
    if let Some(limit) = limit.filter(|&limit| limit < descriptors::MIN_DESCRIPTORS) {
        bail!(
            "the limit of {limit} file descriptors is too low: the daemon needs {} (ulimit -n, LimitNOFILE=)",
            descriptors::MIN_DESCRIPTORS
        );
    }
    Ok(())
}

fn print_config_error(error: &anyhow::Error) -> Exit {
    print_error(error);
    Exit::Usage
}

fn warn_of_unknown_variables(invocation: &Invocation, warn: impl Fn(&str)) {
    for name in invocation.unknown_variables() {
        warn(&format!("unknown environment variable {name} is ignored"));
    }
}

async fn daemon(
    arguments: RunArguments,
    prober: ProberState,
    invocation: Invocation,
    loaded: LoadedSettings,
    DaemonParts {
        logs,
        health: health_runtime,
    }: DaemonParts,
) -> anyhow::Result<Exit> {
    let signals = DaemonSignals::listen()?;
    let mut stop = StopSignal::listen()?;
    let guard = ShutdownGuard::start().context("cannot start the thread that bounds shutdown")?;
    let listener = serve::bind(arguments.listen).with_context(|| {
        format!(
            "cannot listen on {} (is another probe running? --listen sets another ADDR:PORT)",
            arguments.listen
        )
    })?;
    let has_socket = arguments.socket.as_os_str() != NO_SOCKET;
    let socket = has_socket.then(|| ApiSocket::bind(&arguments.socket));
    let socket = socket.transpose()?;
    let (cluster, cluster_tasks) = arguments.kubernetes.start().await?;
    let prober = arguments.prober.open(prober);
    let prober = prober.map(|prober| prober.with_leadership(cluster.is_leader()));
    let mut session = Session::start(&arguments.source, prober).await?;
    session.name_segments(arguments.metrics.segments);
    let neighbours = NeighbourReader::open().context("cannot open a netlink socket")?;
    let annotator = session.watch_cluster(&cluster, neighbours.clone());
    let drills = DrillSlot::default();
    let findings = session.monitor.findings();
    session
        .tasks
        .spawn("conflict_log", log_conflicts(findings, logs.stdout.clone()));
    let reloader = Reloader::new(invocation, loaded, &session);
    let config = reloader.outcome();
    let signals = signals.run(reloader, session.interface_commands.clone());
    session
        .tasks
        .spawn_fallible("signals", DRIVER_STALL_LIMIT, async {
            signals.await;
            Ok::<_, String>(())
        });
    let cluster_status =
        start_drift_reconciler(&arguments.drift, &cluster, &mut session, annotator.clone());
    let notifications = Arc::<NotificationCounts>::default();
    let notifiers = NotifierSetup {
        findings: session.monitor.findings(),
        cluster: &cluster,
        cluster_status: &cluster_status,
        counts: notifications.clone(),
    }
    .start(&arguments.notify)?;
    let refused_connections = Arc::<RefusedConnections>::default();
    let api = socket.map(|socket| {
        let known = (annotator.clone(), cluster_status.clone());
        let refused = refused_connections.clone();
        serve_api(socket, &mut session, drills.clone(), known, refused)
    });
    session.start_monitor();

    let last_tasks = LastTasks::supervise(&mut session.tasks, cluster_tasks, notifiers);
    let (health, registry) = HealthEvaluator::new(HealthSources {
        monitor: session.monitor.clone(),
        counters: session.counters.clone(),
        watched: session.watched.clone(),
        links: session.links.clone(),
        selection: arguments.source.policy().selection,
        cluster: cluster.clone(),
        notifications: notifications.clone(),
        heartbeats: session.tasks.heartbeats(),
        log_writers: logs.all(),
    });
    session
        .tasks
        .spawn_on(&health_runtime, "health", health.run());
    let sources = MetricsSources {
        monitor: session.monitor.clone(),
        counters: session.counters.clone(),
        watched: session.watched.clone(),
        links: session.links.clone(),
        neighbours,
        drills,
        annotator,
        addresses: arguments.metrics.addresses,
        config,
        notifications,
        cluster,
        cluster_status,
        health: registry,
        log_writers: logs.all(),
        refused_connections,
    };
    let server = session.tasks.spawn_on(
        &health_runtime,
        "metrics_server",
        serve::serve(listener, sources),
    );
    tracing::info!(address = %arguments.listen, "serving /metrics, /healthz and /readyz");
    start_watchdog(&mut session.tasks, &health_runtime);
    notify_service_manager(NotifyState::Ready);
    let failure = tokio::select! {
        () = stop.received() => None,
        failure = session.tasks.failure() => Some(failure),
    };
    guard.begin();
    server.abort();
    shut_down(session, api, last_tasks, failure).await
}

/// Stops all tasks in order, within [`STOP_LIMIT`].
async fn shut_down(
    mut session: Session,
    api: Option<AbortHandle>,
    last_tasks: LastTasks,
    failure: Option<TaskFailure>,
) -> anyhow::Result<Exit> {
    notify_service_manager(NotifyState::Stopping);
    if let Some(failure) = &failure {
        tracing::error!(%failure, "stopping");
    } else {
        tracing::info!("stopping");
    }
    // The socket is removed first, so that no client connects and waits.
    if let Some(api) = api {
        api.abort();
        let _ = session.tasks.join(&api).await;
    }
    let stopped = timeout(STOP_LIMIT, async {
        let ended = session.end().await;
        last_tasks.end(&mut session.tasks).await;
        ended
    });
    let ended = stopped.await;
    if ended.is_err() {
        tracing::warn!("the API server or a webhook did not reply in time: stopping without it");
    }
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    if let Ok(Err(error)) = ended {
        return Err(error);
    }
    Ok(Exit::Success)
}

/// The tasks that end last: leader election and notifiers.
struct LastTasks {
    leadership: watch::Sender<bool>,
    election: Option<AbortHandle>,
    notifiers: Vec<(oneshot::Sender<()>, AbortHandle)>,
}

impl LastTasks {
    /// Registers the tasks with the supervisor.
    fn supervise(tasks: &mut Supervisor, cluster: ClusterTasks, notifiers: Vec<Notifier>) -> Self {
        let mut adopt =
            |name: &str, task: JoinHandle<()>| tasks.spawn_fallible(name, STALL_LIMIT, task);
        let (leadership, cluster) = cluster.into_parts();
        let mut election = None;
        for (name, task) in cluster {
            let handle = adopt(name, task);
            if name == ClusterTasks::LEADER_ELECTION {
                election = Some(handle);
            }
        }
        let notifiers = notifiers.into_iter().map(|notifier| {
            let (channel, stop, task) = notifier.into_parts();
            (stop, adopt(&format!("notifier_{}", channel.label()), task))
        });
        let notifiers = notifiers.collect();
        Self {
            leadership,
            election,
            notifiers,
        }
    }

    /// Releases the Lease, sends the pending notifications, and ends the tasks.
    async fn end(self, tasks: &mut Supervisor) {
        self.leadership.send_replace(true);
        if let Some(election) = &self.election {
            // Its result no longer matters.
            let _ = tasks.join(election).await;
        }
        for (stop, notifier) in self.notifiers {
            // The task may have ended with the monitor.
            let _ = stop.send(());
            let _ = tasks.join(&notifier).await;
        }
    }
}

/// Starts the drift reconciler, if there is a cluster.
fn start_drift_reconciler(
    arguments: &DriftArguments,
    cluster: &ClusterHandle,
    session: &mut Session,
    annotator: Option<Annotator>,
) -> ClusterStatusHandle {
    let Some(annotator) = annotator else {
        return ClusterStatusHandle::off();
    };
    let sources = drift_reconciler::DriftReconcilerSources {
        handle: cluster.clone(),
        annotator,
        monitor: session.monitor.clone(),
        watched: session.watched.clone(),
    };
    let (status, reconciler) = drift_reconciler::start(sources, arguments.drift_after);
    session.tasks.spawn("drift_reconciler", reconciler);
    status
}

/// Notifies systemd, if it started the daemon with `Type=notify`.
fn notify_service_manager(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Starts to notify the watchdog of systemd, if there is one.
fn start_watchdog(tasks: &mut Supervisor, runtime: &Handle) {
    if let Some(period) = sd_notify::watchdog_enabled() {
        let watchdog = notify_watchdog(period / WATCHDOG_DIVISOR, tasks.heartbeats());
        tasks.spawn_on(runtime, "watchdog", watchdog);
    }
}

/// Notifies the watchdog of systemd (`WatchdogSec=`) as long as every task has a recent heartbeat.
async fn notify_watchdog(period: Duration, heartbeats: Heartbeats) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_recent = true;
    loop {
        ticks.tick().await;
        let is_recent = heartbeats.are_all_recent();
        if is_recent {
            // Sending blocks while the service manager does not read: only this task waits then. An error means that the
            // runtime is shutting down.
            let _ = spawn_blocking(|| notify_service_manager(NotifyState::Watchdog)).await;
        } else if was_recent {
            tracing::error!("a task is stuck: the watchdog is not notified");
        }
        was_recent = is_recent;
    }
}

/// Starts to record the last findings, and serves them and the state of detection on the socket.
fn serve_api(
    socket: ApiSocket,
    session: &mut Session,
    drills: DrillSlot,
    (annotator, cluster_status): (Option<Annotator>, ClusterStatusHandle),
    refused_connections: Arc<RefusedConnections>,
) -> AbortHandle {
    let history = FindingHistory::default();
    let findings = session.monitor.findings();
    session
        .tasks
        .spawn("history", history.clone().record_findings(findings));
    let sources = ApiSources {
        monitor: session.monitor.clone(),
        watched: session.watched.clone(),
        links: session.links.clone(),
        interface_commands: session.interface_commands.clone(),
        history,
        drills,
        annotator,
        cluster_status,
        refused_connections,
    };
    tracing::info!(socket = %socket.path().display(), "serving findings and state");
    session
        .tasks
        .spawn("api_server", serve::serve_api(socket, sources))
}

/// Writes opened and closed conflicts to standard output, one JSON object a line.
async fn log_conflicts(mut findings: broadcast::Receiver<Arc<FindingRecord>>, out: LogWriter) {
    let mut last: HashMap<(String, String, IpAddr, FindingKind, Severity), Instant> =
        HashMap::new();
    loop {
        let record = match findings.recv().await {
            Ok(record) => record,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "findings came faster than they could be logged");
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if !record.finding.is_logged() {
            continue;
        }
        let now = Instant::now();
        last.retain(|_, logged| now.duration_since(*logged) < LOG_INTERVAL);
        let key = (
            record.interface.clone(),
            record.vlan.to_string(),
            record.ip,
            record.finding,
            // A finding that is repeated with a higher severity is not a repetition.
            record.severity,
        );
        if last.insert(key, now).is_none() {
            out.write_line(format!("{}\n", record.to_json()).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, ffi::OsString, fs};

    use clap::CommandFactory as _;
    use tempfile::TempDir;

    use super::*;
    use crate::{cli::Cli, settings::SettingOrigin};

    const EXAMPLE: &str = include_str!("../../../deploy/config.example.yaml");
    const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

    /// Flags that are not settings of the file.
    const NO_SETTINGS: [&str; 3] = ["config", "check-config", "help"];

    fn flags() -> BTreeSet<String> {
        let command = Cli::command();
        let run = command.find_subcommand(VERB).unwrap();
        let flags = run.get_arguments().map(|flag| flag.get_long().unwrap());
        flags
            .filter(|flag| !NO_SETTINGS.contains(flag))
            .map(str::to_owned)
            .collect()
    }

    fn load(variable: Option<(String, &str)>, file: &str) -> Result<LoadedSettings, SettingsError> {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("config.yaml");
        fs::write(&path, file).unwrap();
        let words = ["probe", VERB, "--config", path.to_str().unwrap()].map(OsString::from);
        let variables = variable.map(|(name, value)| (name.into(), value.into()));
        Invocation::new(Cli::command(), VERB, words.to_vec(), variables)?.load()
    }

    fn origin(loaded: &LoadedSettings, key: &str) -> SettingOrigin {
        let setting = loaded.settings.iter().find(|setting| setting.key == key);
        setting.unwrap().origin.clone()
    }

    #[test]
    fn flags_variables_and_keys_correspond_exactly() {
        let keys = load(None, "{}").unwrap().settings;
        let keys: BTreeSet<_> = keys.into_iter().map(|setting| setting.key).collect();
        assert_eq!(keys, flags());
        for flag in flags() {
            // The value is accepted or rejected under this name.
            match load(None, &format!("{flag}: \"!\"\n")) {
                Ok(loaded) => assert_eq!(origin(&loaded, &flag), SettingOrigin::Line(1)),
                Err(SettingsError::Value { key, .. }) => assert_eq!(key, flag),
                Err(other) => panic!("{flag}: {other}"),
            }
            let name = format!("ARP_MONITOR_{}", flag.to_uppercase().replace('-', "_"));
            match load(Some((name.clone(), "!")), "{}") {
                Ok(loaded) => assert_eq!(origin(&loaded, &flag), SettingOrigin::Variable(name)),
                Err(SettingsError::Variable { variable, .. }) => assert_eq!(variable, name),
                Err(other) => panic!("{flag}: {other}"),
            }
        }
    }

    #[test]
    fn example_has_every_key_and_defaults_except_where_marked_example() {
        let example = load(None, EXAMPLE).unwrap();
        RunArguments::from_arg_matches(&example.matches).unwrap();
        let keys = EXAMPLE
            .lines()
            .filter(|line| line.starts_with(char::is_alphabetic));
        let keys: BTreeSet<_> = keys
            .filter_map(|line| line.split_once(':'))
            .map(|(key, _)| key.to_owned())
            .collect();
        assert_eq!(keys, flags());
        let defaults = load(None, "{}").unwrap();
        let is_example = |key: &str| {
            let mut lines = EXAMPLE
                .lines()
                .skip_while(|line| !line.starts_with(&format!("{key}:")));
            lines.next().is_some_and(|line| line.contains("Example"))
                || lines
                    .take_while(|line| line.starts_with(' '))
                    .any(|line| line.contains("Example"))
        };
        for (example, default) in example.settings.iter().zip(&defaults.settings) {
            if !is_example(&example.key) {
                assert_eq!(example.values, default.values, "{}", example.key);
            }
        }
    }

    #[test]
    fn example_in_the_documentation_is_valid() {
        let (_, rest) = DOCUMENTATION.split_once("```yaml\n").unwrap();
        let (yaml, _) = rest.split_once("```").unwrap();
        let loaded = load(None, yaml).unwrap();
        RunArguments::from_arg_matches(&loaded.matches).unwrap();
        assert_eq!(origin(&loaded, "ignore"), SettingOrigin::Line(6));
    }

    #[test]
    fn shown_example_settings_round_trip() {
        let example = load(None, EXAMPLE).unwrap();
        let again = load(None, &example.show()).unwrap();
        let changed = crate::settings::changed(&example.settings, &again.settings);
        assert_eq!(changed, [""; 0], "{}", example.show());
    }
}
