//! The findings that wait for their annotation, by address.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use probe_common::wire::Vlan;
use probe_model::FindingRecord;

/// The address that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FindingAddress {
    interface: String,
    vlan: Vlan,
    ip: IpAddr,
}

impl FindingAddress {
    /// The address that this finding is about.
    pub fn of(finding: &FindingRecord) -> Self {
        Self {
            interface: finding.interface.clone(),
            vlan: finding.vlan,
            ip: finding.ip,
        }
    }
}

/// The findings that are being annotated, at most one per address, and the waiting ones.
#[derive(Debug, Default)]
pub(super) struct PendingFindings {
    waiting: HashMap<FindingAddress, VecDeque<Arc<FindingRecord>>>,
    len: usize,
}

impl PendingFindings {
    /// The number of findings that are being annotated or wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Adds a finding. Returns it if it can be annotated now; otherwise it waits for an earlier one.
    pub fn start(
        &mut self,
        address: &FindingAddress,
        finding: Arc<FindingRecord>,
    ) -> Option<Arc<FindingRecord>> {
        self.len += 1;
        if let Some(waiting) = self.waiting.get_mut(address) {
            waiting.push_back(finding);
            return None;
        }
        self.waiting.insert(address.clone(), VecDeque::new());
        Some(finding)
    }

    /// Completes the current finding of an address, and returns the next one.
    pub fn next(&mut self, address: &FindingAddress) -> Option<Arc<FindingRecord>> {
        self.len = self.len.saturating_sub(1);
        let next = self.waiting.get_mut(address)?.pop_front();
        if next.is_none() {
            self.waiting.remove(address);
        }
        next
    }
}
