//! Writes Events on the Services that notification are about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use probe_cluster::ClusterSnapshot;
use probe_kubernetes::{ApiConnection, ApiRequestError, NewEvent};
use probe_model::NamespacedName;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    event_dedup::{DedupeAction, EventDeduplicator},
    kubernetes_event::{KubernetesEvent, kubernetes_events},
    notification::NotificationSubject,
    queue::NotificationBatch,
    retry::DeliveryOutcome,
};

/// For one Event. The API server itself waits for a webhook of the cluster's for 30 s at most, and then says so, or
/// writes the Event all the same: whoever gives up earlier writes it twice. A connection that is not made has failed long
/// before.
const CALL_TIMEOUT: Duration = Duration::from_secs(35);

/// Events that a batch may make.
const MAX_EVENTS_PER_BATCH: usize = 20;

/// What the API server answers so often with an error that may pass, or not at all, is given up: that may be about this
/// Event alone, as where a webhook of the cluster's is broken that is asked about its namespace.
const MAX_ATTEMPTS: u32 = 10;

/// After so many of those the rest of a batch waits for the next attempt: it may be about all of them.
const MAX_FAILED: usize = 3;

/// What became of an occasion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventWrite {
    /// It is said.
    Written,
    /// There were too many.
    Skipped,
    /// It cannot be said.
    Refused,
}

/// Writes Events.
#[derive(Debug)]
pub struct EventWriter {
    connection: ApiConnection,
    cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    instance: String,
    deduplicator: EventDeduplicator,
    /// What is done with of notification that have to be tried again.
    done: Vec<(NotificationSubject, KubernetesEvent, EventWrite)>,
    /// What is stuck and waits behind the others, until it comes again.
    partly_written: BTreeSet<NotificationSubject>,
    /// How often what is stuck was tried.
    tries: BTreeMap<(NotificationSubject, NamespacedName), u32>,
}

/// What came of a batch.
#[derive(Debug)]
pub struct WriteOutcome {
    /// Whether it is done with.
    pub outcome: DeliveryOutcome,
    /// What was wrong.
    pub error: Option<ApiRequestError>,
    /// How many Events were too many, or refused.
    pub lost: u64,
    /// What keeps others waiting, if it has to be tried again.
    pub stuck: BTreeSet<NotificationSubject>,
}

impl WriteOutcome {
    const fn retry_later(error: ApiRequestError, stuck: BTreeSet<NotificationSubject>) -> Self {
        Self {
            outcome: DeliveryOutcome::Retry { after: None },
            error: Some(error),
            lost: 0,
            stuck,
        }
    }
}

impl EventWriter {
    /// Writes as this instance of many.
    pub fn new(
        connection: ApiConnection,
        cluster: watch::Receiver<Arc<ClusterSnapshot>>,
        instance: String,
    ) -> Self {
        Self {
            connection,
            cluster,
            instance,
            deduplicator: EventDeduplicator::default(),
            done: Vec::new(),
            partly_written: BTreeSet::new(),
            tries: BTreeMap::new(),
        }
    }

