//! Writes Events on the Services that news are about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use probe_cluster::Cluster;
use probe_kubernetes::{Connection, NewEvent, ReadError};
use probe_model::Named;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    ledger::{Ledger, Step},
    news::Subject,
    occasion::{Occasion, occasions},
    queue::Batch,
    retry::Outcome,
};

/// For one Event. The API server itself waits for a webhook of the cluster's for 30 s at most, and then says so, or
/// writes the Event all the same: whoever gives up earlier writes it twice. A connection that is not made has failed long
/// before.
const PATIENCE: Duration = Duration::from_secs(35);

/// Events that a batch may make.
const MOST: usize = 20;

/// What the API server answers so often with an error that may pass, or not at all, is given up: that may be about this
/// Event alone, as where a webhook of the cluster's is broken that is asked about its namespace.
const TRIES: u32 = 10;

/// After so many of those the rest of a batch waits for the next attempt: it may be about all of them.
const MOST_FAILED: usize = 3;

/// What became of an occasion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// It is said.
    Written,
    /// There were too many.
    LeftOut,
    /// It cannot be said.
    Refused,
}

/// Writes Events.
#[derive(Debug)]
pub struct EventWriter {
    connection: Connection,
    cluster: watch::Receiver<Arc<Cluster>>,
    instance: String,
    ledger: Ledger,
    /// What is done with of news that have to be tried again.
    done: Vec<(Subject, Occasion, Done)>,
    /// What is stuck and waits behind the others, until it comes again.
    behind: BTreeSet<Subject>,
    /// How often what is stuck was tried.
    tries: BTreeMap<(Subject, Named), u32>,
}

/// What came of a batch.
#[derive(Debug)]
pub struct Written {
    /// Whether it is done with.
    pub outcome: Outcome,
    /// What was wrong.
    pub error: Option<ReadError>,
    /// How many Events were too many, or refused.
    pub lost: u64,
    /// What keeps others waiting, if it has to be tried again.
    pub stuck: BTreeSet<Subject>,
}

impl Written {
    const fn again(error: ReadError, stuck: BTreeSet<Subject>) -> Self {
        Self {
            outcome: Outcome::Again { after: None },
            error: Some(error),
            lost: 0,
            stuck,
        }
    }
}

impl EventWriter {
    /// Writes as this instance of many.
    pub fn new(
        connection: Connection,
        cluster: watch::Receiver<Arc<Cluster>>,
        instance: String,
    ) -> Self {
        Self {
            connection,
            cluster,
            instance,
            ledger: Ledger::default(),
            done: Vec::new(),
            behind: BTreeSet::new(),
            tries: BTreeMap::new(),
        }
    }

    /// Writes what a batch says. What is written stays so when others fail, and is not written again.
    pub async fn write(mut self, batch: Batch) -> (Self, Written) {
        let cluster = self.cluster.borrow().clone();
        let all = batch.listed.iter().flat_map(|news| {
            let occasions = occasions(news, &cluster).into_iter();
            occasions.map(|occasion| (&news.last.subject, occasion))
        });
        let mut all: Vec<_> = all.collect();
        // One address may be shared by hundreds of services.
        let beyond = all.split_off(MOST.min(all.len())).len();
        let behind = &self.behind;
        self.done.retain(|(subject, occasion, _)| {
            let is_this = |(_, this): &(_, Occasion)| this == occasion;
            behind.contains(subject) || all.iter().any(is_this)
        });
        let (mut refused, mut failed) = (None, None);
        let (mut stuck, mut failures) = (BTreeSet::new(), 0);
        for (subject, occasion) in all {
            if self.done.iter().any(|(_, done, _)| *done == occasion) {
                continue;
            }
            let done = match self.say(&occasion).await {
                Ok(done) => done,
                // Whoever is not there at all may come back at any time.
                Err(error @ ReadError::Unreachable(_)) => {
                    failed = Some(error);
                    break;
                }
                Err(error) if is_passing(&error) && !self.is_hopeless(subject, &occasion) => {
                    failed = Some(error);
                    stuck.insert(subject.clone());
                    failures += 1;
                    if failures >= MOST_FAILED {
                        break;
                    }
                    continue;
                }
                Err(error) => {
                    refused = Some(error);
                    Done::Refused
                }
            };
            let tried = (subject.clone(), occasion.service.clone());
            self.tries.remove(&tried);
            self.done.push((subject.clone(), occasion, done));
        }
        if let Some(error) = failed {
            self.behind.extend(stuck.iter().cloned());
            return (self, Written::again(error, stuck));
        }
        let is_refused = self.done.iter().any(|(subject, _, done)| {
            *done == Done::Refused
                && batch
                    .listed
                    .iter()
                    .any(|news| news.last.subject == *subject)
        });
        let lost = self.conclude(&batch, beyond);
        let outcome = if is_refused {
            Outcome::Refused
        } else {
            Outcome::Taken
        };
        let written = Written {
            outcome,
            error: refused,
            lost,
            stuck,
        };
        (self, written)
    }

