//! Delivers notifications as Events on the Services that they are about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use probe_cluster::ClusterSnapshot;
use probe_model::NamespacedName;
use probe_notify::{
    DeliveryOutcome, DeliveryReport, NotificationBatch, NotificationChannel, NotificationQueue,
    NotificationSink, NotificationSubject,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    ApiConnection, ApiRequestError,
    event_dedup::{DedupeAction, EventDeduplicator},
    kubernetes_event::{KubernetesEvent, kubernetes_events},
};

/// Time limit for one Event. The API server waits for an admission webhook for at most 30 s, and may write the Event
/// after that: a shorter timeout would write it twice.
const CALL_TIMEOUT: Duration = Duration::from_secs(35);

/// The number of subjects in a batch…
const MAX_SUBJECTS: usize = 20;
/// …and of Events: one address may be shared by hundreds of Services.
const MAX_EVENTS: usize = 20;

/// Maximum number of attempts for an Event after temporary errors or timeouts: the error may concern this Event only,
/// as with a failing admission webhook for its namespace.
const MAX_ATTEMPTS: u32 = 10;

/// After this many such errors the rest of a batch waits for the next attempt: they may concern all Events.
const MAX_FAILURES: usize = 3;

/// The outcome of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventOutcome {
    /// It exists.
    Written,
    /// Its Service has reached its rate limit.
    RateLimited,
    /// It cannot be written.
    Refused,
}

/// Writes Events.
#[derive(Debug)]
pub struct EventSink {
    connection: ApiConnection,
    cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    instance: String,
    deduplicator: EventDeduplicator,
    /// The finished Events of subjects that have to be tried again.
    finished: Vec<(NotificationSubject, KubernetesEvent, EventOutcome)>,
    /// Subjects with failed Events, which wait behind the others.
    blocked: BTreeSet<NotificationSubject>,
    /// How often the failed Events were tried.
    attempts: BTreeMap<(NotificationSubject, NamespacedName), u32>,
}

impl EventSink {
    /// The number of batches a minute.
    pub const PER_MINUTE: usize = 6;

    /// Writes Events as the reporting instance `instance`.
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
            finished: Vec::new(),
            blocked: BTreeSet::new(),
            attempts: BTreeMap::new(),
        }
    }

    /// Writes the Events of a batch. What is written is not written again when others have to be tried again.
    async fn write(&mut self, batch: &NotificationBatch) -> DeliveryReport {
        let cluster = self.cluster.borrow().clone();
        let mut events: Vec<_> = batch
            .listed
            .iter()
            .flat_map(|queued| {
                let subject = &queued.last.subject;
                let events = kubernetes_events(queued, &cluster).into_iter();
                events.map(move |event| (subject, event))
            })
            .collect();
        let omitted = events.split_off(MAX_EVENTS.min(events.len())).len();
        let blocked = &self.blocked;
        self.finished.retain(|(subject, event, _)| {
            blocked.contains(subject) || events.iter().any(|(_, pending)| pending == event)
        });
        let (mut refused, mut failed) = (None, None);
        let mut blocked = BTreeSet::new();
        let mut failures = 0;
        for (subject, event) in events {
            if self.finished.iter().any(|(_, done, _)| *done == event) {
                continue;
            }
            let outcome = match self.write_event(&event).await {
                Ok(outcome) => outcome,
                // Wait for an unreachable API server.
                Err(error @ ApiRequestError::Unreachable(_)) => {
                    failed = Some(error);
                    break;
                }
                Err(error) if is_temporary(&error) && self.may_retry(subject, &event) => {
                    failed = Some(error);
                    blocked.insert(subject.clone());
                    failures += 1;
                    if failures >= MAX_FAILURES {
                        break;
                    }
                    continue;
                }
                Err(error) => {
                    refused = Some(error);
                    EventOutcome::Refused
                }
            };
            let attempted = (subject.clone(), event.service.clone());
            self.attempts.remove(&attempted);
            self.finished.push((subject.clone(), event, outcome));
        }
        if let Some(error) = failed {
            self.blocked.extend(blocked.iter().cloned());
            return DeliveryReport {
                outcome: DeliveryOutcome::Retry { after: None },
                error: Some(error.to_string()),
                dropped: 0,
                blocked,
            };
        }
        self.finish(batch, omitted, refused)
    }

    /// Reports a batch whose Events are all finished, and forgets them.
    fn finish(
        &mut self,
        batch: &NotificationBatch,
        omitted: usize,
        refused: Option<ApiRequestError>,
    ) -> DeliveryReport {
        let subjects: BTreeSet<_> = batch
            .listed
            .iter()
            .map(|queued| &queued.last.subject)
            .collect();
        let is_refused = self.finished.iter().any(|(subject, _, outcome)| {
            *outcome == EventOutcome::Refused && subjects.contains(subject)
        });
        self.blocked.retain(|subject| !subjects.contains(subject));
        if self.blocked.is_empty() {
            self.attempts.clear();
        }
        let blocked = &self.blocked;
        let finished = self
            .finished
            .extract_if(.., |(subject, ..)| !blocked.contains(subject));
        let unwritten = finished
            .filter(|(_, _, outcome)| *outcome != EventOutcome::Written)
            .count();
        DeliveryReport {
            outcome: if is_refused {
                DeliveryOutcome::Refused
            } else {
                DeliveryOutcome::Delivered
            },
            error: refused.map(|error| error.to_string()),
            dropped: u64::try_from(unwritten + omitted).unwrap_or(u64::MAX),
            blocked: BTreeSet::new(),
        }
    }

    /// Counts an attempt. Whether another one is allowed.
    fn may_retry(&mut self, subject: &NotificationSubject, event: &KubernetesEvent) -> bool {
        let key = (subject.clone(), event.service.clone());
        let attempts = self.attempts.entry(key).or_default();
        *attempts += 1;
        *attempts < MAX_ATTEMPTS
    }

    async fn write_event(
        &mut self,
        event: &KubernetesEvent,
    ) -> Result<EventOutcome, ApiRequestError> {
        match self.deduplicator.dedupe(event, Instant::now()) {
            DedupeAction::Skip => return Ok(EventOutcome::Written),
            DedupeAction::RateLimited => return Ok(EventOutcome::RateLimited),
            DedupeAction::Create => {}
            DedupeAction::UpdateCount { name, count } => {
                let update = self
                    .connection
                    .update_event_series(&event.service, &name, count);
                match with_timeout(update).await {
                    Ok(()) => {
                        self.deduplicator.record(event, name, count, Instant::now());
                        return Ok(EventOutcome::Written);
                    }
                    // The API server has deleted it.
                    Err(ApiRequestError::NotFound(_)) => self.deduplicator.forget(event),
                    Err(error) => return Err(error),
                }
            }
        }
        let name = with_timeout(self.connection.create_event(event, &self.instance)).await?;
        self.deduplicator.record(event, name, 1, Instant::now());
        Ok(EventOutcome::Written)
    }
}

