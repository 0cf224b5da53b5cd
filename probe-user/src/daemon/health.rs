//! The health of each component, for `/healthz` and `/readyz`.
//!
//! One task evaluates it twice a second, so a request costs nothing, and a stuck evaluation is itself unhealthy.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use probe_cluster::snapshot::ResourceState;
use probe_common::{
    counter::{Direction, EmitOutcome},
    wire::FrameKind,
};
use probe_datapath::{
    CounterReader,
    interfaces::{InterfaceSelection, NamePattern},
};
use probe_kubernetes::ClusterHandle;
use probe_model::{
    Link, Links,
    watched::{WatchState, WatchedInterfaces},
};
use probe_notify::{NotificationChannel, NotificationCounts};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    daemon::{
        monitor::{MonitorHandle, MonitorSnapshot, MonitorStopped},
        supervisor::{Heartbeats, STALL_LIMIT},
    },
    log_writer::LogWriter,
};

/// The evaluation interval.
const EVALUATION_INTERVAL: Duration = Duration::from_millis(500);

/// After a longer gap than this between two evaluations the whole process was stopped: a task that has not had a
/// heartbeat meanwhile is not stuck.
const PAUSE: Duration = Duration::from_secs(2);

/// Time limit for an overdue evaluation.
const EVALUATION_TIMEOUT: Duration = Duration::from_secs(1);

/// The time for which a loss of frames or lines stays visible.
const LOSS_VISIBLE: Duration = Duration::from_mins(1);

/// The time after which waiting notifications become visible.
const DELIVERY_LIMIT: Duration = Duration::from_mins(1);

/// The health state of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// It works.
    Healthy,
    /// The daemon works with restrictions: visible, but still ready.
    Degraded,
    /// The daemon does not do its work: not ready.
    Unhealthy,
}

/// What an unhealthy component means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthScope {
    /// A restart may help: `/healthz` fails too.
    Process,
    /// A restart does not help: only `/readyz` fails.
    Environment,
}

/// The health of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentHealth {
    /// Its name, like `link/eth0`.
    pub component: String,
    /// The health of this writer.
    pub state: HealthState,
    /// The time since which it has been in this state.
    pub since: Timestamp,
    /// Why it is not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip)]
    scope: HealthScope,
}

/// The health of all components: one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// The worst state among them.
    pub status: HealthState,
    /// The components.
    pub components: Vec<ComponentHealth>,
}

impl HealthReport {
    fn new(components: Vec<ComponentHealth>) -> Self {
        let worst = components.iter().map(|component| component.state).max();
        Self {
            status: worst.unwrap_or(HealthState::Healthy),
            components,
        }
    }

    /// Whether the daemon does its work.
    pub fn is_ready(&self) -> bool {
        self.status != HealthState::Unhealthy
    }

    /// Whether no restart is needed.
    pub fn is_live(&self) -> bool {
        !self.components.iter().any(|component| {
            component.state == HealthState::Unhealthy && component.scope == HealthScope::Process
        })
    }

    /// A line for each component that is not healthy.
    pub fn problems(&self) -> String {
        let mut text = String::new();
        for component in &self.components {
            let state = match component.state {
                HealthState::Healthy => continue,
                HealthState::Degraded => "degraded",
                HealthState::Unhealthy => "unhealthy",
            };
            let reason = component.reason.as_deref().unwrap_or_default();
            let (name, since) = (component.component.as_str(), component.since);
            text.extend([
                name,
                ": ",
                state,
                " since ",
                &since.to_string(),
                ": ",
                reason,
                "\n",
            ]);
        }
        text
    }
}

/// The evaluation of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Evaluation {
    component: String,
    state: HealthState,
    reason: Option<String>,
    scope: HealthScope,
}

impl Evaluation {
    fn healthy(component: impl Into<String>) -> Self {
        Self {
            component: component.into(),
            state: HealthState::Healthy,
            reason: None,
            scope: HealthScope::Environment,
        }
    }

    fn degraded(component: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            state: HealthState::Degraded,
            reason: Some(reason.into()),
            ..Self::healthy(component)
        }
    }

    fn unhealthy(component: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            state: HealthState::Unhealthy,
            reason: Some(reason.into()),
            ..Self::healthy(component)
        }
    }

    fn of_process(self) -> Self {
        Self {
            scope: HealthScope::Process,
            ..self
        }
    }
}

