//! What a binding may look at while it judges, and what it may leave behind.

use std::{collections::HashMap, net::IpAddr};

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, EvidenceCounts, Finding, FindingKind, Segment, Timestamp};
use smallvec::SmallVec;

use super::{
    DetectorStatistics, ProbeRequest,
    host_facts::{HostState, LocalAddress},
    owner::OwnerRules,
};

/// The surroundings of one binding.
#[derive(Clone, Copy)]
pub(super) struct BindingContext<'a> {
    pub rules: &'a OwnerRules,
    pub facts: &'a HostState,
    pub key: BindingKey,
    /// The address matters.
    pub tracked: bool,
    /// This host holds the address.
    pub local_address: Option<LocalAddress>,
}

/// One claim, answer or deadline while it is judged: when, among what, and where conclusions go.
pub(super) struct BindingTransition<'a> {
    pub at: Timestamp,
    pub context: BindingContext<'a>,
    pub state: &'a mut DetectorState,
    pub findings: &'a mut Vec<Finding>,
}

/// What the machine keeps that is no binding's own.
#[derive(Debug, Default)]
pub(super) struct DetectorState {
    /// The time up to which everything is judged.
    pub now: Timestamp,
    /// How many deadlines have been processed.
    pub processed_deadlines: u64,
    pub statistics: DetectorStatistics,
    pub probe_requests: Vec<ProbeRequest>,
    pub holders: HolderIndex,
}

/// Asks that nobody fetches are dropped beyond this, the newest first.
const MAX_ASKS: usize = 65_536;

impl BindingTransition<'_> {
    /// A finding of this turn, yet without owners. `since` is when what it tells of began.
    pub fn finding(&self, kind: FindingKind, since: Timestamp) -> Finding {
        Finding {
            kind,
            severity: kind.severity(self.context.tracked),
            at: self.at,
            segment: self.context.key.segment,
            ip: self.context.key.ip,
            since,
            owners: Vec::new(),
            evidence: None,
            counts: EvidenceCounts::default(),
            hint: None,
            bogus: None,
        }
    }

    /// Whether disputes over this address are known to be fine.
    pub fn is_ignored(&self) -> bool {
        let config = &self.context.rules.config;
        config.ignored(self.context.key.ip, self.at).is_some()
    }

    /// Reports a finding, unless it is a dispute that is known to be fine.
    pub fn report(&mut self, mut finding: Finding) {
        if finding.kind.is_dispute() && self.is_ignored() {
            self.state.statistics.ignored(finding.kind);
            return;
        }
        // A claim that arrives late tells of the past, but findings come in the order of time.
        finding.at = finding.at.max(self.state.now);
        self.state.statistics.count_reported(&finding);
        self.findings.push(finding);
    }

    /// Counts a finding that is not reported because its like just was.
    pub const fn suppress(&mut self, kind: FindingKind) {
        self.state.statistics.count_suppressed(kind);
    }

    /// Wishes something to be asked.
    pub fn request_probe(&mut self, ask: ProbeRequest) {
        if self.state.probe_requests.len() < MAX_ASKS {
            self.state.probe_requests.push(ask);
        } else {
            self.state.statistics.dropped_asks += 1;
        }
    }
}

/// The addresses that each MAC has claimed on a segment, among those remembered: a host with none is a newcomer.
#[derive(Debug, Default)]
pub(super) struct HolderIndex(HashMap<(Segment, MacAddr), HeldAddresses>);

/// The addresses of one MAC.
#[derive(Debug, Default)]
struct HeldAddresses {
    count: u32,
    /// The first of them.
    listed: SmallVec<[IpAddr; 1]>,
}

impl HeldAddresses {
    /// Whether all of them are listed.
    fn is_complete(&self) -> bool {
        self.listed.len() == self.count as usize
    }

    fn holds_one_not_of(&self, other: &Self) -> bool {
        let mut listed = self.listed.iter();
        other.is_complete() && listed.any(|ip| !other.listed.contains(ip))
    }
}

/// At most this many addresses of a MAC are listed.
const MAX_LISTED: usize = 8;

impl HolderIndex {
    /// Whether the host has claimed any address.
    pub fn holds_any(&self, segment: Segment, mac: MacAddr) -> bool {
        self.0.contains_key(&(segment, mac))
    }

    /// Whether each of two MACs has claimed an address that the other has not. `false` where that is not known.
    pub fn hold_own_addresses(&self, segment: Segment, one: MacAddr, other: MacAddr) -> bool {
        let [one, other] = [one, other].map(|mac| self.0.get(&(segment, mac)));
        let both = one.zip(other);
        both.is_some_and(|(one, other)| one.holds_one_not_of(other) && other.holds_one_not_of(one))
    }

    /// Whether two MACs have claimed the same addresses, two or more. `false` where that is not known.
    pub fn share_all_addresses(&self, segment: Segment, one: MacAddr, other: MacAddr) -> bool {
        let [one, other] = [one, other].map(|mac| self.0.get(&(segment, mac)));
        one.zip(other).is_some_and(|(one, other)| {
            one.is_complete()
                && one.count > 1
                && one.count == other.count
                && one.listed.iter().all(|ip| other.listed.contains(ip))
        })
    }

    /// The host has claimed the address for the first time.
    pub fn add(&mut self, key: BindingKey, mac: MacAddr) {
        let held = self.0.entry((key.segment, mac)).or_default();
        held.count += 1;
        if held.listed.len() < MAX_LISTED {
            held.listed.push(key.ip);
        }
    }

    /// The claim of the host on the address is forgotten.
    pub fn remove(&mut self, key: BindingKey, mac: MacAddr) {
        if let Some(held) = self.0.get_mut(&(key.segment, mac)) {
            held.count -= 1;
            held.listed.retain(|ip| *ip != key.ip);
            if held.count == 0 {
                self.0.remove(&(key.segment, mac));
            }
        }
    }
}
