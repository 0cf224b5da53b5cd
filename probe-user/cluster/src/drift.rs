//! Where a cluster and the wire, or parts of a cluster, have drifted apart without a conflict. Pure.
//!
//! [`find`] says what is not as it should be at a moment; [`DriftTracker`] tells of it once it has held for long enough, so
//! that a service made a second ago, or a rollout, is none. What is not known is no drift: nothing is found from
//! resources that were never read, may not be, or are not there, and nothing new from those that the API server has
//! not been heard about lately.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use probe_common::{label_enum, wire::MacAddr};
use probe_model::{NamespacedName, Severity};
use serde::{Deserialize, Serialize};

use super::snapshot::{ClusterSnapshot, Resource, ResourceState};

mod evaluate;

pub use evaluate::{ObservedNetwork, find};

label_enum! {
    /// The ways to drift apart. Each has an entry in the runbook.
    pub enum DriftKind {
        /// A service has an address that is in no pool: the pool was edited or deleted.
        AddressOutsidePools = "address_outside_pools",
        /// An address of a pool that no service has is announced: a stale speaker, mostly.
        AnnouncedUnassigned = "announced_unassigned",
        /// A machine has an address of a pool before a service does.
        ClaimedUnassigned = "claimed_unassigned",
        /// Nobody announces the address of a service.
        NotAnnounced = "not_announced",
        /// A service waits for its address.
        ServicePending = "service_pending",
        /// No advertisement announces the addresses of a pool.
        PoolUnadvertised = "unadvertised_pool",
        /// An advertisement names or selects a pool that is not there.
        AdvertisementWithoutPool = "advertisement_without_pool",
        /// The node selectors of an advertisement select no node.
        AdvertisementWithoutNode = "advertisement_without_node",
        /// Pools have addresses in common.
        PoolsOverlap = "pool_overlap",
    }
}

label_enum! {
    /// Why a service has no address, or nobody announces the one it has.
    pub enum PendingReason {
        /// No pool gives it an address.
        NoPool = "no_pool",
        /// The pools have none left.
        Exhausted = "exhausted",
        /// It asks for an address that is in no pool it may use.
        RequestedOutside = "requested_outside_pools",
        /// It asks for an address that another service has.
        RequestedTaken = "requested_in_use",
        /// It asks for a pool that is not there.
        RequestedPoolUnknown = "requested_pool_not_found",
        /// Its `loadBalancerClass` is another controller's.
        ForeignClass = "other_load_balancer_class",
        /// None of its endpoints is ready, and no node announces a service without.
        NoReadyEndpoints = "no_ready_endpoints",
        /// Nothing advertises the pool of its address.
        NoAdvertisement = "no_advertisement",
        /// What is known does not say.
        Unknown = "unknown",
    }
}

/// A way in which things are not as they should be: a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// What.
    pub drift: DriftKind,
    /// How much it matters.
    pub severity: Severity,
    /// Since when, as far as is known.
    pub since: Timestamp,
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<NamespacedName>,
    /// The pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<NamespacedName>,
    /// The advertisement, or the other pool: its kind, namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PendingReason>,
    /// Who claims the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<MacAddr>,
    /// Which of them are nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// A sentence.
    pub says: String,
    /// What says so, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// What tells one drift from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriftKey {
    kind: DriftKind,
    service: Option<NamespacedName>,
    ip: Option<IpAddr>,
    pool: Option<NamespacedName>,
    object: Option<String>,
}

impl Drift {
    /// What it is about.
    pub fn key(&self) -> DriftKey {
        DriftKey {
            kind: self.drift,
            service: self.service.clone(),
            ip: self.ip,
            pool: self.pool.clone(),
            object: self.object.clone(),
        }
    }
}

/// Since when something has been so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftOnset {
    /// Since it was first found.
    FirstObserved,
    /// Since then, unless it was not so when last looked at.
    Since(Timestamp),
    /// Since then, and others have waited long enough before they said so.
    Immediate(Timestamp),
    /// Since it was first found, and only if it was seen again after that: the last time then.
    ObservedAgain(Timestamp),
}

/// What may be a drift, if it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftCandidate {
    /// What it would be; its `since` is not said yet.
    pub drift: Drift,
    /// Since when.
    pub onset: DriftOnset,
    /// What it is concluded from.
    pub required_resources: &'static [Resource],
}

