//! The notifier task, one for each channel. It owns everything that it changes, and reads findings while a message is
//! being delivered, so that nothing waits for a receiver.

use std::{future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use probe_cluster::{ClusterSnapshot, Resource, drift::Drift, snapshot::ResourceState};
use probe_model::{Backoff, FindingRecord, Leadership, Severity};
use tokio::{
    sync::{broadcast, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    counts::{DeliveryResult, NotificationChannel, NotificationCounts},
    gate::{ApiServerState, GateRole, NotificationGate},
    notification::NotificationKind,
    queue::NotificationBatch,
    retry::{NotificationRateLimit, delivery_backoff},
    sink::{DeliveryOutcome, DeliveryReport, NotificationSink},
};

/// Notifications that arrive within this time are one message.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Time limit for the last message at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Which notifications a channel sends, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifierPolicy {
    /// The lowest severity that is sent.
    pub min_severity: Severity,
    /// The number of messages a minute.
    pub per_minute: usize,
}

/// The task of one channel.
#[derive(Debug)]
pub struct Notifier {
    channel: NotificationChannel,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The sources of notifications.
#[derive(Debug)]
pub struct NotifierSources {
    /// The findings.
    pub findings: broadcast::Receiver<Arc<FindingRecord>>,
    /// The cluster; without one this agent always sends.
    pub cluster: Option<NotifierClusterSources>,
}

/// The sources from a cluster.
#[derive(Clone, Debug)]
pub struct NotifierClusterSources {
    /// Whether this agent is the leader.
    pub leadership: watch::Receiver<Leadership>,
    /// The snapshot of the cluster.
    pub cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    /// The current drifts, if drift detection is enabled.
    pub drifts: Option<watch::Receiver<Arc<Vec<Drift>>>>,
}

impl NotifierClusterSources {
    fn api_server(&self) -> ApiServerState {
        let cluster = self.cluster.borrow();
        let services = cluster.objects().freshness.get(&Resource::Services);
        if services.is_some_and(|services| services.state == ResourceState::Stale) {
            ApiServerState::Unreachable
        } else {
            ApiServerState::Reachable
        }
    }
}

impl Notifier {
    /// Starts a notifier that sends new findings to this sink while this agent is the leader.
    pub fn start<S: NotificationSink>(
        sink: S,
        policy: NotifierPolicy,
        sources: NotifierSources,
        counts: Arc<NotificationCounts>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = NotifierTask::new(sink, policy, sources.cluster, counts);
        Self {
            channel: S::CHANNEL,
            stop,
            task: tokio::spawn(task.run(sources.findings, stopped)),
        }
    }

    /// Its channel, what stops it, and its task, for a supervisor to wait for.
    pub fn into_parts(self) -> (NotificationChannel, oneshot::Sender<()>, JoinHandle<()>) {
        (self.channel, self.stop, self.task)
    }

    /// Sends what is in the queue, if the receiver accepts it at once, and ends.
    pub async fn stop(self) {
        // The task may have ended with the monitor.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// A batch that is being delivered.
struct Delivery<S> {
    batch: NotificationBatch,
    result: BoxFuture<'static, (S, DeliveryReport)>,
}

struct NotifierTask<S> {
    gate: NotificationGate,
    cluster: Option<NotifierClusterSources>,
    rate_limit: NotificationRateLimit,
    backoff: Backoff,
    /// When the next message is due.
    due: Option<Instant>,
    delivery: Option<Delivery<S>>,
    /// `None` during a delivery.
    sink: Option<S>,
    counts: Arc<NotificationCounts>,
}

impl<S: NotificationSink> NotifierTask<S> {
    fn new(
        sink: S,
        policy: NotifierPolicy,
        mut cluster: Option<NotifierClusterSources>,
        counts: Arc<NotificationCounts>,
    ) -> Self {
        let role = match &mut cluster {
            Some(cluster) => {
                // The present state counts as a change.
                cluster.leadership.mark_changed();
                cluster.drifts.as_mut().map(watch::Receiver::mark_changed);
                GateRole::Follower
            }
            None => GateRole::Leader,
        };
        Self {
            gate: NotificationGate::new(policy.min_severity, role),
            cluster,
            rate_limit: NotificationRateLimit::new(policy.per_minute),
            backoff: delivery_backoff(),
            due: None,
            delivery: None,
            sink: Some(sink),
            counts,
        }
    }

    async fn run(
        mut self,
        mut findings: broadcast::Receiver<Arc<FindingRecord>>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                finding = findings.recv() => match finding {
                    Ok(record) => self.accept_finding(record),
                    Err(broadcast::error::RecvError::Lagged(missed)) => self.record_missed(missed),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                change = next_change(&mut self.cluster) => self.apply_change(change),
                () = sleep_until_deadline(self.gate.next_deadline()) => self.tick(),
                finished = delivery_finished(&mut self.delivery) => self.finish_delivery(finished),
                () = sleep_until_deadline(self.due) => self.start_delivery(),
            }
            self.schedule();
        }
        // Read the last findings: a conflict may be the reason for the shutdown.
        while let Ok(record) = findings.try_recv() {
            self.accept_finding(record);
        }
        let flushed = timeout(SHUTDOWN_TIMEOUT, self.flush()).await;
        if flushed.is_err() || !self.gate.queue.is_empty() {
            let (channel, pending) = (S::CHANNEL.label(), self.gate.queue.len());
            tracing::warn!(
                channel,
                pending,
                "shutdown before all notifications were sent"
            );
        }
    }

    fn accept_finding(&mut self, record: Arc<FindingRecord>) {
        let dropped = self.gate.accept_finding(record, Instant::now());
        self.counts.add_dropped(S::CHANNEL, dropped);
    }

    fn record_missed(&mut self, missed: u64) {
        tracing::warn!(missed, "findings came faster than they could be read");
        self.counts.add_dropped(S::CHANNEL, missed);
        if self.gate.role() == GateRole::Leader {
            self.gate.queue.count_only(NotificationKind::Missed, missed);
        }
    }

    fn apply_change(&mut self, change: ClusterChange) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let now = Instant::now();
        let dropped = match change {
            ClusterChange::Leadership => {
                let leadership = *cluster.leadership.borrow_and_update();
                tracing::debug!(
                    channel = S::CHANNEL.label(),
                    ?leadership,
                    "leadership changed"
                );
                match leadership {
                    Leadership::Leader(predecessor) => {
                        // The drifts may be the same as before.
                        cluster.drifts.as_mut().map(watch::Receiver::mark_changed);
                        self.gate.become_leader(predecessor, now)
                    }
                    Leadership::Follower => {
                        if self.gate.role() == GateRole::Leader {
                            self.gate.become_follower();
                        }
                        0
                    }
                }
            }
            ClusterChange::Drifts => cluster.drifts.as_mut().map_or(0, |drifts| {
                let drifts = drifts.borrow_and_update().clone();
                self.gate.update_drifts(&drifts, now, Timestamp::now())
            }),
            ClusterChange::DriftsClosed => {
                cluster.drifts = None;
                0
            }
            // As at shutdown: the role is unchanged.
            ClusterChange::LeadershipClosed => {
                self.cluster = None;
                0
            }
        };
        self.counts.add_dropped(S::CHANNEL, dropped);
    }

    fn tick(&mut self) {
        let cluster = self.cluster.as_ref();
        let api_server = cluster.map_or(
            ApiServerState::Reachable,
            NotifierClusterSources::api_server,
        );
        let dropped = self.gate.tick(Instant::now(), Timestamp::now(), api_server);
        self.counts.add_dropped(S::CHANNEL, dropped);
    }

    /// Decides when the next message is due.
    fn schedule(&mut self) {
        self.counts.set_pending(S::CHANNEL, self.gate.queue.len());
        if self.gate.queue.is_empty() || self.delivery.is_some() {
            self.due = None;
        } else if self.due.is_none() {
            self.due = Some(self.after_rate_limit(Instant::now() + BATCH_DELAY));
        }
    }

    fn after_rate_limit(&self, due: Instant) -> Instant {
        self.rate_limit
            .next_slot()
            .map_or(due, |slot| slot.max(due))
    }

    fn start_delivery(&mut self) {
        self.due = None;
        let Some(sink) = self.sink.take() else {
            return;
        };
        let batch = sink.next_batch(&self.gate.queue);
        self.rate_limit.record(Instant::now());
        let result = Box::pin(sink.deliver(batch.clone()));
        self.delivery = Some(Delivery { batch, result });
    }

    fn finish_delivery(&mut self, (batch, sink, report): (NotificationBatch, S, DeliveryReport)) {
        self.sink = Some(sink);
        self.counts.add_dropped(S::CHANNEL, report.dropped);
        let channel = S::CHANNEL.label();
        let error = report.error.unwrap_or_default();
        match report.outcome {
            DeliveryOutcome::Delivered => {
                if self.backoff.failures() > 0 {
                    tracing::info!(channel, "notifications are delivered again");
                }
                self.gate.record_delivered(&batch);
                self.remove_sent(&batch, DeliveryResult::Sent);
            }
            DeliveryOutcome::Retry { after } => {
                self.counts.count(S::CHANNEL, DeliveryResult::Retried);
                self.gate.queue.postpone(&report.blocked);
                let delay = self.backoff.next_delay(fastrand::f64());
                let delay = delay.max(after.unwrap_or_default());
                self.due = Some(self.after_rate_limit(Instant::now() + delay));
                tracing::warn!(
                    channel,
                    error,
                    retry_in = ?delay,
                    pending = self.gate.queue.len(),
                    "delivery failed, retrying"
                );
            }
            DeliveryOutcome::Refused => {
                self.remove_sent(&batch, DeliveryResult::Refused);
                tracing::error!(
                    channel,
                    error,
                    dropped = report.dropped,
                    "notifications refused, not retried: check URL, token and format of the webhook, or the RBAC rules \
                     for Events"
                );
            }
        }
    }

    fn remove_sent(&mut self, batch: &NotificationBatch, result: DeliveryResult) {
        self.backoff.reset();
        self.counts.count(S::CHANNEL, result);
        self.counts.add_dropped(S::CHANNEL, batch.dropped_count());
        self.gate.queue.remove_sent(batch);
    }

    /// Sends the whole queue, unless the receiver fails.
    async fn flush(&mut self) {
        while self.backoff.failures() == 0 {
            if self.delivery.is_none() {
                if self.gate.queue.is_empty() {
                    return;
                }
                self.start_delivery();
            }
            let finished = delivery_finished(&mut self.delivery).await;
            self.finish_delivery(finished);
        }
    }
}

/// A change of the cluster sources.
#[derive(Clone, Copy, Debug)]
enum ClusterChange {
    Leadership,
    LeadershipClosed,
    Drifts,
    DriftsClosed,
}

async fn next_change(cluster: &mut Option<NotifierClusterSources>) -> ClusterChange {
    let Some(cluster) = cluster else {
        return future::pending().await;
    };
    let drifts_changed = async {
        match &mut cluster.drifts {
            Some(drifts) => drifts.changed().await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        // Leadership first: it decides what drifts mean.
        biased;
        changed = cluster.leadership.changed() => {
            changed.map_or(ClusterChange::LeadershipClosed, |()| ClusterChange::Leadership)
        }
        changed = drifts_changed => {
            changed.map_or(ClusterChange::DriftsClosed, |()| ClusterChange::Drifts)
        }
    }
}

/// Completes when the delivery has. Cancel safe.
async fn delivery_finished<S>(
    delivery: &mut Option<Delivery<S>>,
) -> (NotificationBatch, S, DeliveryReport) {
    let Some(running) = delivery else {
        return future::pending().await;
    };
    let (sink, report) = (&mut running.result).await;
    let batch = delivery.take().map(|delivery| delivery.batch);
    (batch.unwrap_or_default(), sink, report)
}

async fn sleep_until_deadline(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use probe_cluster::ClusterObjects;
    use probe_model::{FindingKind, Predecessor};
    use tokio::sync::mpsc;

    use super::{
        super::{
            NotificationChannel, NotificationQueue,
            testing::{drift, record},
        },
        *,
    };

    /// Passes batches on.
    struct ChannelSink(mpsc::UnboundedSender<Vec<NotificationKind>>);

    impl NotificationSink for ChannelSink {
        const CHANNEL: NotificationChannel = NotificationChannel::Webhook;

        fn next_batch(&self, queue: &NotificationQueue) -> NotificationBatch {
            queue.batch(50)
        }

        async fn deliver(self, batch: NotificationBatch) -> (Self, DeliveryReport) {
            let kinds = batch.listed.iter().map(|queued| queued.last.kind);
            self.0.send(kinds.collect()).unwrap();
            let report = DeliveryReport {
                outcome: DeliveryOutcome::Delivered,
                error: None,
                dropped: 0,
                blocked: std::collections::BTreeSet::new(),
            };
            (self, report)
        }
    }

    struct Fixture {
        findings: broadcast::Sender<Arc<FindingRecord>>,
        leadership: watch::Sender<Leadership>,
        drifts: watch::Sender<Arc<Vec<Drift>>>,
        _cluster: watch::Sender<Arc<ClusterSnapshot>>,
        sent: mpsc::UnboundedReceiver<Vec<NotificationKind>>,
        notifier: Notifier,
    }

    fn start() -> Fixture {
        let (findings, received) = broadcast::channel(16);
        let leadership = watch::Sender::default();
        let drifts = watch::Sender::new(Arc::default());
        let snapshot = ClusterSnapshot::from(ClusterObjects::default());
        let cluster = watch::Sender::new(Arc::new(snapshot));
        let (sink, sent) = mpsc::unbounded_channel();
        let sources = NotifierSources {
            findings: received,
            cluster: Some(NotifierClusterSources {
                leadership: leadership.subscribe(),
                cluster: cluster.subscribe(),
                drifts: Some(drifts.subscribe()),
            }),
        };
        let policy = NotifierPolicy {
            min_severity: Severity::Warning,
            per_minute: 10,
        };
        let notifier = Notifier::start(ChannelSink(sink), policy, sources, Arc::default());
        Fixture {
            findings,
            leadership,
            drifts,
            _cluster: cluster,
            sent,
            notifier,
        }
    }

    const LEADER: Leadership = Leadership::Leader(Predecessor::Unknown);

    #[tokio::test(start_paused = true)]
    async fn a_follower_sends_nothing_until_it_becomes_the_leader() {
        let mut fixture = start();
        let conflict = record(1, FindingKind::Conflict, Severity::Critical);
        fixture.findings.send(conflict).unwrap();
        fixture.drifts.send_replace(Arc::new(vec![drift("a")]));
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert_eq!(fixture.sent.recv().now_or_never(), None);
        fixture.leadership.send_replace(LEADER);
        let sent = fixture.sent.recv().await.unwrap();
        let expected = [NotificationKind::Conflict, NotificationKind::Drift];
        assert_eq!(sent, expected);
        fixture.notifier.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_sends_drifts_that_did_not_change_meanwhile() {
        let mut fixture = start();
        fixture.drifts.send_replace(Arc::new(vec![drift("a")]));
        fixture.leadership.send_replace(LEADER);
        let drifted = [NotificationKind::Drift];
        assert_eq!(fixture.sent.recv().await.unwrap(), drifted);
        for leadership in [Leadership::Follower, LEADER] {
            fixture.leadership.send_replace(leadership);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(fixture.sent.recv().await.unwrap(), drifted);
        fixture.notifier.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn pending_notifications_are_sent_at_shutdown() {
        let mut fixture = start();
        fixture.leadership.send_replace(LEADER);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let conflict = record(1, FindingKind::Conflict, Severity::Critical);
        fixture.findings.send(conflict).unwrap();
        fixture.notifier.stop().await;
        let sent = fixture.sent.recv().await.unwrap();
        assert_eq!(sent, [NotificationKind::Conflict]);
    }
}