/// The last evaluation. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct HealthRegistry(watch::Sender<EvaluatedHealth>);

#[derive(Clone, Debug, Default)]
struct EvaluatedHealth {
    components: Vec<ComponentHealth>,
    at: Option<Instant>,
}

impl EvaluatedHealth {
    fn is_old(&self) -> bool {
        self.at.is_none_or(|at| at.elapsed() > STALL_LIMIT)
    }
}

impl HealthRegistry {
    fn update(&self, evaluations: Vec<Evaluation>, now: Timestamp) {
        let mut since: HashMap<_, _> = self
            .0
            .borrow()
            .components
            .iter()
            .map(|component| {
                let state = (component.state, component.since);
                (component.component.clone(), state)
            })
            .collect();
        let components = evaluations
            .into_iter()
            .map(|evaluation| {
                let Evaluation {
                    component,
                    state,
                    reason,
                    scope,
                } = evaluation;
                let since = match since.remove(&component) {
                    Some((previous, since)) if previous == state => since,
                    _ => now,
                };
                ComponentHealth {
                    component,
                    state,
                    since,
                    reason,
                    scope,
                }
            })
            .collect();
        self.0.send_replace(EvaluatedHealth {
            components,
            at: Some(Instant::now()),
        });
    }

    /// The current health of all components. If the last evaluation is old, waits for the next one, which follows at
    /// once after a pause of the whole process.
    pub async fn report(&self) -> HealthReport {
        let mut health = self.0.subscribe();
        if health.borrow_and_update().is_old() {
            // The check below shows whether it was evaluated.
            let _ = timeout(EVALUATION_TIMEOUT, health.changed()).await;
        }
        let health = health.borrow().clone();
        let is_old = health.is_old();
        let mut components = health.components;
        if is_old {
            components.push(ComponentHealth {
                component: "health".to_owned(),
                state: HealthState::Unhealthy,
                since: Timestamp::now(),
                reason: Some("the health of the components is not being evaluated".to_owned()),
                scope: HealthScope::Process,
            });
        }
        HealthReport::new(components)
    }
}

/// The sources for the evaluation.
pub struct HealthSources {
    /// Detection.
    pub monitor: MonitorHandle,
    /// The counters of the BPF programs.
    pub counters: CounterReader,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
    /// All interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// The selection of interfaces.
    pub selection: InterfaceSelection,
    /// The cluster.
    pub cluster: ClusterHandle,
    /// The counts of notifications.
    pub notifications: Arc<NotificationCounts>,
    /// The heartbeats of the tasks.
    pub heartbeats: Heartbeats,
    /// Standard output and standard error.
    pub log_writers: Vec<LogWriter>,
}

type PendingSnapshot =
    Pin<Box<dyn Future<Output = Result<MonitorSnapshot, MonitorStopped>> + Send>>;

/// Evaluates the health.
pub struct HealthEvaluator {
    sources: HealthSources,
    registry: HealthRegistry,
    /// The time of a request to detection without a reply so far.
    requested: Option<Instant>,
    stopped: bool,
    evaluated: Instant,
    losses: HashMap<String, Loss>,
    pending_since: HashMap<&'static str, Instant>,
}

/// A count of losses, and when it last grew.
#[derive(Clone, Copy, Debug, Default)]
struct Loss {
    count: u64,
    grew: Option<Instant>,
}

impl HealthEvaluator {
    /// Evaluates the health of these for the first time.
    pub fn new(sources: HealthSources) -> (Self, HealthRegistry) {
        let registry = HealthRegistry::default();
        let mut evaluator = Self {
            sources,
            registry: registry.clone(),
            requested: None,
            stopped: false,
            evaluated: Instant::now(),
            losses: HashMap::new(),
            pending_since: HashMap::new(),
        };
        evaluator.evaluate();
        (evaluator, registry)
    }

