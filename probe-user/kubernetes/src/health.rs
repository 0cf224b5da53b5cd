//! How the connection to a cluster is doing, for metrics.

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
    /// What is asked of an API server.
    pub enum ApiRequestKind {
        /// All objects of a followed resource.
        List = "list",
        /// Changes of a followed resource.
        Watch = "watch",
        /// The nodes.
        Nodes = "nodes",
        /// The endpoints of one service.
        Endpoints = "endpoints",
        /// The Lease that decides who speaks for the cluster.
        Lease = "lease",
        /// Events on services.
        Events = "events",
    }
}

/// How one resource is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceHealth {
    /// How well it is known, and since when.
    pub freshness: Freshness,
    /// How many objects are kept.
    pub objects: usize,
    /// How many objects could not be read, or not all of them.
    pub invalid: usize,
}

impl Default for ResourceHealth {
    fn default() -> Self {
        Self {
            freshness: Freshness {
                known: ResourceState::NeverRead,
                heard: None,
                error: None,
            },
            objects: 0,
            invalid: 0,
        }
    }
}

/// How the connection is doing. Written by those who talk to the API server, read by scrapes.
#[derive(Debug, Default)]
pub struct ApiHealth {
    requests: [[AtomicU64; ApiOutcome::COUNT]; ApiRequestKind::COUNT],
    resources: Mutex<BTreeMap<Resource, ResourceHealth>>,
    is_leader: AtomicBool,
    lost_findings: AtomicU64,
}

impl ApiHealth {
    /// How many requests of a sort have ended so.
    pub fn requests(&self, request: ApiRequestKind, outcome: ApiOutcome) -> u64 {
        self.counter(request, outcome).load(Ordering::Relaxed)
    }

    /// How a resource is doing.
    pub fn resource(&self, resource: Resource) -> ResourceHealth {
        self.lock().get(&resource).cloned().unwrap_or_default()
    }

    /// Whether this node speaks for the cluster.
    pub fn holds(&self) -> bool {
        self.is_leader.load(Ordering::Relaxed)
    }

    /// Findings that nobody saw, because others had to wait for what the cluster knows of them.
    pub fn lost_findings(&self) -> u64 {
        self.lost_findings.load(Ordering::Relaxed)
    }

    /// So many more.
    pub fn add_lost_findings(&self, number: u64) {
        self.lost_findings.fetch_add(number, Ordering::Relaxed);
    }

    /// A request has ended.
    pub fn count(&self, request: ApiRequestKind, outcome: ApiOutcome) {
        self.counter(request, outcome)
            .fetch_add(1, Ordering::Relaxed);
    }

    const fn counter(&self, request: ApiRequestKind, outcome: ApiOutcome) -> &AtomicU64 {
        &self.requests[request.number() as usize][outcome.number() as usize]
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Resource, ResourceHealth>> {
        // Whoever panicked left a map that can be read.
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// For those who talk to the API server.
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

    /// The API server said something about a resource that is current.
    pub(super) fn record_contact(&self, resource: Resource, now: Timestamp) {
        self.lock().entry(resource).or_default().freshness.heard = Some(now);
    }
}