/// Whether there are such objects, and they have been read.
pub(super) fn is_available(cluster: &ClusterSnapshot, resource: Resource) -> bool {
    match known(cluster, resource) {
        ResourceState::Current | ResourceState::Stale => true,
        ResourceState::NeverRead | ResourceState::NotInstalled | ResourceState::Forbidden => false,
    }
}

fn known(cluster: &ClusterSnapshot, resource: Resource) -> ResourceState {
    let freshness = cluster.objects().freshness.get(&resource);
    freshness.map_or(ResourceState::NeverRead, |freshness| freshness.known)
}

/// Tells of what has held for long enough.
#[derive(Debug)]
pub struct DriftTracker {
    grace_period: SignedDuration,
    /// What has been found, and may be told.
    found: BTreeMap<DriftKey, TrackedDrift>,
    last: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct TrackedDrift {
    first: Timestamp,
    since: Timestamp,
    reported: bool,
}

impl DriftTracker {
    /// A short look is enough where others have waited.
    const MIN_DURATION: SignedDuration = SignedDuration::from_secs(15);

    /// What has held this long is told.
    pub fn new(grace_period: Duration) -> Self {
        Self {
            grace_period: SignedDuration::try_from(grace_period).unwrap_or(SignedDuration::MAX),
            found: BTreeMap::new(),
            last: None,
        }
    }

    /// Forgets everything: somebody else looked meanwhile.
    pub fn forget(&mut self) {
        self.found.clear();
        self.last = None;
    }

    /// Whether this was found when last looked.
    pub fn is_tracked(&self, key: &DriftKey) -> bool {
        self.found.contains_key(key)
    }

    /// What is to be told now, of what was found now.
    pub fn observe(
        &mut self,
        now: Timestamp,
        cluster: &ClusterSnapshot,
        candidates: Vec<DriftCandidate>,
    ) -> Vec<Drift> {
        let mut before = std::mem::take(&mut self.found);
        let mut reported = Vec::new();
        for DriftCandidate {
            mut drift,
            onset,
            required_resources,
        } in candidates
        {
            let key = drift.key();
            if self.found.contains_key(&key) {
                continue;
            }
            let known_before = before.remove(&key);
            let is_current = required_resources
                .iter()
                .all(|&resource| known(cluster, resource) == ResourceState::Current);
            let mut found = match known_before {
                Some(found) if found.reported || is_current => found,
                // Nothing new from what may be otherwise by now.
                _ if !is_current => continue,
                _ => TrackedDrift {
                    first: now,
                    since: self.since(onset, now),
                    reported: false,
                },
            };
            found.reported |= self.is_due(found, onset, now);
            self.found.insert(key, found);
            if found.reported {
                drift.since = found.since;
                reported.push(drift);
            }
        }
        self.last = Some(now);
        reported.sort_by_cached_key(|drift| (drift.severity != Severity::Critical, drift.key()));
        reported
    }

    fn since(&self, onset: DriftOnset, now: Timestamp) -> Timestamp {
        match onset {
            DriftOnset::Immediate(at) => at.min(now),
            // It was not so then.
            DriftOnset::Since(at) => self
                .last
                .map_or(at, |last| if last > at { now } else { at })
                .min(now),
            DriftOnset::FirstObserved | DriftOnset::ObservedAgain(_) => now,
        }
    }

    fn is_due(&self, found: TrackedDrift, onset: DriftOnset, now: Timestamp) -> bool {
        let brief = self.grace_period.min(Self::MIN_DURATION);
        let looked = now.duration_since(found.first);
        let held = now.duration_since(found.since);
        match onset {
            DriftOnset::Immediate(_) => looked >= brief,
            DriftOnset::FirstObserved | DriftOnset::Since(_) => {
                looked >= brief && held >= self.grace_period
            }
            DriftOnset::ObservedAgain(last) => {
                held >= self.grace_period && last.duration_since(found.first) >= brief
            }
        }
    }
}

/// How many of each kind there are.
pub fn counts(drifts: &[Drift]) -> HashMap<DriftKind, usize> {
    let mut counts = HashMap::new();
    for drift in drifts {
        *counts.entry(drift.drift).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
