//! Drift: differences between the cluster and the network, or between parts of the cluster, without a conflict. Pure.
//!
//! [`find`] finds candidates at one moment; [`DriftTracker`] reports a candidate once it has persisted for long enough,
//! so that a service created a second ago, or a rollout, is no drift. Unknown data is no drift: resources that were
//! never read, are forbidden or are not installed yield no candidates, and stale resources yield no new ones.

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
    /// The kind of a drift. Each has an entry in the runbook.
    pub enum DriftKind {
        /// A service has an address that is in no pool: the pool was edited or deleted.
        AddressOutsidePools = "address_outside_pools",
        /// An address of a pool that no service has is announced: a stale speaker, mostly.
        AnnouncedUnassigned = "announced_unassigned",
        /// A host uses an address of a pool that no service has.
        ClaimedUnassigned = "claimed_unassigned",
        /// No host announces the address of a service.
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
    /// Why a service has no address, or no host announces the one it has.
    pub enum PendingReason {
        /// No pool gives it an address.
        NoPool = "no_pool",
        /// The pools have none left.
        Exhausted = "exhausted",
        /// It requests an address that is in no pool it may use.
        RequestedOutside = "requested_outside_pools",
        /// It requests an address that another service has.
        RequestedTaken = "requested_in_use",
        /// It requests a pool that does not exist.
        RequestedPoolUnknown = "requested_pool_not_found",
        /// Its `loadBalancerClass` is another controller's.
        ForeignClass = "other_load_balancer_class",
        /// None of its endpoints is ready, and no node announces a service without ready endpoints.
        NoReadyEndpoints = "no_ready_endpoints",
        /// Nothing advertises the pool of its address.
        NoAdvertisement = "no_advertisement",
        /// The reason is unknown.
        Unknown = "unknown",
    }
}

/// One drift: a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The kind of drift.
    pub drift: DriftKind,
    /// The severity.
    pub severity: Severity,
    /// The time since which it persists, as far as known.
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
    /// The reason, for drifts about a service without an address or announcer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PendingReason>,
    /// The MACs that claim the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<MacAddr>,
    /// The nodes among the claimants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// The drift in one sentence.
    pub summary: String,
    /// The evidence, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// The identity of a drift, independent of wording and evidence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriftKey {
    kind: DriftKind,
    service: Option<NamespacedName>,
    ip: Option<IpAddr>,
    pool: Option<NamespacedName>,
    object: Option<String>,
}

impl Drift {
    /// The identity of this drift.
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

/// How the start of a drift is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftOnset {
    /// The time it was first found.
    FirstObserved,
    /// This time, unless the last evaluation did not find it.
    Since(Timestamp),
    /// This time; the source of the time has already waited long enough.
    Immediate(Timestamp),
    /// The time it was first found, and only if it was observed again after that; the value is the last observation.
    ObservedAgain(Timestamp),
}

/// A candidate, which becomes a drift if it persists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftCandidate {
    /// The drift that it would become; its `since` is not set yet.
    pub drift: Drift,
    /// How its start is determined.
    pub onset: DriftOnset,
    /// The resources that it is concluded from.
    pub required_resources: &'static [Resource],
}

/// Whether a resource is installed and has been read.
pub(super) fn is_available(cluster: &ClusterSnapshot, resource: Resource) -> bool {
    match known(cluster, resource) {
        ResourceState::Current | ResourceState::Stale => true,
        ResourceState::NeverRead | ResourceState::NotInstalled | ResourceState::Forbidden => false,
    }
}

fn known(cluster: &ClusterSnapshot, resource: Resource) -> ResourceState {
    let freshness = cluster.objects().freshness.get(&resource);
    freshness.map_or(ResourceState::NeverRead, |freshness| freshness.state)
}

/// Reports candidates that have persisted for long enough.
#[derive(Debug)]
pub struct DriftTracker {
    grace_period: SignedDuration,
    /// The candidates found so far, reported or not.
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
    /// The minimum duration for a candidate whose source has already waited.
    const MIN_DURATION: SignedDuration = SignedDuration::from_secs(15);

    /// A tracker that reports candidates that have persisted for `grace_period`.
    pub fn new(grace_period: Duration) -> Self {
        Self {
            grace_period: SignedDuration::try_from(grace_period).unwrap_or(SignedDuration::MAX),
            found: BTreeMap::new(),
            last: None,
        }
    }

    /// Removes all candidates: another leader evaluated the cluster in the meantime.
    pub fn forget(&mut self) {
        self.found.clear();
        self.last = None;
    }

    /// Whether the last evaluation found this drift.
    pub fn is_tracked(&self, key: &DriftKey) -> bool {
        self.found.contains_key(key)
    }

    /// Updates the candidates, and returns the drifts to report.
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
                // Stale resources yield no new candidates.
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
            // The last evaluation did not find it.
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

/// Counts drifts by kind.
pub fn counts(drifts: &[Drift]) -> HashMap<DriftKind, usize> {
    let mut counts = HashMap::new();
    for drift in drifts {
        *counts.entry(drift.drift).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
