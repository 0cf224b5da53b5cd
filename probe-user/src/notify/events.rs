//! Writes Events on the Services that news are about.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    ledger::{Ledger, Step},
    occasion::{Occasion, occasions},
    queue::Batch,
    retry::Outcome,
};
use crate::cluster::{
    Cluster,
    client::{Connection, NewEvent, ReadError},
};

/// For one Event: whoever writes many does not wait long for each.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events that a batch may make.
const MOST: usize = 20;

/// What the API server answers so often with an error that may pass is given up: it keeps all others waiting, and may be
/// about this Event alone, as where a webhook of the cluster's is broken that is asked about its namespace.
const TRIES: u32 = 10;

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
    /// What is done with of a batch that has to be tried again.
    done: Vec<(Occasion, Done)>,
    /// Where it could not go on, and how often.
    stuck: Option<(Occasion, u32)>,
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
            stuck: None,
        }
    }

    /// Writes what a batch says: what came of it, what was wrong, and how many were too many or refused. What is written
    /// stays so when others fail, and is not written again.
    pub async fn write(mut self, batch: Batch) -> (Self, Outcome, Option<ReadError>, u64) {
        let cluster = self.cluster.borrow().clone();
        let all = batch.listed.iter();
        let mut all: Vec<_> = all.flat_map(|news| occasions(news, &cluster)).collect();
        // One address may be shared by hundreds of services.
        let beyond = all.split_off(MOST.min(all.len())).len();
        self.done.retain(|(done, _)| all.contains(done));
        let mut wrong = None;
        for occasion in all {
            if self.done.iter().any(|(done, _)| *done == occasion) {
                continue;
            }
            let done = match self.say(&occasion).await {
                Ok(done) => done,
                Err(error) => {
                    if is_passing(&error) && !self.is_hopeless(&occasion, &error) {
                        return (self, Outcome::Again { after: None }, Some(error), 0);
                    }
                    wrong = Some(error);
                    Done::Refused
                }
            };
            self.done.push((occasion, done));
        }
        self.stuck = None;
        let done: Vec<_> = std::mem::take(&mut self.done);
        let lost = done.iter().filter(|(_, done)| *done != Done::Written);
        let lost = u64::try_from(lost.count() + beyond).unwrap_or(u64::MAX);
        let is_refused = done.iter().any(|(_, done)| *done == Done::Refused);
        let outcome = if is_refused {
            Outcome::Refused
        } else {
            Outcome::Taken
        };
        (self, outcome, wrong, lost)
    }

    /// Whether it has been tried often enough. Whoever is not there at all may come back at any time.
    fn is_hopeless(&mut self, occasion: &Occasion, error: &ReadError) -> bool {
        if matches!(error, ReadError::Unreachable(_)) {
            return false;
        }
        let is_same = |stuck: &Occasion| {
            (&stuck.service, stuck.reason) == (&occasion.service, occasion.reason)
        };
        let before = self.stuck.take().filter(|(stuck, _)| is_same(stuck));
        let tries = before.map_or(0, |(_, tries)| tries) + 1;
        self.stuck = Some((occasion.clone(), tries));
        tries >= TRIES
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
        .unwrap_or_else(|_| Err(ReadError::Unreachable("no answer in time".to_owned())))
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
    use super::{
        super::{news::Kind, occasion::tests as occasion, queue::Queue},
        *,
    };
    use crate::cluster::client::fake::Fake;

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

    fn written(fake: &Fake) -> usize {
        let requests = fake.requests();
        let posts = requests.iter().filter(|one| one.starts_with("POST"));
        posts.count()
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
            let before = written(&fake);
            let (_, outcome, error, lost) = writer(&fake).write(batch()).await;
            assert_eq!((outcome, lost), (Outcome::Refused, 2), "{error:?}");
            assert_eq!(written(&fake) - before, 2, "{code}: each was tried once");
        }
    }

    #[tokio::test]
    async fn what_always_fails_is_given_up_when_it_was_tried_often_enough() {
        let fake = Fake::start().await;
        fake.break_with(EVENTS, 500, "{}");
        let mut writer = writer(&fake);
        // The first and then the second of the two keep the queue waiting, each for so long.
        for _ in 2..2 * TRIES {
            let (same, outcome, ..) = writer.write(batch()).await;
            assert_eq!(outcome, Outcome::Again { after: None });
            writer = same;
        }
        let (_, outcome, _, lost) = writer.write(batch()).await;
        assert_eq!((outcome, lost), (Outcome::Refused, 2));
        assert_eq!(written(&fake), 2 * TRIES as usize);
    }

    #[tokio::test]
    async fn whoever_is_away_is_waited_for() {
        let fake = Fake::start().await;
        let mut writer = writer(&fake);
        fake.stop();
        for _ in 0..2 * TRIES {
            let (same, outcome, ..) = writer.write(batch()).await;
            assert_eq!(outcome, Outcome::Again { after: None });
            writer = same;
        }
        fake.resume().await;
        let (_, outcome, _, lost) = writer.write(batch()).await;
        assert_eq!((outcome, lost), (Outcome::Taken, 0));
        assert_eq!(written(&fake), 2);
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
            let (same, outcome, ..) = writer.write(batch.clone()).await;
            assert_eq!(outcome, Outcome::Again { after: None });
            writer = same;
        }
        fake.mend(elsewhere);
        let (_, outcome, ..) = writer.write(batch).await;
        assert_eq!(outcome, Outcome::Taken);
        let to = |place: &str| {
            let requests = fake.requests();
            let posts = requests
                .iter()
                .filter(|one| **one == format!("POST {place}"));
            posts.count()
        };
        assert_eq!((to(EVENTS), to(elsewhere)), (2, TRIES as usize));
    }
}