    /// Writes what a batch says. What is written stays so when others fail, and is not written again.
    pub async fn write(mut self, batch: NotificationBatch) -> (Self, WriteOutcome) {
        let cluster = self.cluster.borrow().clone();
        let all = batch.listed.iter().flat_map(|notification| {
            let occasions = kubernetes_events(notification, &cluster).into_iter();
            occasions.map(|occasion| (&notification.last.subject, occasion))
        });
        let mut all: Vec<_> = all.collect();
        // One address may be shared by hundreds of services.
        let unlisted_seen = all.split_off(MAX_EVENTS_PER_BATCH.min(all.len())).len();
        let partly_written = &self.partly_written;
        self.done.retain(|(subject, occasion, _)| {
            let is_this = |(_, this): &(_, KubernetesEvent)| this == occasion;
            partly_written.contains(subject) || all.iter().any(is_this)
        });
        let (mut refused, mut failed) = (None, None);
        let (mut stuck, mut failures) = (BTreeSet::new(), 0);
        for (subject, occasion) in all {
            if self.done.iter().any(|(_, done, _)| *done == occasion) {
                continue;
            }
            let done = match self.write_event(&occasion).await {
                Ok(done) => done,
                // Whoever is not there at all may come back at any time.
                Err(error @ ApiRequestError::Unreachable(_)) => {
                    failed = Some(error);
                    break;
                }
                Err(error)
                    if is_transient(&error) && !self.has_too_many_failures(subject, &occasion) =>
                {
                    failed = Some(error);
                    stuck.insert(subject.clone());
                    failures += 1;
                    if failures >= MAX_FAILED {
                        break;
                    }
                    continue;
                }
                Err(error) => {
                    refused = Some(error);
                    EventWrite::Refused
                }
            };
            let tried = (subject.clone(), occasion.service.clone());
            self.tries.remove(&tried);
            self.done.push((subject.clone(), occasion, done));
        }
        if let Some(error) = failed {
            self.partly_written.extend(stuck.iter().cloned());
            return (self, WriteOutcome::retry_later(error, stuck));
        }
        let is_refused = self.done.iter().any(|(subject, _, done)| {
            *done == EventWrite::Refused
                && batch
                    .listed
                    .iter()
                    .any(|notification| notification.last.subject == *subject)
        });
        let lost = self.finish_batch(&batch, unlisted_seen);
        let outcome = if is_refused {
            DeliveryOutcome::Refused
        } else {
            DeliveryOutcome::Delivered
        };
        let written = WriteOutcome {
            outcome,
            error: refused,
            lost,
            stuck,
        };
        (self, written)
    }

    /// A batch is done with: how much of it, and of what was beyond it, was not written.
    fn finish_batch(&mut self, batch: &NotificationBatch, unlisted_seen: usize) -> u64 {
        for notification in &batch.listed {
            self.partly_written.remove(&notification.last.subject);
        }
        if self.partly_written.is_empty() {
            self.tries.clear();
        }
        let partly_written = &self.partly_written;
        let done = self
            .done
            .extract_if(.., |(subject, ..)| !partly_written.contains(subject));
        let lost = done
            .filter(|(_, _, done)| *done != EventWrite::Written)
            .count();
        u64::try_from(lost + unlisted_seen).unwrap_or(u64::MAX)
    }

    /// Whether it has been tried often enough.
    fn has_too_many_failures(
        &mut self,
        subject: &NotificationSubject,
        occasion: &KubernetesEvent,
    ) -> bool {
        let key = (subject.clone(), occasion.service.clone());
        let tries = self.tries.entry(key).or_default();
        *tries += 1;
        *tries >= MAX_ATTEMPTS
    }

    async fn write_event(
        &mut self,
        occasion: &KubernetesEvent,
    ) -> Result<EventWrite, ApiRequestError> {
        match self.deduplicator.dedupe(occasion, Instant::now()) {
            DedupeAction::Skip => return Ok(EventWrite::Written),
            DedupeAction::RateLimited => return Ok(EventWrite::Skipped),
            DedupeAction::Create => {}
            DedupeAction::UpdateCount { name, count } => {
                let service = &occasion.service;
                let counted = self.connection.increment_event_count(service, &name, count);
                match with_timeout(counted).await {
                    Ok(()) => {
                        self.deduplicator
                            .record(occasion, name, count, Instant::now());
                        return Ok(EventWrite::Written);
                    }
                    // The API server has forgotten it.
                    Err(ApiRequestError::NotFound(_)) => self.deduplicator.forget(occasion),
                    Err(error) => return Err(error),
                }
            }
        }
        let event = NewEvent {
            service: &occasion.service,
            uid: &occasion.uid,
            reason: occasion.reason,
            is_warning: occasion.is_warning,
            note: &occasion.note,
            instance: &self.instance,
        };
        let name = with_timeout(self.connection.create_event(&event)).await?;
        self.deduplicator.record(occasion, name, 1, Instant::now());
        Ok(EventWrite::Written)
    }
}

async fn with_timeout<T>(
    call: impl Future<Output = Result<T, ApiRequestError>>,
) -> Result<T, ApiRequestError> {
    timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(ApiRequestError::Unavailable("no answer in time".to_owned())))
}