    /// Evaluates the health periodically.
    pub async fn run(mut self) {
        let mut ticks = interval(EVALUATION_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut snapshot: Option<PendingSnapshot> = None;
        loop {
            let reply = async {
                match &mut snapshot {
                    Some(snapshot) => snapshot.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                reply = reply => {
                    self.stopped = reply.is_err();
                    self.requested = None;
                    snapshot = None;
                }
                _ = ticks.tick() => {
                    self.evaluate();
                    if snapshot.is_none() {
                        let monitor = self.sources.monitor.clone();
                        snapshot = Some(Box::pin(async move { monitor.snapshot().await }));
                        self.requested = Some(Instant::now());
                    }
                }
            }
        }
    }

    fn evaluate(&mut self) {
        let now = Instant::now();
        let was_paused = now.duration_since(self.evaluated) > PAUSE;
        self.evaluated = now;
        let mut evaluations = Vec::new();
        if was_paused {
            // Each task has until the next evaluation to send a heartbeat.
            self.requested = self.requested.map(|_| now);
        }
        evaluations.extend(self.tasks(was_paused));
        evaluations.push(self.detection(now));
        evaluations.push(self.rings(now));
        evaluations.extend(self.interfaces());
        evaluations.extend(self.cluster(now));
        evaluations.extend(self.notifications(now));
        evaluations.extend(self.log_writers(now));
        self.registry.update(evaluations, Timestamp::now());
    }

    fn tasks(&self, was_paused: bool) -> Vec<Evaluation> {
        let ages = self.sources.heartbeats.ages();
        ages.into_iter()
            .map(|heartbeat| {
                let component = format!("task/{}", heartbeat.task);
                if heartbeat.stuck && !was_paused {
                    let seconds = heartbeat.age.as_secs();
                    Evaluation::unhealthy(component, format!("no heartbeat for {seconds} s"))
                } else {
                    Evaluation::healthy(component)
                }
                .of_process()
            })
            .collect()
    }

    fn detection(&self, now: Instant) -> Evaluation {
        let waiting = self.requested.map(|at| now.duration_since(at));
        if self.stopped {
            Evaluation::unhealthy("detection", "detection has stopped")
        } else if let Some(waiting) = waiting.filter(|&waiting| waiting > STALL_LIMIT) {
            let seconds = waiting.as_secs();
            Evaluation::unhealthy("detection", format!("no reply for {seconds} s"))
        } else {
            Evaluation::healthy("detection")
        }
        .of_process()
    }

    fn rings(&mut self, now: Instant) -> Evaluation {
        let watched = self.sources.watched.borrow().clone();
        let mut lost = 0;
        for interface in watched.iter() {
            for &direction in Direction::ALL {
                match self.sources.counters.read(interface.ifindex, direction) {
                    Ok(counters) => {
                        let counters = counters.unwrap_or_default();
                        lost += FrameKind::ALL
                            .iter()
                            .map(|&kind| ring_full(&counters.outcomes(kind)))
                            .sum::<u64>();
                    }
                    Err(error) => return Evaluation::unhealthy("rings", error.to_string()),
                }
            }
        }
        let recent = self.recent_loss("rings", lost, now);
        if recent {
            let reason = "events were dropped because a ring was full, in the last minute";
            Evaluation::degraded("rings", reason)
        } else {
            Evaluation::healthy("rings")
        }
    }

    fn interfaces(&self) -> Vec<Evaluation> {
        let watched = self.sources.watched.borrow().clone();
        let links = self.sources.links.borrow().clone();
        interface_evaluations(&watched, &links, &self.sources.selection)
    }

    fn cluster(&mut self, now: Instant) -> Vec<Evaluation> {
        if !self.sources.cluster.is_on() {
            return Vec::new();
        }
        let snapshot = self.sources.cluster.cluster().borrow().clone();
        let mut evaluations: Vec<_> = snapshot
            .objects()
            .freshness
            .iter()
            .map(|(resource, freshness)| {
                let component = format!("api_watcher/{}", resource.label());
                match freshness.state {
                    // A cluster without MetalLB has no such resource.
                    ResourceState::Current | ResourceState::NotInstalled => {
                        Evaluation::healthy(component)
                    }
                    state @ (ResourceState::Stale
                    | ResourceState::NeverRead
                    | ResourceState::Forbidden) => Evaluation::degraded(component, state.label()),
                }
            })
            .collect();
        let lost = self.sources.cluster.health().lost_findings();
        let recent = self.recent_loss("annotation", lost, now);
        evaluations.push(if recent {
            let reason = "findings were not annotated in time, in the last minute";
            Evaluation::degraded("annotation", reason)
        } else {
            Evaluation::healthy("annotation")
        });
        evaluations
    }

    fn notifications(&mut self, now: Instant) -> Vec<Evaluation> {
        NotificationChannel::ALL
            .iter()
            .map(|&channel| {
                let component = format!("notifications/{}", channel.label());
                let pending = self.sources.notifications.pending(channel);
                if pending == 0 {
                    self.pending_since.remove(channel.label());
                    return Evaluation::healthy(component);
                }
                let since = *self.pending_since.entry(channel.label()).or_insert(now);
                if now.duration_since(since) > DELIVERY_LIMIT {
                    let reason = format!("{pending} notifications are not delivered");
                    Evaluation::degraded(component, reason)
                } else {
                    Evaluation::healthy(component)
                }
            })
            .collect()
    }

    fn log_writers(&mut self, now: Instant) -> Vec<Evaluation> {
        let writers: Vec<_> = self
            .sources
            .log_writers
            .iter()
            .map(LogWriter::health)
            .collect();
        writers
            .into_iter()
            .map(|writer| {
                let component = format!("log/{}", writer.name);
                let recent = self.recent_loss(&component, writer.dropped, now);
                let blocked = writer.blocked_for.filter(|&time| time > STALL_LIMIT);
                if let Some(error) = writer.error {
                    Evaluation::degraded(component, error)
                } else if let Some(blocked) = blocked {
                    let seconds = blocked.as_secs();
                    Evaluation::degraded(component, format!("not read for {seconds} s"))
                } else if recent {
                    let reason = "lines were dropped in the last minute";
                    Evaluation::degraded(component, reason)
                } else {
                    Evaluation::healthy(component)
                }
            })
            .collect()
    }

    /// Whether a count of losses has grown in the last minute.
    fn recent_loss(&mut self, of: &str, count: u64, now: Instant) -> bool {
        let loss = self.losses.entry(of.to_owned()).or_default();
        if count > loss.count {
            loss.grew = Some(now);
        }
        loss.count = count;
        loss.grew
            .is_some_and(|grew| now.duration_since(grew) < LOSS_VISIBLE)
    }
}

fn ring_full(outcomes: &[u64]) -> u64 {
    EmitOutcome::ALL
        .iter()
        .zip(outcomes)
        .filter(|(outcome, _)| **outcome == EmitOutcome::RingFull)
        .map(|(_, count)| *count)
        .sum()
}

/// An interface selected by name has to be attached and up. Of the others one is enough: a server may have interfaces
/// without a cable.
fn interface_evaluations(
    watched: &WatchedInterfaces,
    links: &Links,
    selection: &InterfaceSelection,
) -> Vec<Evaluation> {
    let is_up = |ifindex| links.get(ifindex).is_some_and(Link::is_operational);
    let any_up = watched.iter().any(|watched| is_up(watched.ifindex));
    let mut evaluations = vec![if watched.iter().next().is_some() {
        Evaluation::healthy("interfaces")
    } else {
        Evaluation::unhealthy("interfaces", "no interface is watched")
    }];
    for interface in watched.iter() {
        let component = format!("interface/{}", interface.name);
        evaluations.push(match &interface.state {
            WatchState::Attached { .. } => Evaluation::healthy(component),
            WatchState::Failed { reason } => Evaluation::unhealthy(component, reason.clone()),
        });
        let component = format!("link/{}", interface.name);
        let mut names = selection.include.iter().filter_map(NamePattern::as_name);
        let is_named = names.any(|name| name == interface.name);
        evaluations.push(if is_up(interface.ifindex) {
            Evaluation::healthy(component)
        } else if is_named || !any_up {
            Evaluation::unhealthy(component, "the link is down")
        } else {
            Evaluation::degraded(component, "the link is down")
        });
    }
    evaluations
}

#[cfg(test)]
mod tests {
    use probe_model::watched::{AttachPlan, AttachReason, AttachedMode, WatchedInterface};

    use super::*;

    fn watched(interfaces: &[(u32, &str)]) -> WatchedInterfaces {
        let plan = AttachPlan {
            mode: AttachedMode::Tc,
            reason: AttachReason::Requested,
        };
        let interfaces = interfaces.iter().map(|&(ifindex, name)| WatchedInterface {
            ifindex,
            name: name.to_owned(),
            state: WatchState::Attached {
                plan,
                vlan_visible: true,
            },
        });
        interfaces.collect()
    }

    fn links(links: &[(u32, bool)]) -> Links {
        let links = links.iter().map(|&(index, carrier)| Link {
            index,
            up: true,
            carrier,
            ..Link::default()
        });
        links.collect()
    }

    fn state_of(evaluations: &[Evaluation], component: &str) -> HealthState {
        let found = evaluations
            .iter()
            .find(|evaluation| evaluation.component == component);
        found.unwrap().state
    }

    #[test]
    fn interface_named_explicitly_must_be_up() {
        let named = InterfaceSelection {
            include: vec!["eth1".parse().unwrap()],
            exclude: Vec::new(),
        };
        let watched = watched(&[(1, "eth0"), (2, "eth1")]);
        let one_up = links(&[(1, true), (2, false)]);
        let named = interface_evaluations(&watched, &one_up, &named);
        assert_eq!(state_of(&named, "link/eth0"), HealthState::Healthy);
        assert_eq!(state_of(&named, "link/eth1"), HealthState::Unhealthy);
        let default = InterfaceSelection::default();
        let by_default = interface_evaluations(&watched, &one_up, &default);
        assert_eq!(state_of(&by_default, "link/eth1"), HealthState::Degraded);
        let all_down = links(&[(1, false), (2, false)]);
        let all_down = interface_evaluations(&watched, &all_down, &default);
        assert_eq!(state_of(&all_down, "link/eth0"), HealthState::Unhealthy);
    }

    #[test]
    fn no_interface_or_a_failed_attachment_is_unhealthy() {
        let default = InterfaceSelection::default();
        let none = interface_evaluations(&WatchedInterfaces::default(), &links(&[]), &default);
        assert_eq!(state_of(&none, "interfaces"), HealthState::Unhealthy);
        let failed = [WatchedInterface {
            ifindex: 1,
            name: "eth0".to_owned(),
            state: WatchState::Failed {
                reason: "eth0 is gone".to_owned(),
            },
        }];
        let failed = failed.into_iter().collect();
        let failed = interface_evaluations(&failed, &links(&[(1, true)]), &default);
        assert_eq!(state_of(&failed, "interface/eth0"), HealthState::Unhealthy);
    }

    #[tokio::test]
    async fn a_state_has_the_time_since_when_it_holds() {
        let registry = HealthRegistry::default();
        let times: Vec<Timestamp> = [10, 20, 30]
            .map(|second| Timestamp::from_second(second).unwrap())
            .to_vec();
        registry.update(vec![Evaluation::healthy("rings")], times[0]);
        registry.update(vec![Evaluation::degraded("rings", "lost")], times[1]);
        registry.update(vec![Evaluation::degraded("rings", "lost")], times[2]);
        let report = registry.report().await;
        assert_eq!(report.components[0].since, times[1]);
        assert_eq!(report.status, HealthState::Degraded);
        assert!(report.is_ready() && report.is_live());
        assert!(report.problems().starts_with("rings: degraded since 1970"));
    }

    #[tokio::test]
    async fn only_restartable_failures_fail_the_liveness_check() {
        let registry = HealthRegistry::default();
        let now = Timestamp::UNIX_EPOCH;
        registry.update(vec![Evaluation::unhealthy("link/eth0", "down")], now);
        let report = registry.report().await;
        assert!(!report.is_ready() && report.is_live());
        let stuck = Evaluation::unhealthy("task/detection", "stuck").of_process();
        registry.update(vec![stuck], now);
        assert!(!registry.report().await.is_live());
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_evaluation_it_is_not_healthy() {
        let report = HealthRegistry::default().report().await;
        assert!(!report.is_ready() && !report.is_live());
    }
}
