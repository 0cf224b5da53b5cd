//! Drills: a conflict that nobody made goes through findings, metrics and alerts, to see who is woken by a real one.
//!
//! Never like a real one: every record and every series of it says that it is a drill, and on an interface and a
//! segment of that name it cannot be taken for a finding about any network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use probe_model::{
    FindingRecord,
    drill::{conflict, resolved},
};

use crate::daemon::monitor::MonitorHandle;

/// The drill that goes on, if one does. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DrillSlot(Arc<Mutex<Option<Arc<FindingRecord>>>>);

/// There is one already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a drill goes on already: end it first (Ctrl-C where it was started)")]
pub struct DrillInProgress;

/// A drill. Taken back when this is dropped.
#[derive(Debug)]
pub struct Drill {
    drills: DrillSlot,
    monitor: MonitorHandle,
    record: Arc<FindingRecord>,
}

impl DrillSlot {
    /// Begins one.
    pub fn start(&self, monitor: MonitorHandle) -> Result<Drill, DrillInProgress> {
        let mut current = self.lock();
        if current.is_some() {
            return Err(DrillInProgress);
        }
        let record = Arc::new(conflict(Timestamp::now()));
        *current = Some(record.clone());
        drop(current);
        monitor.publish((*record).clone());
        Ok(Drill {
            drills: self.clone(),
            monitor,
            record,
        })
    }

    /// The one that goes on.
    pub fn current(&self) -> Option<Arc<FindingRecord>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<FindingRecord>>> {
        // Nothing is ever half done in there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drill {
    /// What was published.
    pub fn record(&self) -> &FindingRecord {
        &self.record
    }
}

impl Drop for Drill {
    fn drop(&mut self) {
        *self.drills.lock() = None;
        self.monitor
            .publish(resolved(&self.record, Timestamp::now()));
    }
}