/// Whether another attempt may do.
const fn is_transient(error: &ApiRequestError) -> bool {
    match error {
        ApiRequestError::Unavailable(_)
        | ApiRequestError::Unreachable(_)
        | ApiRequestError::Unauthorized(_) => true,
        ApiRequestError::Forbidden(_)
        | ApiRequestError::NotFound(_)
        | ApiRequestError::Conflict(_)
        | ApiRequestError::Gone(_)
        | ApiRequestError::Refused(_)
        | ApiRequestError::InvalidResponse(_) => false,
    }
}

#[cfg(test)]
#[cfg(feature = "kubernetes")]
mod tests {
    use probe_kubernetes::fake::FakeApiServer;

    use super::{
        super::{
            kubernetes_event::tests as kubernetes_event, notification::NotificationKind,
            queue::NotificationQueue,
        },
        *,
    };

    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

    fn writer(fake: &FakeApiServer) -> EventWriter {
        let cluster = kubernetes_event::cluster(&["backend", "frontend", "other/frontend"]);
        let cluster = watch::Sender::new(Arc::new(cluster)).subscribe();
        EventWriter::new(fake.connect(), cluster, "node-1".to_owned())
    }

    /// A conflict on an address that both services have.
    fn batch() -> NotificationBatch {
        let mut queue = NotificationQueue::default();
        let waiting = kubernetes_event::about(&["backend", "frontend"], NotificationKind::Conflict);
        queue.push(waiting.last);
        queue.first(10)
    }

    fn posts(fake: &FakeApiServer) -> usize {
        let requests = fake.requests();
        let requests = requests.iter();
        requests.filter(|one| one.starts_with("POST")).count()
    }

    #[tokio::test]
    async fn what_is_forbidden_as_in_a_namespace_that_is_deleted_is_given_up_at_once() {
        let fake = FakeApiServer::start().await;
        for (code, body) in [
            (
                403,
                r#"{"reason":"Forbidden","message":"it is being terminated"}"#,
            ),
            (404, "{}"),
            (422, "{}"),
        ] {
            fake.fail_with(EVENTS, code, body);
            let before = posts(&fake);
            let (_, written) = writer(&fake).write(batch()).await;
            let result = (written.outcome, written.lost);
            assert_eq!(result, (DeliveryOutcome::Refused, 2), "{written:?}");
            assert_eq!(posts(&fake) - before, 2, "{code}: each was tried once");
        }
    }

    #[tokio::test]
    async fn what_always_fails_is_given_up_when_it_was_tried_often_enough() {
        let fake = FakeApiServer::start().await;
        fake.fail_with(EVENTS, 500, "{}");
        let mut writer = writer(&fake);
        for _ in 1..MAX_ATTEMPTS {
            let (same, written) = writer.write(batch()).await;
            assert_eq!(written.outcome, DeliveryOutcome::Retry { after: None });
            writer = same;
        }
        let (_, written) = writer.write(batch()).await;
        assert_eq!(
            (written.outcome, written.lost),
            (DeliveryOutcome::Refused, 2)
        );
        assert_eq!(posts(&fake), 2 * MAX_ATTEMPTS as usize);
    }

    #[tokio::test]
    async fn whoever_is_away_is_waited_for() {
        let fake = FakeApiServer::start().await;
        let mut writer = writer(&fake);
        fake.stop();
        for _ in 0..2 * MAX_ATTEMPTS {
            let (same, written) = writer.write(batch()).await;
            assert_eq!(written.outcome, DeliveryOutcome::Retry { after: None });
            writer = same;
        }
        fake.resume().await;
        let (_, written) = writer.write(batch()).await;
        assert_eq!(
            (written.outcome, written.lost),
            (DeliveryOutcome::Delivered, 0)
        );
        assert_eq!(posts(&fake), 2);
    }

