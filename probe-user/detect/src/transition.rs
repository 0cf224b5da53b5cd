//! The inputs and outputs of a binding's state transition.

use std::{collections::HashMap, net::IpAddr};

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, EvidenceCounts, Finding, FindingKind, Segment, Timestamp};
use smallvec::SmallVec;

use super::{
    DetectorStatistics, ProbeRequest,
    host_facts::{HostState, LocalAddress},
    owner::OwnerRules,
};

/// The context of one binding.
#[derive(Clone, Copy)]
pub(super) struct BindingContext<'a> {
    pub rules: &'a OwnerRules,
    pub facts: &'a HostState,
    pub key: BindingKey,
    /// The address is tracked.
    pub tracked: bool,
    /// The address of this host, if it has it.
    pub local_address: Option<LocalAddress>,
}

/// The processing of one claim, reply or deadline: its time, context and outputs.
pub(super) struct BindingTransition<'a> {
    pub at: Timestamp,
    pub context: BindingContext<'a>,
    pub state: &'a mut DetectorState,
    pub findings: &'a mut Vec<Finding>,
}

/// State of the detector that belongs to no single binding.
#[derive(Debug, Default)]
pub(super) struct DetectorState {
    /// The time up to which everything is processed.
    pub now: Timestamp,
    /// How many deadlines have been processed.
    pub processed_deadlines: u64,
    pub statistics: DetectorStatistics,
    pub probe_requests: Vec<ProbeRequest>,
    pub claimed_addresses: ClaimedAddressIndex,
}

/// Probe requests that are not taken are dropped beyond this number, the newest first.
const MAX_PROBE_REQUESTS: usize = 65_536;

impl BindingTransition<'_> {
    /// A finding at the time of this transition, without owners. `since` is when its subject began.
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

    /// Whether disputes about this address are ignored.
    pub fn is_ignored(&self) -> bool {
        let config = &self.context.rules.config;
        config.ignored(self.context.key.ip, self.at).is_some()
    }

    /// Reports a finding, unless it is an ignored dispute.
    pub fn report(&mut self, mut finding: Finding) {
        if finding.kind.is_dispute() && self.is_ignored() {
            self.state.statistics.ignored(finding.kind);
            return;
        }
        // A carried claim is an earlier one, but findings are in the order of time.
        finding.at = finding.at.max(self.state.now);
        self.state.statistics.count_reported(&finding);
        self.findings.push(finding);
    }

    /// Counts a finding that is suppressed as a repetition.
    pub const fn suppress(&mut self, kind: FindingKind) {
        self.state.statistics.count_suppressed(kind);
    }

    /// Adds a probe request.
    pub fn request_probe(&mut self, probe_request: ProbeRequest) {
        if self.state.probe_requests.len() < MAX_PROBE_REQUESTS {
            self.state.probe_requests.push(probe_request);
        } else {
            self.state.statistics.dropped_probe_requests += 1;
        }
    }
}

/// The addresses that each MAC has claimed on a segment, among those remembered: a host with none is unknown.
#[derive(Debug, Default)]
pub(super) struct ClaimedAddressIndex(HashMap<(Segment, MacAddr), ClaimedAddresses>);

/// The addresses of one MAC.
#[derive(Debug, Default)]
struct ClaimedAddresses {
    count: u32,
    /// The first of them.
    listed: SmallVec<[IpAddr; 1]>,
}

impl ClaimedAddresses {
    /// Whether all of them are listed.
    fn is_complete(&self) -> bool {
        self.listed.len() == self.count as usize
    }

    fn has_one_not_of(&self, other: &Self) -> bool {
        let mut listed = self.listed.iter();
        other.is_complete() && listed.any(|ip| !other.listed.contains(ip))
    }
}

/// At most this many addresses of a MAC are listed.
const MAX_LISTED: usize = 8;

impl ClaimedAddressIndex {
    /// Whether the host has claimed any address.
    pub fn has_any(&self, segment: Segment, mac: MacAddr) -> bool {
        self.0.contains_key(&(segment, mac))
    }

    /// Whether each of two MACs has claimed an address that the other has not. `false` where that is not known.
    pub fn have_own_addresses(&self, segment: Segment, one: MacAddr, other: MacAddr) -> bool {
        let [one, other] = [one, other].map(|mac| self.0.get(&(segment, mac)));
        let both = one.zip(other);
        both.is_some_and(|(one, other)| one.has_one_not_of(other) && other.has_one_not_of(one))
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
        let claimed = self.0.entry((key.segment, mac)).or_default();
        claimed.count += 1;
        if claimed.listed.len() < MAX_LISTED {
            claimed.listed.push(key.ip);
        }
    }

    /// The claim of the host on the address is forgotten.
    pub fn remove(&mut self, key: BindingKey, mac: MacAddr) {
        if let Some(claimed) = self.0.get_mut(&(key.segment, mac)) {
            claimed.count -= 1;
            claimed.listed.retain(|ip| *ip != key.ip);
            if claimed.count == 0 {
                self.0.remove(&(key.segment, mac));
            }
        }
    }
}
