//! The health of the connection to a cluster, for the metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

#[cfg(feature = "kubernetes")]
use jiff::Timestamp;
use probe_cluster::snapshot::{Freshness, Resource, ResourceState};
use probe_common::label_enum;

use super::error::ApiOutcome;

label_enum! {
    /// The kinds of requests.
    pub enum ApiRequestKind {
        /// All objects of a watched resource.
        List = "list",
        /// Changes of a watched resource.
        Watch = "watch",
        /// The nodes.
        Nodes = "nodes",
        /// The endpoints of one service.
        Endpoints = "endpoints",
        /// The Lease of the leader election.
        Lease = "lease",
        /// Events on Services.
        Events = "events",
    }
}

/// The health of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceHealth {
    /// How current it is.
    pub freshness: Freshness,
    /// The number of stored objects.
    pub objects: usize,
    /// The number of objects that could not be parsed, or only in part.
    pub invalid: usize,
}

impl Default for ResourceHealth {
    fn default() -> Self {
        Self {
            freshness: Freshness {
                state: ResourceState::NeverRead,
                last_update: None,
                error: None,
            },
            objects: 0,
            invalid: 0,
        }
    }
}

/// The health of the connection. Written by its users, read by scrapes.
#[derive(Debug, Default)]
pub struct ApiHealth {
    requests: [[AtomicU64; ApiOutcome::COUNT]; ApiRequestKind::COUNT],
    resources: Mutex<BTreeMap<Resource, ResourceHealth>>,
    is_leader: AtomicBool,
    lost_findings: AtomicU64,
}

impl ApiHealth {
    /// The number of requests of a kind with this outcome.
    pub fn requests(&self, request: ApiRequestKind, outcome: ApiOutcome) -> u64 {
        self.counter(request, outcome).load(Ordering::Relaxed)
    }

    /// The health of a resource.
    pub fn resource(&self, resource: Resource) -> ResourceHealth {
        self.lock().get(&resource).cloned().unwrap_or_default()
    }

    /// Whether this process is the leader.
    pub fn is_leader(&self) -> bool {
        self.is_leader.load(Ordering::Relaxed)
    }

    /// The number of findings that were lost because annotation was too slow.
    pub fn lost_findings(&self) -> u64 {
        self.lost_findings.load(Ordering::Relaxed)
    }

    /// Counts lost findings.
    pub fn add_lost_findings(&self, number: u64) {
        self.lost_findings.fetch_add(number, Ordering::Relaxed);
    }

    /// Counts a request.
    pub fn count(&self, request: ApiRequestKind, outcome: ApiOutcome) {
        self.counter(request, outcome)
            .fetch_add(1, Ordering::Relaxed);
    }

    const fn counter(&self, request: ApiRequestKind, outcome: ApiOutcome) -> &AtomicU64 {
        &self.requests[request.number() as usize][outcome.number() as usize]
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Resource, ResourceHealth>> {
        // A panic elsewhere left a readable map.
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the users of the connection.
#[cfg(feature = "kubernetes")]
impl ApiHealth {
    pub(super) fn set_leader(&self, is_leader: bool) {
        self.is_leader.store(is_leader, Ordering::Relaxed);
    }

    pub(super) fn set_resource(&self, resource: Resource, health: ResourceHealth) {
        self.lock().insert(resource, health);
    }

    pub(super) fn set_counts(&self, resource: Resource, objects: usize, invalid: usize) {
        let mut resources = self.lock();
        let health = resources.entry(resource).or_default();
        (health.objects, health.invalid) = (objects, invalid);
    }

    /// Records that the API server sent data about a current resource.
    pub(super) fn record_contact(&self, resource: Resource, now: Timestamp) {
        self.lock()
            .entry(resource)
            .or_default()
            .freshness
            .last_update = Some(now);
    }
}