    #[tokio::test]
    async fn what_is_written_is_not_written_again_when_others_are_tried_again() {
        let fake = FakeApiServer::start().await;
        let mut writer = writer(&fake);
        // A service that has two addresses in conflict, and then one that cannot be told.
        let elsewhere = "/apis/events.k8s.io/v1/namespaces/other/events";
        fake.fail_with(elsewhere, 503, "{}");
        let mut queue = NotificationQueue::default();
        for number in 1..=2 {
            let mut notification =
                kubernetes_event::about(&["frontend"], NotificationKind::Conflict).last;
            kubernetes_event::change(&mut notification, |record| {
                record.ip = [192, 0, 2, number].into();
            });
            queue.push(notification);
        }
        queue.push(kubernetes_event::about(&["other/frontend"], NotificationKind::Conflict).last);
        let batch = queue.first(10);
        for _ in 1..MAX_ATTEMPTS {
            let (same, written) = writer.write(batch.clone()).await;
            assert_eq!(written.outcome, DeliveryOutcome::Retry { after: None });
            writer = same;
        }
        fake.clear_fault(elsewhere);
        let (_, written) = writer.write(batch).await;
        assert_eq!(written.outcome, DeliveryOutcome::Delivered);
        let to = |place: &str| {
            let requests = fake.requests();
            let posts = requests
                .iter()
                .filter(|one| **one == format!("POST {place}"));
            posts.count()
        };
        assert_eq!((to(EVENTS), to(elsewhere)), (2, MAX_ATTEMPTS as usize));
    }

    /// Many conflicts, each on an address of its own of this service.
    fn conflicts(queue: &mut NotificationQueue, service: &str, numbers: std::ops::Range<u8>) {
        for number in numbers {
            let mut notification =
                kubernetes_event::about(&[service], NotificationKind::Conflict).last;
            kubernetes_event::change(&mut notification, |record| {
                record.ip = [192, 0, 2, number].into();
            });
            queue.push(notification);
        }
    }

    #[tokio::test]
    async fn what_is_stuck_lets_the_others_pass_and_is_given_up() {
        let fake = FakeApiServer::start().await;
        let mut writer = writer(&fake);
        let elsewhere = "/apis/events.k8s.io/v1/namespaces/other/events";
        fake.fail_with(elsewhere, 500, "{}");
        let mut queue = NotificationQueue::default();
        conflicts(&mut queue, "other/frontend", 1..6);
        conflicts(&mut queue, "backend", 6..8);
        let (mut told, mut lost) = (None, 0);
        for attempt in 1.. {
            let batch = queue.first(5);
            let (same, written) = writer.write(batch.clone()).await;
            writer = same;
            lost += written.lost;
            if matches!(written.outcome, DeliveryOutcome::Retry { .. }) {
                queue.postpone(&written.stuck);
            } else {
                queue.remove_sent(&batch);
            }
            let requests = fake.requests();
            if requests.iter().filter(|one| one.ends_with(EVENTS)).count() == 2 {
                told.get_or_insert(attempt);
            }
            if queue.is_empty() {
                break;
            }
            assert!(attempt < 5 * MAX_ATTEMPTS);
        }
        assert_eq!(told, Some(2), "they were not in the first batch");
        assert_eq!(lost, 5);
        let asked = 5 * MAX_ATTEMPTS as usize;
        assert_eq!(posts(&fake), 2 + asked, "each was tried as often");
        assert!(
            writer.tries.is_empty() && writer.partly_written.is_empty() && writer.done.is_empty()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_never_answers_is_not_asked_for_ever() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                silent.push(listener.accept().await.unwrap());
            }
        });
        let connection = ApiConnection::with(kube::Config::new(url.parse().unwrap())).unwrap();
        let cluster = kubernetes_event::cluster(&["backend", "frontend"]);
        let cluster = watch::Sender::new(Arc::new(cluster)).subscribe();
        let mut writer = EventWriter::new(connection, cluster, "node-1".to_owned());
        for _ in 1..MAX_ATTEMPTS {
            let (same, written) = writer.write(batch()).await;
            assert_eq!(written.outcome, DeliveryOutcome::Retry { after: None });
            assert!(
                matches!(written.error, Some(ApiRequestError::Unavailable(_))),
                "{written:?}"
            );
            assert_eq!(written.stuck.len(), 1);
            writer = same;
        }
        let (_, written) = writer.write(batch()).await;
        assert_eq!(
            (written.outcome, written.lost),
            (DeliveryOutcome::Refused, 2)
        );
    }
}