impl NotificationSink for EventSink {
    const CHANNEL: NotificationChannel = NotificationChannel::Event;

    fn next_batch(&self, queue: &NotificationQueue) -> NotificationBatch {
        queue.first(MAX_SUBJECTS)
    }

    async fn deliver(mut self, batch: NotificationBatch) -> (Self, DeliveryReport) {
        let report = self.write(&batch).await;
        (self, report)
    }
}

async fn with_timeout<T>(
    call: impl Future<Output = Result<T, ApiRequestError>>,
) -> Result<T, ApiRequestError> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| {
        Err(ApiRequestError::Unavailable(
            "no response in time".to_owned(),
        ))
    })
}

/// Whether another attempt may succeed.
const fn is_temporary(error: &ApiRequestError) -> bool {
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
    use std::ops::Range;

    use probe_notify::NotificationKind;

    use super::{
        super::{
            fake::FakeApiServer,
            kubernetes_event::tests::{cluster, conflict},
        },
        *,
    };

    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";
    const EVENTS_ELSEWHERE: &str = "/apis/events.k8s.io/v1/namespaces/other/events";
    const RETRY: DeliveryOutcome = DeliveryOutcome::Retry { after: None };

    fn sink(connection: ApiConnection) -> EventSink {
        let cluster = cluster(&["backend", "frontend", "other/frontend"]);
        let cluster = watch::Sender::new(Arc::new(cluster)).subscribe();
        EventSink::new(connection, cluster, "node-1".to_owned())
    }

    /// A conflict on an address that both services have.
    fn batch() -> NotificationBatch {
        let mut queue = NotificationQueue::default();
        let services = ["backend", "frontend"];
        queue.push(conflict(10, &services, NotificationKind::Conflict));
        queue.first(10)
    }

    /// Conflicts on addresses of this service.
    fn push_conflicts(queue: &mut NotificationQueue, service: &str, numbers: Range<u8>) {
        for number in numbers {
            queue.push(conflict(number, &[service], NotificationKind::Conflict));
        }
    }

    fn posts(fake: &FakeApiServer, path: &str) -> usize {
        let requests = fake.requests();
        let requests = requests.iter();
        requests
            .filter(|one| **one == format!("POST {path}"))
            .count()
    }

    #[tokio::test]
    async fn event_rejected_by_a_terminating_namespace_is_not_retried() {
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
            let before = posts(&fake, EVENTS);
            let report = sink(fake.connect()).write(&batch()).await;
            let result = (report.outcome, report.dropped);
            assert_eq!(result, (DeliveryOutcome::Refused, 2), "{report:?}");
            assert_eq!(posts(&fake, EVENTS) - before, 2, "{code}: each once");
        }
    }

    #[tokio::test]
    async fn temporary_errors_are_retried_a_bounded_number_of_times() {
        let fake = FakeApiServer::start().await;
        fake.fail_with(EVENTS, 500, "{}");
        let mut sink = sink(fake.connect());
        for _ in 1..MAX_ATTEMPTS {
            assert_eq!(sink.write(&batch()).await.outcome, RETRY);
        }
        let report = sink.write(&batch()).await;
        let result = (report.outcome, report.dropped);
        assert_eq!(result, (DeliveryOutcome::Refused, 2));
        assert_eq!(posts(&fake, EVENTS), 2 * MAX_ATTEMPTS as usize);
    }

    #[tokio::test]
    async fn an_api_server_that_is_unreachable_is_waited_for() {
        let fake = FakeApiServer::start().await;
        let mut sink = sink(fake.connect());
        fake.stop();
        for _ in 0..2 * MAX_ATTEMPTS {
            assert_eq!(sink.write(&batch()).await.outcome, RETRY);
        }
        fake.resume().await;
        let report = sink.write(&batch()).await;
        let result = (report.outcome, report.dropped);
        assert_eq!(result, (DeliveryOutcome::Delivered, 0));
        assert_eq!(posts(&fake, EVENTS), 2);
    }

    #[tokio::test]
    async fn written_events_are_not_repeated_when_others_are_retried() {
        let fake = FakeApiServer::start().await;
        let mut sink = sink(fake.connect());
        fake.fail_with(EVENTS_ELSEWHERE, 503, "{}");
        let mut queue = NotificationQueue::default();
        push_conflicts(&mut queue, "frontend", 1..3);
        push_conflicts(&mut queue, "other/frontend", 3..4);
        let batch = queue.first(10);
        for _ in 1..MAX_ATTEMPTS {
            assert_eq!(sink.write(&batch).await.outcome, RETRY);
        }
        fake.clear_fault(EVENTS_ELSEWHERE);
        let report = sink.write(&batch).await;
        assert_eq!(report.outcome, DeliveryOutcome::Delivered);
        assert_eq!(posts(&fake, EVENTS), 2);
        assert_eq!(posts(&fake, EVENTS_ELSEWHERE), MAX_ATTEMPTS as usize);
    }

    #[tokio::test]
    async fn blocked_subjects_do_not_delay_others_and_are_dropped() {
        let fake = FakeApiServer::start().await;
        let mut sink = sink(fake.connect());
        fake.fail_with(EVENTS_ELSEWHERE, 500, "{}");
        let mut queue = NotificationQueue::default();
        push_conflicts(&mut queue, "other/frontend", 1..6);
        push_conflicts(&mut queue, "backend", 6..8);
        let (mut written, mut dropped) = (None, 0);
        for attempt in 1.. {
            let batch = queue.first(5);
            let report = sink.write(&batch).await;
            dropped += report.dropped;
            if report.outcome == RETRY {
                queue.postpone(&report.blocked);
            } else {
                queue.remove_sent(&batch);
            }
            if posts(&fake, EVENTS) == 2 {
                written.get_or_insert(attempt);
            }
            if queue.is_empty() {
                break;
            }
            assert!(attempt < 5 * MAX_ATTEMPTS);
        }
        assert_eq!(written, Some(2), "they were not in the first batch");
        assert_eq!(dropped, 5);
        let attempts = 5 * MAX_ATTEMPTS as usize;
        assert_eq!(posts(&fake, EVENTS_ELSEWHERE), attempts);
        assert!(sink.attempts.is_empty() && sink.blocked.is_empty() && sink.finished.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_to_an_unresponsive_api_server_are_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                silent.push(listener.accept().await.unwrap());
            }
        });
        let connection = ApiConnection::with(kube::Config::new(url.parse().unwrap())).unwrap();
        let mut sink = sink(connection);
        for _ in 1..MAX_ATTEMPTS {
            let report = sink.write(&batch()).await;
            assert_eq!(report.outcome, RETRY);
            let error = report.error.unwrap();
            assert!(error.contains("no response in time"), "{error}");
            assert_eq!(report.blocked.len(), 1);
        }
        let report = sink.write(&batch()).await;
        let result = (report.outcome, report.dropped);
        assert_eq!(result, (DeliveryOutcome::Refused, 2));
    }
}
