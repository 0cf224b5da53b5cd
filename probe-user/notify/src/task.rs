//! The task that joins the parts, one for each channel: hears, waits its turn, sends. It owns everything that it changes;
//! while a message is on its way it goes on hearing, so that nothing waits for a receiver.

use std::{collections::BTreeSet, future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use probe_cluster::{Cluster, Resource, drift::Drift, model::Known};
use probe_kubernetes::{Connection, Handover};
use probe_model::{FindingRecord, Severity};
use tokio::{
    sync::{broadcast, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    counts::{Channel, Counts, Ending},
    desk::{Desk, Duty},
    events::EventWriter,
    message::{self, Format, Reporter},
    news::{Kind, Subject},
    queue::{Batch, Queue},
    retry::{Backoff, Outcome, Pace},
    webhook::{Webhook, WebhookSettings},
};

/// What comes in a burst is one message.
const GATHERS: Duration = Duration::from_secs(1);
/// Addresses about which Events are written at once…
const EVENTS: usize = 20;
/// …and how often in a minute.
const EVENT_BATCHES: usize = 6;
/// For a last message when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// How and what to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierSettings {
    /// How messages are sent.
    pub webhook: WebhookSettings,
    /// As what.
    pub format: Format,
    /// What matters at least so much is told.
    pub least: Severity,
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
pub struct Sources {
    /// What is found.
    pub findings: broadcast::Receiver<Arc<FindingRecord>>,
    /// What a cluster says; without one it is always our turn.
    pub cluster: Option<ClusterSources>,
}

/// What there is where a cluster is followed.
#[derive(Clone, Debug)]
pub struct ClusterSources {
    /// Whether this daemon holds the lease.
    pub holds: watch::Receiver<bool>,
    /// What holders of the lease have told.
    pub handover: Handover,
    /// How long a drift lasts before it is one.
    pub drift_after: Duration,
    /// What is known of the cluster.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// The drifts that hold now, if somebody looks for them.
    pub drifts: Option<watch::Receiver<Arc<Vec<Drift>>>>,
}

impl ClusterSources {
    /// Whether the API server is away.
    fn is_away(&self) -> bool {
        let cluster = self.cluster.borrow();
        let services = cluster.objects().freshness.get(&Resource::Services);
        services.is_some_and(|services| services.known == Known::Stale)
    }
}

impl Notifier {
    /// Tells what is found from now on, while it is this daemon's turn.
    pub fn start(settings: NotifierSettings, sources: Sources, counts: Arc<Counts>) -> Self {
        let carrier = Carrier::Webhook {
            webhook: Webhook::new(settings.webhook),
            format: settings.format,
            reporter: Reporter::this_host(),
        };
        let pace = Pace::new(settings.per_minute);
        Self::carry(
            Channel::Webhook,
            carrier,
            settings.least,
            pace,
            sources,
            counts,
        )
    }

    /// Writes Events on the Services that what is found from now on is about, while it is this daemon's turn.
    pub fn write_events(
        connection: Connection,
        findings: broadcast::Receiver<Arc<FindingRecord>>,
        cluster: ClusterSources,
        instance: String,
        counts: Arc<Counts>,
    ) -> Self {
        let writer = EventWriter::new(connection, cluster.cluster.clone(), instance);
        let sources = Sources {
            findings,
            cluster: Some(cluster),
        };
        let carrier = Carrier::Events(writer);
        let pace = Pace::new(EVENT_BATCHES);
        Self::carry(
            Channel::Event,
            carrier,
            Severity::Info,
            pace,
            sources,
            counts,
        )
    }

    fn carry(
        channel: Channel,
        carrier: Carrier,
        least: Severity,
        pace: Pace,
        sources: Sources,
        counts: Arc<Counts>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let Sources { findings, cluster } = sources;
        let (duty, drift_after) = match &cluster {
            Some(cluster) => (Duty::Others, cluster.drift_after),
            None => (Duty::Ours, Duration::ZERO),
        };
        let task = Task {
            desk: Desk::new(least, duty, drift_after),
            cluster,
            pace,
            backoff: Backoff::default(),
            due: None,
            on_its_way: None,
            carrier: Some(carrier),
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

/// How news get to somebody.
#[derive(Debug)]
enum Carrier {
    Webhook {
        webhook: Webhook,
        format: Format,
        reporter: Reporter,
    },
    Events(EventWriter),
}

/// What came of carrying something.
#[derive(Debug)]
struct Sent {
    carrier: Carrier,
    outcome: Outcome,
    error: Option<String>,
    /// What was too much, or refused.
    dropped: u64,
    /// What keeps others waiting.
    stuck: BTreeSet<Subject>,
}

impl Carrier {
    /// What is carried at once.
    fn batch(&self, queue: &Queue) -> Batch {
        match self {
            Self::Webhook { format, .. } => queue.batch(format.listed()),
            Self::Events(_) => queue.first(EVENTS),
        }
    }

    async fn carry(self, batch: Batch) -> Sent {
        match self {
            Self::Webhook {
                webhook,
                format,
                reporter,
            } => {
                let body = message::body(format, &batch, &reporter, Timestamp::now());
                let (webhook, outcome, error) = webhook.send(body).await;
                let dropped = match outcome {
                    Outcome::Refused => batch.listed.len(),
                    Outcome::Taken | Outcome::Again { .. } => 0,
                };
                Sent {
                    carrier: Self::Webhook {
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
                Sent {
                    carrier: Self::Events(writer),
                    outcome: written.outcome,
                    error: written.error.map(|error| error.to_string()),
                    dropped: written.lost,
                    stuck: written.stuck,
                }
            }
        }
    }
}

struct Task {
    desk: Desk,
    cluster: Option<ClusterSources>,
    pace: Pace,
    backoff: Backoff,
    /// When the next message is due.
    due: Option<Instant>,
    /// The message that is being sent, and what sends it.
    on_its_way: Option<(Batch, BoxFuture<'static, Sent>)>,
    /// Here, unless it is being used.
    carrier: Option<Carrier>,
    channel: Channel,
    counts: Arc<Counts>,
}

impl Task {
    async fn run(
        mut self,
        mut findings: broadcast::Receiver<Arc<FindingRecord>>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        if let Some(cluster) = &mut self.cluster {
            // What is so from the start is news to us.
            cluster.holds.mark_changed();
            cluster.drifts.as_mut().map(watch::Receiver::mark_changed);
        }
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                heard = findings.recv() => match heard {
                    Ok(record) => self.hear(record),
                    Err(broadcast::error::RecvError::Lagged(missed)) => self.miss(missed),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                change = changed(&mut self.cluster) => self.change(change),
                () = at(self.desk.next_deadline()) => self.tick(),
                sent = arrival(&mut self.on_its_way) => self.conclude(sent),
                () = at(self.due) => self.send(),
            }
            self.plan();
        }
        // What was heard last: a conflict may be why the daemon ends.
        while let Ok(record) = findings.try_recv() {
            self.hear(record);
        }
        if timeout(FAREWELL, self.say_farewell()).await.is_err() || !self.desk.queue.is_empty() {
            let news = self.desk.queue.len();
            tracing::warn!(
                channel = self.channel.label(),
                news,
                "not everything was told before the end"
            );
        }
    }

    fn hear(&mut self, record: Arc<FindingRecord>) {
        let dropped = self.desk.hear(record, Instant::now());
        self.counts.lose(self.channel, dropped);
    }

    /// Findings came faster than they could be heard: which, nobody knows.
    fn miss(&mut self, missed: u64) {
        tracing::warn!(missed, "findings came faster than they could be told");
        self.counts.lose(self.channel, missed);
        if self.desk.duty() == Duty::Ours {
            self.desk.queue.count_only(Kind::Missed, missed);
        }
    }

    fn change(&mut self, change: Change) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let (now, time) = (Instant::now(), Timestamp::now());
        let dropped = match change {
            Change::Turn => {
                let is_ours = *cluster.holds.borrow_and_update();
                if is_ours != (self.desk.duty() == Duty::Ours) {
                    let channel = self.channel.label();
                    tracing::info!(channel, is_ours, "who tells has changed");
                }
                if is_ours {
                    // Where it was another's for a moment only, nobody else forgot them, and they do not change.
                    cluster.drifts.as_mut().map(watch::Receiver::mark_changed);
                    let before = cluster.handover.before(self.channel.label());
                    self.desk.begin(before, now)
                } else {
                    self.desk.end();
                    0
                }
            }
            Change::Drifts => match &mut cluster.drifts {
                Some(drifts) => {
                    let drifts = drifts.borrow_and_update().clone();
                    self.desk.look(&drifts, now, time)
                }
                None => 0,
            },
            // Nobody looks for them any more.
            Change::NoDrifts => {
                cluster.drifts = None;
                0
            }
            // Whoever could say whose turn it is is gone, as at the end: it stays as it is.
            Change::NoTurns => {
                self.cluster = None;
                0
            }
        };
        self.counts.lose(self.channel, dropped);
        self.leave();
    }

    /// Says what was told, so that it is not told again when another holds the lease.
    fn leave(&mut self) {
        if let Some(cluster) = &self.cluster
            && self.desk.duty() == Duty::Ours
        {
            let told = self.desk.told(Instant::now());
            cluster.handover.leave(self.channel.label(), told);
        }
    }

    fn tick(&mut self) {
        let is_away = self.cluster.as_ref().is_some_and(ClusterSources::is_away);
        let dropped = self.desk.tick(Instant::now(), Timestamp::now(), is_away);
        self.counts.lose(self.channel, dropped);
        self.leave();
    }

    /// Decides when the next message is due.
    fn plan(&mut self) {
        self.counts.wait(self.channel, self.desk.queue.len());
        if self.desk.queue.is_empty() || self.on_its_way.is_some() {
            self.due = None;
        } else if self.due.is_none() {
            let gathered = Instant::now() + GATHERS;
            let allowed = self.pace.next();
            self.due = Some(allowed.map_or(gathered, |allowed| allowed.max(gathered)));
        }
    }

    fn send(&mut self) {
        self.due = None;
        let Some(carrier) = self.carrier.take() else {
            return;
        };
        let batch = carrier.batch(&self.desk.queue);
        self.pace.note(Instant::now());
        self.on_its_way = Some((batch.clone(), Box::pin(carrier.carry(batch))));
    }

    fn conclude(&mut self, (batch, sent): (Batch, Sent)) {
        let Sent {
            carrier,
            outcome,
            error,
            dropped,
            stuck,
        } = sent;
        self.carrier = Some(carrier);
        self.counts.lose(self.channel, dropped);
        let (channel, error) = (self.channel.label(), error.unwrap_or_default());
        match outcome {
            Outcome::Taken => {
                if self.backoff.failures() > 0 {
                    tracing::info!(channel, "messages are taken again");
                }
                self.backoff.succeed();
                self.done(&batch, Ending::Sent);
                tracing::debug!(channel, news = batch.listed.len(), "told");
            }
            Outcome::Again { after } => {
                self.counts.count(self.channel, Ending::Retried);
                self.desk.queue.postpone(&stuck);
                let wait = self.backoff.fail(after, fastrand::f64());
                let again = Instant::now() + wait;
                let allowed = self.pace.next();
                self.due = Some(allowed.map_or(again, |allowed| allowed.max(again)));
                tracing::warn!(
                    channel,
                    error,
                    again_in = ?wait,
                    waiting = self.desk.queue.len(),
                    "not told"
                );
            }
            Outcome::Refused => {
                self.backoff.succeed();
                self.done(&batch, Ending::Refused);
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

    fn done(&mut self, batch: &Batch, ending: Ending) {
        self.counts.count(self.channel, ending);
        self.counts.lose(self.channel, batch.crowded_out());
        self.desk.queue.done(batch);
        self.leave();
    }

    async fn say_farewell(&mut self) {
        // Whoever does not answer is not waited for at the end.
        if self.backoff.failures() == 0 {
            loop {
                if self.on_its_way.is_none() {
                    if self.desk.queue.is_empty() {
                        return;
                    }
                    self.send();
                }
                let sent = arrival(&mut self.on_its_way).await;
                self.conclude(sent);
                if self.backoff.failures() > 0 {
                    return;
                }
            }
        }
    }
}

/// What has changed of a cluster.
#[derive(Clone, Copy, Debug)]
enum Change {
    Turn,
    Drifts,
    NoDrifts,
    NoTurns,
}

async fn changed(cluster: &mut Option<ClusterSources>) -> Change {
    let Some(cluster) = cluster else {
        return future::pending().await;
    };
    tokio::select! {
        // Whose turn it is comes first: it decides what drifts mean.
        biased;
        changed = cluster.holds.changed() => changed.map_or(Change::NoTurns, |()| Change::Turn),
        changed = drifted(&mut cluster.drifts) => {
            if changed { Change::Drifts } else { Change::NoDrifts }
        }
    }
}

/// Completes when there are other drifts: whether there can be.
async fn drifted(drifts: &mut Option<watch::Receiver<Arc<Vec<Drift>>>>) -> bool {
    match drifts {
        Some(drifts) => drifts.changed().await.is_ok(),
        None => future::pending().await,
    }
}

/// Completes when a message has been sent, or not. To be given up at any time.
async fn arrival(on_its_way: &mut Option<(Batch, BoxFuture<'static, Sent>)>) -> (Batch, Sent) {
    let Some((_, sending)) = on_its_way else {
        return future::pending().await;
    };
    let sent = sending.await;
    let batch = on_its_way.take().map(|(batch, _)| batch);
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
    use probe_cluster::Objects;

    use super::{super::drifts::tests::drift, *};

    #[tokio::test(start_paused = true)]
    async fn what_is_found_is_not_forgotten_when_the_lease_was_lost_for_a_moment() {
        let holds = watch::Sender::new(false);
        let drifts = watch::Sender::new(Arc::new(vec![drift("a")]));
        let cluster = watch::Sender::new(Arc::new(Cluster::from(Objects::default())));
        let handover = Handover::default();
        let mut task = Task {
            desk: Desk::new(Severity::Warning, Duty::Others, Duration::ZERO),
            cluster: Some(ClusterSources {
                holds: holds.subscribe(),
                handover: handover.clone(),
                drift_after: Duration::ZERO,
                cluster: cluster.subscribe(),
                drifts: Some(drifts.subscribe()),
            }),
            pace: Pace::new(10),
            backoff: Backoff::default(),
            due: None,
            on_its_way: None,
            carrier: None,
            channel: Channel::Webhook,
            counts: Arc::default(),
        };
        let heed = |task: &mut Task| {
            while let Some(change) = changed(&mut task.cluster).now_or_never() {
                task.change(change);
            }
        };
        holds.send_replace(true);
        heed(&mut task);
        let batch = task.desk.queue.batch(10);
        assert_eq!(batch.listed.len(), 1);
        task.done(&batch, Ending::Sent);
        let told = handover.before("webhook").told;
        assert_eq!(told.len(), 1);

        holds.send_replace(false);
        heed(&mut task);
        holds.send_replace(true);
        heed(&mut task);
        assert!(task.desk.queue.is_empty(), "it was told");
        // It goes: whoever still knows it tells that.
        drifts.send_replace(Arc::default());
        heed(&mut task);
        tokio::time::advance(Duration::from_secs(15)).await;
        task.tick();
        let batch = task.desk.queue.batch(10);
        let kinds: Vec<_> = batch.listed.iter().map(|news| news.last.kind).collect();
        assert_eq!(kinds, [Kind::DriftGone]);
        task.done(&batch, Ending::Sent);
        assert!(handover.before("webhook").told.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_told_is_taken_out_of_the_lease_when_it_is_not_found() {
        let holds = watch::Sender::new(true);
        let cluster = watch::Sender::new(Arc::new(Cluster::from(Objects::default())));
        let handover = Handover::default();
        handover.leave("webhook", BTreeSet::from([7]));
        let sources = ClusterSources {
            holds: holds.subscribe(),
            handover: handover.clone(),
            drift_after: Duration::ZERO,
            cluster: cluster.subscribe(),
            drifts: None,
        };
        let mut task = Task {
            desk: Desk::new(Severity::Warning, Duty::Others, Duration::ZERO),
            cluster: Some(sources),
            pace: Pace::new(10),
            backoff: Backoff::default(),
            due: None,
            on_its_way: None,
            carrier: None,
            channel: Channel::Webhook,
            counts: Arc::default(),
        };
        task.change(Change::Turn);
        assert_eq!(handover.before("webhook").told, BTreeSet::from([7]));
        // Nothing else happens until then.
        at(task.desk.next_deadline()).await;
        task.tick();
        assert!(handover.before("webhook").told.is_empty());
        assert_eq!(task.desk.next_deadline(), None);
    }
}