    /// A batch is done with: how much of it, and of what was beyond it, was not written.
    fn conclude(&mut self, batch: &Batch, beyond: usize) -> u64 {
        for news in &batch.listed {
            self.behind.remove(&news.last.subject);
        }
        if self.behind.is_empty() {
            self.tries.clear();
        }
        let behind = &self.behind;
        let done = self
            .done
            .extract_if(.., |(subject, ..)| !behind.contains(subject));
        let lost = done.filter(|(_, _, done)| *done != Done::Written).count();
        u64::try_from(lost + beyond).unwrap_or(u64::MAX)
    }

    /// Whether it has been tried often enough.
    fn is_hopeless(&mut self, subject: &Subject, occasion: &Occasion) -> bool {
        let key = (subject.clone(), occasion.service.clone());
        let tries = self.tries.entry(key).or_default();
        *tries += 1;
        *tries >= TRIES
    }

    async fn say(&mut self, occasion: &Occasion) -> Result<Done, ReadError> {
        match self.ledger.judge(occasion, Instant::now()) {
            Step::Nothing => return Ok(Done::Written),
            Step::TooMany => return Ok(Done::LeftOut),
            Step::Make => {}
            Step::Count { name, count } => {
                let service = &occasion.service;
                let counted = self.connection.count_event(service, &name, count);
                match within(counted).await {
                    Ok(()) => {
                        self.ledger.note(occasion, name, count, Instant::now());
                        return Ok(Done::Written);
                    }
                    // The API server has forgotten it.
                    Err(ReadError::Missing(_)) => self.ledger.forget(occasion),
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
        let name = within(self.connection.make_event(&event)).await?;
        self.ledger.note(occasion, name, 1, Instant::now());
        Ok(Done::Written)
    }
}

async fn within<T>(call: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
    timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| Err(ReadError::Unavailable("no answer in time".to_owned())))
}

/// Whether another attempt may do.
const fn is_passing(error: &ReadError) -> bool {
    match error {
        ReadError::Unavailable(_) | ReadError::Unreachable(_) | ReadError::Unauthorized(_) => true,
        ReadError::Forbidden(_)
        | ReadError::Missing(_)
        | ReadError::Conflict(_)
        | ReadError::Gone(_)
        | ReadError::Refused(_)
        | ReadError::Garbage(_) => false,
    }
}

#[cfg(test)]
#[cfg(feature = "kubernetes")]
mod tests {
    use probe_kubernetes::fake::Fake;

    use super::{
        super::{news::Kind, occasion::tests as occasion, queue::Queue},
        *,
    };

    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

    fn writer(fake: &Fake) -> EventWriter {
        let cluster = occasion::cluster(&["backend", "frontend", "other/frontend"]);
        let cluster = watch::Sender::new(Arc::new(cluster)).subscribe();
        EventWriter::new(fake.connect(), cluster, "node-1".to_owned())
    }

    /// A conflict on an address that both services have.
    fn batch() -> Batch {
        let mut queue = Queue::default();
        let waiting = occasion::about(&["backend", "frontend"], Kind::Conflict);
        queue.push(waiting.last);
        queue.first(10)
    }

    fn posts(fake: &Fake) -> usize {
        let requests = fake.requests();
        let requests = requests.iter();
        requests.filter(|one| one.starts_with("POST")).count()
    }

    #[tokio::test]
    async fn what_is_forbidden_as_in_a_namespace_that_is_deleted_is_given_up_at_once() {
        let fake = Fake::start().await;
        for (code, body) in [
            (
                403,
                r#"{"reason":"Forbidden","message":"it is being terminated"}"#,
            ),
            (404, "{}"),
            (422, "{}"),
        ] {
            fake.break_with(EVENTS, code, body);
            let before = posts(&fake);
            let (_, written) = writer(&fake).write(batch()).await;
            let result = (written.outcome, written.lost);
            assert_eq!(result, (Outcome::Refused, 2), "{written:?}");
            assert_eq!(posts(&fake) - before, 2, "{code}: each was tried once");
        }
    }

    #[tokio::test]
    async fn what_always_fails_is_given_up_when_it_was_tried_often_enough() {
        let fake = Fake::start().await;
        fake.break_with(EVENTS, 500, "{}");
        let mut writer = writer(&fake);
        for _ in 1..TRIES {
            let (same, written) = writer.write(batch()).await;
            assert_eq!(written.outcome, Outcome::Again { after: None });
            writer = same;
        }
        let (_, written) = writer.write(batch()).await;
        assert_eq!((written.outcome, written.lost), (Outcome::Refused, 2));
        assert_eq!(posts(&fake), 2 * TRIES as usize);
    }

    #[tokio::test]
    async fn whoever_is_away_is_waited_for() {
        let fake = Fake::start().await;
        let mut writer = writer(&fake);
        fake.stop();
        for _ in 0..2 * TRIES {
            let (same, written) = writer.write(batch()).await;
            assert_eq!(written.outcome, Outcome::Again { after: None });
            writer = same;
        }
        fake.resume().await;
        let (_, written) = writer.write(batch()).await;
        assert_eq!((written.outcome, written.lost), (Outcome::Taken, 0));
        assert_eq!(posts(&fake), 2);
    }

    #[tokio::test]
    async fn what_is_written_is_not_written_again_when_others_are_tried_again() {
        let fake = Fake::start().await;
        let mut writer = writer(&fake);
        // A service that has two addresses in conflict, and then one that cannot be told.
        let elsewhere = "/apis/events.k8s.io/v1/namespaces/other/events";
        fake.break_with(elsewhere, 503, "{}");
        let mut queue = Queue::default();
        for number in 1..=2 {
            let mut news = occasion::about(&["frontend"], Kind::Conflict).last;
            occasion::change(&mut news, |record| record.ip = [192, 0, 2, number].into());
            queue.push(news);
        }
        queue.push(occasion::about(&["other/frontend"], Kind::Conflict).last);
        let batch = queue.first(10);
        for _ in 1..TRIES {
            let (same, written) = writer.write(batch.clone()).await;
            assert_eq!(written.outcome, Outcome::Again { after: None });
            writer = same;
        }
        fake.mend(elsewhere);
        let (_, written) = writer.write(batch).await;
        assert_eq!(written.outcome, Outcome::Taken);
        let to = |place: &str| {
            let requests = fake.requests();
            let posts = requests
                .iter()
                .filter(|one| **one == format!("POST {place}"));
            posts.count()
        };
        assert_eq!((to(EVENTS), to(elsewhere)), (2, TRIES as usize));
    }

    /// Many conflicts, each on an address of its own of this service.
    fn conflicts(queue: &mut Queue, service: &str, numbers: std::ops::Range<u8>) {
        for number in numbers {
            let mut news = occasion::about(&[service], Kind::Conflict).last;
            occasion::change(&mut news, |record| record.ip = [192, 0, 2, number].into());
            queue.push(news);
        }
    }

    #[tokio::test]
    async fn what_is_stuck_lets_the_others_pass_and_is_given_up() {
        let fake = Fake::start().await;
        let mut writer = writer(&fake);
        let elsewhere = "/apis/events.k8s.io/v1/namespaces/other/events";
        fake.break_with(elsewhere, 500, "{}");
        let mut queue = Queue::default();
        conflicts(&mut queue, "other/frontend", 1..6);
        conflicts(&mut queue, "backend", 6..8);
        let (mut told, mut lost) = (None, 0);
        for attempt in 1.. {
            let batch = queue.first(5);
            let (same, written) = writer.write(batch.clone()).await;
            writer = same;
            lost += written.lost;
            if matches!(written.outcome, Outcome::Again { .. }) {
                queue.postpone(&written.stuck);
            } else {
                queue.done(&batch);
            }
            let requests = fake.requests();
            if requests.iter().filter(|one| one.ends_with(EVENTS)).count() == 2 {
                told.get_or_insert(attempt);
            }
            if queue.is_empty() {
                break;
            }
            assert!(attempt < 5 * TRIES);
        }
        assert_eq!(told, Some(2), "they were not in the first batch");
        assert_eq!(lost, 5);
        let asked = 5 * TRIES as usize;
        assert_eq!(posts(&fake), 2 + asked, "each was tried as often");
        assert!(writer.tries.is_empty() && writer.behind.is_empty() && writer.done.is_empty());
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
        let connection = Connection::with(kube::Config::new(url.parse().unwrap())).unwrap();
        let cluster = occasion::cluster(&["backend", "frontend"]);
        let cluster = watch::Sender::new(Arc::new(cluster)).subscribe();
        let mut writer = EventWriter::new(connection, cluster, "node-1".to_owned());
        for _ in 1..TRIES {
            let (same, written) = writer.write(batch()).await;
            assert_eq!(written.outcome, Outcome::Again { after: None });
            assert!(
                matches!(written.error, Some(ReadError::Unavailable(_))),
                "{written:?}"
            );
            assert_eq!(written.stuck.len(), 1);
            writer = same;
        }
        let (_, written) = writer.write(batch()).await;
        assert_eq!((written.outcome, written.lost), (Outcome::Refused, 2));
    }
}
