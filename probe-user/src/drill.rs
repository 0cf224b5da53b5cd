//! Drills: a conflict that nobody made goes through findings, metrics and alerts, to see who is woken by a real one.
//!
//! Never like a real one: every record and every series of it says that it is a drill, and on an interface and a
//! segment of that name it cannot be taken for a finding about any network.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use probe_common::wire::{MacAddr, Vlan};

use crate::{
    detect::{Evidence, FindingKind, Role, Severity},
    monitor::MonitorHandle,
    report::{CountsRecord, FindingRecord, OwnerRecord},
};

/// The address of every drill (TEST-NET-1, RFC 5737): nobody has it.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The interface and the segment of every drill.
pub const PLACE: &str = "drill";
/// Who shares the address: made up, and readable as "drill" by those who read bytes.
pub const MACS: [MacAddr; 2] = [
    MacAddr([0x02, b'd', b'r', b'i', b'l', 1]),
    MacAddr([0x02, b'd', b'r', b'i', b'l', 2]),
];

/// The drill that goes on, if one does. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Drills(Arc<Mutex<Option<Arc<FindingRecord>>>>);

/// There is one already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a drill goes on already: end it first (Ctrl-C where it was started)")]
pub struct DrillGoesOn;

/// A drill. Taken back when this is dropped.
#[derive(Debug)]
pub struct Drill {
    drills: Drills,
    monitor: MonitorHandle,
    record: Arc<FindingRecord>,
}

impl Drills {
    /// Begins one.
    pub fn begin(&self, monitor: MonitorHandle) -> Result<Drill, DrillGoesOn> {
        let mut current = self.lock();
        if current.is_some() {
            return Err(DrillGoesOn);
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

/// What begins a drill.
pub(crate) fn conflict(now: Timestamp) -> FindingRecord {
    let owner = |mac, role| OwnerRecord {
        node: None,
        macs: vec![mac],
        vendor: None,
        role,
        local: false,
        announces: false,
        first_seen: now,
        last_seen: now,
        claims: 0,
    };
    FindingRecord {
        cluster: None,
        time: now,
        finding: FindingKind::Conflict,
        severity: Severity::Critical,
        interface: PLACE.to_owned(),
        vlan: Vlan::UNTAGGED,
        segment: Some(PLACE.to_owned()),
        ip: ADDRESS,
        drill: true,
        since: now,
        owners: vec![owner(MACS[0], Role::Current), owner(MACS[1], Role::Earlier)],
        evidence: Some(Evidence::DuplicateReply),
        counts: CountsRecord::default(),
        hint: None,
        reason: None,
    }
}

/// What ends a drill.
pub fn resolved(conflict: &FindingRecord, now: Timestamp) -> FindingRecord {
    FindingRecord {
        time: now,
        finding: FindingKind::ConflictResolved,
        severity: Severity::Notice,
        evidence: None,
        owners: conflict.owners.iter().take(1).cloned().collect(),
        ..conflict.clone()
    }
}
