//! Drills: a simulated conflict passes through findings, metrics and alerts, to test them.
//!
//! It is distinguishable from a real conflict: every record and series of it is marked as a drill, and its interface
//! and segment have that name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use probe_model::{
    FindingRecord,
    drill::{conflict, resolved},
};

use crate::daemon::monitor::MonitorHandle;

/// The running drill, if any. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DrillSlot(Arc<Mutex<Option<Arc<FindingRecord>>>>);

/// A drill is already running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a drill is already running: end it first (Ctrl-C where it was started)")]
pub struct DrillInProgress;

/// A running drill, which ends when this is dropped.
#[derive(Debug)]
pub struct Drill {
    drills: DrillSlot,
    monitor: MonitorHandle,
    record: Arc<FindingRecord>,
}

impl DrillSlot {
    /// Starts a drill.
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

    /// The running drill.
    pub fn current(&self) -> Option<Arc<FindingRecord>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<FindingRecord>>> {
        // The value is consistent at any time, even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drill {
    /// The published finding.
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
