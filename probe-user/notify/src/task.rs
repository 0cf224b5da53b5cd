//! The task that joins the parts, one for each channel: hears, waits its turn, sends. It owns everything that it changes;
//! while a message is on its way it goes on hearing, so that nothing waits for a receiver.

use std::{collections::BTreeSet, future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use probe_cluster::{ClusterSnapshot, Resource, drift::Drift, snapshot::ResourceState};
use probe_kubernetes::{ApiConnection, LeaderHandover};
use probe_model::{FindingRecord, Severity};
use tokio::{
    sync::{broadcast, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    counts::{DeliveryResult, NotificationChannel, NotificationCounts},
    events::EventWriter,
    gate::{GateRole, NotificationGate},
    message::{self, MessageReporter, WebhookFormat},
    notification::{NotificationKind, NotificationSubject},
    queue::{NotificationBatch, NotificationQueue},
    retry::{DeliveryBackoff, DeliveryOutcome, NotificationRateLimit},
    webhook::{Webhook, WebhookSettings},
};

/// What comes in a burst is one message.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Addresses about which Events are written at once…
const EVENTS: usize = 20;
/// …and how often in a minute.
const EVENT_BATCHES: usize = 6;
/// For a last message when the daemon ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// How and what to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierSettings {
    /// How messages are sent.
    pub webhook: WebhookSettings,
    /// As what.
    pub format: WebhookFormat,
    /// What matters at least so much is told.
    pub min_severity: Severity,
    /// So many messages a minute at most.
    pub per_minute: usize,
}

/// A webhook that is served by a task of its own.
#[derive(Debug)]
pub struct Notifier {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What there is to tell, and whose turn it is.
#[derive(Debug)]
pub struct NotifierSources {
    /// What is found.
    pub findings: broadcast::Receiver<Arc<FindingRecord>>,
    /// What a cluster says; without one it is always our turn.
    pub cluster: Option<NotifierClusterSources>,
}

/// What there is where a cluster is followed.
#[derive(Clone, Debug)]
pub struct NotifierClusterSources {
    /// Whether this daemon holds the lease.
    pub leadership: watch::Receiver<bool>,
    /// What holders of the lease have told.
    pub handover: LeaderHandover,
    /// How long a drift lasts before it is one.
    pub drift_after: Duration,
    /// What is known of the cluster.
    pub cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    /// The drifts that hold now, if somebody looks for them.
    pub drifts: Option<watch::Receiver<Arc<Vec<Drift>>>>,
}

impl NotifierClusterSources {
    /// Whether the API server is away.
    fn is_standby(&self) -> bool {
        let cluster = self.cluster.borrow();
        let services = cluster.objects().freshness.get(&Resource::Services);
        services.is_some_and(|services| services.known == ResourceState::Stale)
    }
}

impl Notifier {
    /// Tells what is found from now on, while it is this daemon's turn.
    pub fn start(
        settings: NotifierSettings,
        sources: NotifierSources,
        counts: Arc<NotificationCounts>,
    ) -> Self {
        let sink = NotificationSink::Webhook {
            webhook: Webhook::new(settings.webhook),
            format: settings.format,
            reporter: MessageReporter::this_host(),
        };
        let rate_limit = NotificationRateLimit::new(settings.per_minute);
        Self::deliver(
            NotificationChannel::Webhook,
            sink,
            settings.min_severity,
            rate_limit,
            sources,
            counts,
        )
    }

    /// Writes Events on the Services that what is found from now on is about, while it is this daemon's turn.
    pub fn write_events(
        connection: ApiConnection,
        findings: broadcast::Receiver<Arc<FindingRecord>>,
        cluster: NotifierClusterSources,
        instance: String,
        counts: Arc<NotificationCounts>,
    ) -> Self {
        let writer = EventWriter::new(connection, cluster.cluster.clone(), instance);
        let sources = NotifierSources {
            findings,
            cluster: Some(cluster),
        };
        let sink = NotificationSink::Events(writer);
        let rate_limit = NotificationRateLimit::new(EVENT_BATCHES);
        Self::deliver(
            NotificationChannel::Event,
            sink,
            Severity::Info,
            rate_limit,
            sources,
            counts,
        )
    }

    fn deliver(
        channel: NotificationChannel,
        sink: NotificationSink,
        min_severity: Severity,
        rate_limit: NotificationRateLimit,
        sources: NotifierSources,
        counts: Arc<NotificationCounts>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let NotifierSources { findings, cluster } = sources;
        let (duty, drift_after) = match &cluster {
            Some(cluster) => (GateRole::Standby, cluster.drift_after),
            None => (GateRole::Leader, Duration::ZERO),
        };
        let task = NotifierTask {
            gate: NotificationGate::new(min_severity, duty, drift_after),
            cluster,
            rate_limit,
            backoff: DeliveryBackoff::default(),
            due: None,
            in_flight: None,
            sink: Some(sink),
            channel,
            counts,
        };
        Self {
            stop,
            task: tokio::spawn(task.run(findings, stopped)),
        }
    }

    /// Tells what there is, if the receiver takes it at once, and ends.
    pub async fn end(self) {
        // The task may have ended with the monitor.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// How notification get to somebody.
#[derive(Debug)]
enum NotificationSink {
    Webhook {
        webhook: Webhook,
        format: WebhookFormat,
        reporter: MessageReporter,
    },
    Events(EventWriter),
}

/// What came of carrying something.
#[derive(Debug)]
struct SinkOutcome {
    sink: NotificationSink,
    outcome: DeliveryOutcome,
    error: Option<String>,
    /// What was too much, or refused.
    dropped: u64,
    /// What keeps others waiting.
    stuck: BTreeSet<NotificationSubject>,
}

impl NotificationSink {
    /// What is carried at once.
    fn batch(&self, queue: &NotificationQueue) -> NotificationBatch {
        match self {
            Self::Webhook { format, .. } => queue.batch(format.listed()),
            Self::Events(_) => queue.first(EVENTS),
        }
    }

    async fn deliver(self, batch: NotificationBatch) -> SinkOutcome {
        match self {
            Self::Webhook {
                webhook,
                format,
                reporter,
            } => {
                let body = message::body(format, &batch, &reporter, Timestamp::now());
                let (webhook, outcome, error) = webhook.send(body).await;
                let dropped = match outcome {
                    DeliveryOutcome::Refused => batch.listed.len(),
                    DeliveryOutcome::Delivered | DeliveryOutcome::Retry { .. } => 0,
                };
                SinkOutcome {
                    sink: Self::Webhook {
                        webhook,
                        format,
                        reporter,
                    },
                    outcome,
                    error: error.map(|error| error.to_string()),
                    dropped: u64::try_from(dropped).unwrap_or(u64::MAX),
                    stuck: BTreeSet::new(),
                }
            }
            Self::Events(writer) => {
                let (writer, written) = writer.write(batch).await;
                SinkOutcome {
                    sink: Self::Events(writer),
                    outcome: written.outcome,
                    error: written.error.map(|error| error.to_string()),
                    dropped: written.lost,
                    stuck: written.stuck,
                }
            }
        }
    }
}

struct NotifierTask {
    gate: NotificationGate,
    cluster: Option<NotifierClusterSources>,
    rate_limit: NotificationRateLimit,
    backoff: DeliveryBackoff,
    /// When the next message is due.
    due: Option<Instant>,
    /// The message that is being sent, and what sends it.
    in_flight: Option<(NotificationBatch, BoxFuture<'static, SinkOutcome>)>,
    /// Here, unless it is being used.
    sink: Option<NotificationSink>,
    channel: NotificationChannel,
    counts: Arc<NotificationCounts>,
}

impl NotifierTask {
    async fn run(
        mut self,
        mut findings: broadcast::Receiver<Arc<FindingRecord>>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        if let Some(cluster) = &mut self.cluster {
            // What is so from the start is notification to us.
            cluster.leadership.mark_changed();
            cluster.drifts.as_mut().map(watch::Receiver::mark_changed);
        }
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                heard = findings.recv() => match heard {
                    Ok(record) => self.accept_finding(record),
                    Err(broadcast::error::RecvError::Lagged(missed)) => self.on_missed(missed),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                change = changed(&mut self.cluster) => self.on_change(change),
                () = at(self.gate.next_deadline()) => self.tick(),
                sent = delivery_finished(&mut self.in_flight) => self.finish_batch(sent),
                () = at(self.due) => self.send(),
            }
            self.plan();
        }
        // What was heard last: a conflict may be why the daemon ends.
        while let Ok(record) = findings.try_recv() {
            self.accept_finding(record);
        }
        if timeout(SHUTDOWN_TIMEOUT, self.flush_on_shutdown())
            .await
            .is_err()
            || !self.gate.queue.is_empty()
        {
            let notification = self.gate.queue.len();
            tracing::warn!(
                channel = self.channel.label(),
                notification,
                "not everything was told before the end"
            );
        }
    }

    fn accept_finding(&mut self, record: Arc<FindingRecord>) {
        let dropped = self.gate.accept_finding(record, Instant::now());
        self.counts.add_dropped(self.channel, dropped);
    }

    /// Findings came faster than they could be heard: which, nobody knows.
    fn on_missed(&mut self, missed: u64) {
        tracing::warn!(missed, "findings came faster than they could be told");
        self.counts.add_dropped(self.channel, missed);
        if self.gate.duty() == GateRole::Leader {
            self.gate.queue.count_only(NotificationKind::Missed, missed);
        }
    }

    fn on_change(&mut self, change: GateChange) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let (now, time) = (Instant::now(), Timestamp::now());
        let dropped = match change {
            GateChange::Leadership => {
                let is_ours = *cluster.leadership.borrow_and_update();
                if is_ours != (self.gate.duty() == GateRole::Leader) {
                    let channel = self.channel.label();
                    tracing::info!(channel, is_ours, "who tells has changed");
                }
                if is_ours {
                    // Where it was another's for a moment only, nobody else forgot them, and they do not change.
                    cluster.drifts.as_mut().map(watch::Receiver::mark_changed);
                    let before = cluster.handover.predecessor_state(self.channel.label());
                    self.gate.become_leader(before, now)
                } else {
                    self.gate.end();
                    0
                }
            }
            GateChange::Drifts => match &mut cluster.drifts {
                Some(drifts) => {
                    let drifts = drifts.borrow_and_update().clone();
                    self.gate.look(&drifts, now, time)
                }
                None => 0,
            },
            // Nobody looks for them any more.
            GateChange::DriftsClosed => {
                cluster.drifts = None;
                0
            }
            // Whoever could say whose turn it is is gone, as at the end: it stays as it is.
            GateChange::LeadershipClosed => {
                self.cluster = None;
                0
            }
        };
        self.counts.add_dropped(self.channel, dropped);
        self.record_notified();
    }

    /// Says what was told, so that it is not told again when another holds the lease.
    fn record_notified(&mut self) {
        if let Some(cluster) = &self.cluster
            && self.gate.duty() == GateRole::Leader
        {
            let told = self.gate.notified_digests(Instant::now());
            cluster.handover.record_notified(self.channel.label(), told);
        }
    }

    fn tick(&mut self) {
        let is_away = self
            .cluster
            .as_ref()
            .is_some_and(NotifierClusterSources::is_standby);
        let dropped = self.gate.tick(Instant::now(), Timestamp::now(), is_away);
        self.counts.add_dropped(self.channel, dropped);
        self.record_notified();
    }

    /// Decides when the next message is due.
    fn plan(&mut self) {
        self.counts.set_waiting(self.channel, self.gate.queue.len());
        if self.gate.queue.is_empty() || self.in_flight.is_some() {
            self.due = None;
        } else if self.due.is_none() {
            let gathered = Instant::now() + BATCH_DELAY;
            let allowed = self.rate_limit.next();
            self.due = Some(allowed.map_or(gathered, |allowed| allowed.max(gathered)));
        }
    }

    fn send(&mut self) {
        self.due = None;
        let Some(sink) = self.sink.take() else {
            return;
        };
        let batch = sink.batch(&self.gate.queue);
        self.rate_limit.record(Instant::now());
        self.in_flight = Some((batch.clone(), Box::pin(sink.deliver(batch))));
    }

    fn finish_batch(&mut self, (batch, sent): (NotificationBatch, SinkOutcome)) {
        let SinkOutcome {
            sink,
            outcome,
            error,
            dropped,
            stuck,
        } = sent;
        self.sink = Some(sink);
        self.counts.add_dropped(self.channel, dropped);
        let (channel, error) = (self.channel.label(), error.unwrap_or_default());
        match outcome {
            DeliveryOutcome::Delivered => {
                if self.backoff.failures() > 0 {
                    tracing::info!(channel, "messages are taken again");
                }
                self.backoff.on_success();
                self.remove_sent(&batch, DeliveryResult::Sent);
                tracing::debug!(channel, notification = batch.listed.len(), "told");
            }
            DeliveryOutcome::Retry { after } => {
                self.counts.count(self.channel, DeliveryResult::Retried);
                self.gate.queue.postpone(&stuck);
                let wait = self.backoff.on_failure(after, fastrand::f64());
                let again = Instant::now() + wait;
                let allowed = self.rate_limit.next();
                self.due = Some(allowed.map_or(again, |allowed| allowed.max(again)));
                tracing::warn!(
                    channel,
                    error,
                    retry_in = ?wait,
                    waiting = self.gate.queue.len(),
                    "not told"
                );
            }
            DeliveryOutcome::Refused => {
                self.backoff.on_success();
                self.remove_sent(&batch, DeliveryResult::Refused);
                tracing::error!(
                    channel,
                    error,
                    lost = dropped,
                    "refused, and not sent again: see address, secret and format of a webhook, and the roles of the \
                     manifests for Events"
                );
            }
        }
    }

    fn remove_sent(&mut self, batch: &NotificationBatch, ending: DeliveryResult) {
        self.counts.count(self.channel, ending);
        self.counts.add_dropped(self.channel, batch.dropped_count());
        self.gate.queue.remove_sent(batch);
        self.record_notified();
    }

    async fn flush_on_shutdown(&mut self) {
        // Whoever does not answer is not waited for at the end.
        if self.backoff.failures() == 0 {
            loop {
                if self.in_flight.is_none() {
                    if self.gate.queue.is_empty() {
                        return;
                    }
                    self.send();
                }
                let sent = delivery_finished(&mut self.in_flight).await;
                self.finish_batch(sent);
                if self.backoff.failures() > 0 {
                    return;
                }
            }
        }
    }
}

/// What has changed of a cluster.
#[derive(Clone, Copy, Debug)]
enum GateChange {
    Leadership,
    Drifts,
    DriftsClosed,
    LeadershipClosed,
}

async fn changed(cluster: &mut Option<NotifierClusterSources>) -> GateChange {
    let Some(cluster) = cluster else {
        return future::pending().await;
    };
    tokio::select! {
        // Whose turn it is comes first: it decides what drifts mean.
        biased;
        changed = cluster.leadership.changed() => changed.map_or(GateChange::LeadershipClosed, |()| GateChange::Leadership),
        changed = drifts_changed(&mut cluster.drifts) => {
            if changed { GateChange::Drifts } else { GateChange::DriftsClosed }
        }
    }
}

/// Completes when there are other drifts: whether there can be.
async fn drifts_changed(drifts: &mut Option<watch::Receiver<Arc<Vec<Drift>>>>) -> bool {
    match drifts {
        Some(drifts) => drifts.changed().await.is_ok(),
        None => future::pending().await,
    }
}

/// Completes when a message has been sent, or not. To be given up at any time.
async fn delivery_finished(
    in_flight: &mut Option<(NotificationBatch, BoxFuture<'static, SinkOutcome>)>,
) -> (NotificationBatch, SinkOutcome) {
    let Some((_, sending)) = in_flight else {
        return future::pending().await;
    };
    let sent = sending.await;
    let batch = in_flight.take().map(|(batch, _)| batch);
    (batch.unwrap_or_default(), sent)
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use probe_cluster::ClusterObjects;

    use super::{super::drifts::tests::drift, *};

    #[tokio::test(start_paused = true)]
    async fn what_is_found_is_not_forgotten_when_the_lease_was_lost_for_a_moment() {
        let leadership = watch::Sender::new(false);
        let drifts = watch::Sender::new(Arc::new(vec![drift("a")]));
        let cluster =
            watch::Sender::new(Arc::new(ClusterSnapshot::from(ClusterObjects::default())));
        let handover = LeaderHandover::default();
        let mut task = NotifierTask {
            gate: NotificationGate::new(Severity::Warning, GateRole::Standby, Duration::ZERO),
            cluster: Some(NotifierClusterSources {
                leadership: leadership.subscribe(),
                handover: handover.clone(),
                drift_after: Duration::ZERO,
                cluster: cluster.subscribe(),
                drifts: Some(drifts.subscribe()),
            }),
            rate_limit: NotificationRateLimit::new(10),
            backoff: DeliveryBackoff::default(),
            due: None,
            in_flight: None,
            sink: None,
            channel: NotificationChannel::Webhook,
            counts: Arc::default(),
        };
        let heed = |task: &mut NotifierTask| {
            while let Some(change) = changed(&mut task.cluster).now_or_never() {
                task.on_change(change);
            }
        };
        leadership.send_replace(true);
        heed(&mut task);
        let batch = task.gate.queue.batch(10);
        assert_eq!(batch.listed.len(), 1);
        task.remove_sent(&batch, DeliveryResult::Sent);
        let told = handover.predecessor_state("webhook").told;
        assert_eq!(told.len(), 1);

        leadership.send_replace(false);
        heed(&mut task);
        leadership.send_replace(true);
        heed(&mut task);
        assert!(task.gate.queue.is_empty(), "it was told");
        // It goes: whoever still knows it tells that.
        drifts.send_replace(Arc::default());
        heed(&mut task);
        tokio::time::advance(Duration::from_secs(15)).await;
        task.tick();
        let batch = task.gate.queue.batch(10);
        let kinds: Vec<_> = batch
            .listed
            .iter()
            .map(|notification| notification.last.kind)
            .collect();
        assert_eq!(kinds, [NotificationKind::DriftGone]);
        task.remove_sent(&batch, DeliveryResult::Sent);
        assert!(handover.predecessor_state("webhook").told.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_told_is_taken_out_of_the_lease_when_it_is_not_found() {
        let leadership = watch::Sender::new(true);
        let cluster =
            watch::Sender::new(Arc::new(ClusterSnapshot::from(ClusterObjects::default())));
        let handover = LeaderHandover::default();
        handover.record_notified("webhook", BTreeSet::from([7]));
        let sources = NotifierClusterSources {
            leadership: leadership.subscribe(),
            handover: handover.clone(),
            drift_after: Duration::ZERO,
            cluster: cluster.subscribe(),
            drifts: None,
        };
        let mut task = NotifierTask {
            gate: NotificationGate::new(Severity::Warning, GateRole::Standby, Duration::ZERO),
            cluster: Some(sources),
            rate_limit: NotificationRateLimit::new(10),
            backoff: DeliveryBackoff::default(),
            due: None,
            in_flight: None,
            sink: None,
            channel: NotificationChannel::Webhook,
            counts: Arc::default(),
        };
        task.on_change(GateChange::Leadership);
        assert_eq!(
            handover.predecessor_state("webhook").told,
            BTreeSet::from([7])
        );
        // Nothing else happens until then.
        at(task.gate.next_deadline()).await;
        task.tick();
        assert!(handover.predecessor_state("webhook").told.is_empty());
        assert_eq!(task.gate.next_deadline(), None);
    }
}
