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

/// Writes Events.
#[derive(Debug)]
pub struct EventWriter {
    connection: Connection,
    cluster: watch::Receiver<Arc<Cluster>>,
    instance: String,
    ledger: Ledger,
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
        }
    }

    /// Writes what a batch says: what came of it, what was wrong, and how many were too many. What is written stays
    /// so when others fail, and is not written again.
    pub async fn write(mut self, batch: Batch) -> (Self, Outcome, Option<ReadError>, u64) {
        let cluster = self.cluster.borrow().clone();
        let all = batch.listed.iter();
        let all: Vec<_> = all.flat_map(|news| occasions(news, &cluster)).collect();
        let (mut outcome, mut wrong, mut too_many) = (Outcome::Taken, None, 0);
        // One address may be shared by hundreds of services.
        let beyond = all.len().saturating_sub(MOST);
        for occasion in all.into_iter().take(MOST) {
            match self.say(&occasion).await {
                Ok(true) => {}
                Ok(false) => too_many += 1,
                Err(error) => {
                    let again = is_passing(&error);
                    wrong = Some(error);
                    if again {
                        outcome = Outcome::Again { after: None };
                        break;
                    }
                    outcome = Outcome::Refused;
                }
            }
        }
        if !matches!(outcome, Outcome::Again { .. }) {
            too_many += u64::try_from(beyond).unwrap_or(u64::MAX);
        }
        (self, outcome, wrong, too_many)
    }

    /// Returns whether there were not too many.
    async fn say(&mut self, occasion: &Occasion) -> Result<bool, ReadError> {
        match self.ledger.judge(occasion, Instant::now()) {
            Step::Nothing => return Ok(true),
            Step::TooMany => return Ok(false),
            Step::Make => {}
            Step::Count { name, count } => {
                let service = &occasion.service;
                let counted = self.connection.count_event(service, &name, count);
                match within(counted).await {
                    Ok(()) => {
                        self.ledger.note(occasion, name, count, Instant::now());
                        return Ok(true);
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
        Ok(true)
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
