//! What is watched and how it goes, with the names and times that the world outside knows.

use jiff::Timestamp;
use probe_common::counter::Direction;
use probe_model::{
    Link, Links,
    watched::{WatchState, WatchedInterface, WatchedInterfaces},
};
use serde::{Deserialize, Serialize};

use crate::daemon::monitor::MonitorSnapshot;

/// A watched interface: a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceRecord {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// How its arriving frames are seen (`native`, `tc`, `generic`); nothing if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether the VLAN of an arriving frame can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_visible: Option<bool>,
    /// Whether its link is up: `up` or `down`. Where it is down, no frame arrives.
    #[serde(default = "LinkState::unreported")]
    pub link: LinkState,
    /// Why it is not watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Frames that arrived and were reported by the kernel side.
    pub received: u64,
    /// Frames that this host sent and that were reported by the kernel side.
    pub sent: u64,
}

/// Whether an interface is administratively up and has a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It is.
    Up,
    /// It is not, or it is gone.
    Down,
}

impl LinkState {
    /// What an older daemon, which does not report it, is taken to mean.
    const fn unreported() -> Self {
        Self::Up
    }

    fn of(link: Option<&Link>) -> Self {
        if link.is_some_and(Link::is_operational) {
            Self::Up
        } else {
            Self::Down
        }
    }
}

/// How the watching goes: one JSON object. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRecord {
    /// What is watched.
    pub interfaces: Vec<InterfaceRecord>,
    /// Addresses that somebody has claimed.
    pub addresses: usize,
    /// Conflicts that are open.
    pub conflicts: usize,
    /// When a frame was last reported by the kernel side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_frame: Option<Timestamp>,
}

impl InterfaceRecord {
    fn new(watched: &WatchedInterface, links: &Links, snapshot: &MonitorSnapshot) -> Self {
        let received = |direction| {
            let key = (watched.ifindex, direction);
            snapshot.received.get(&key).copied().unwrap_or(0)
        };
        let (mode, vlan_visible, error) = match &watched.state {
            WatchState::Attached { plan, vlan_visible } => (
                Some(plan.mode.label().to_owned()),
                Some(*vlan_visible),
                None,
            ),
            WatchState::Failed { reason } => (None, None, Some(reason.clone())),
        };
        Self {
            interface: watched.name.clone(),
            index: watched.ifindex,
            mode,
            vlan_visible,
            link: LinkState::of(links.get(watched.ifindex)),
            error,
            received: received(Direction::Ingress),
            sent: received(Direction::Egress),
        }
    }
}

impl StatusRecord {
    /// How it goes now.
    pub fn new(watched: &WatchedInterfaces, links: &Links, snapshot: &MonitorSnapshot) -> Self {
        let interfaces = watched
            .iter()
            .map(|watched| InterfaceRecord::new(watched, links, snapshot));
        Self {
            interfaces: interfaces.collect(),
            addresses: snapshot.statistics.bindings,
            conflicts: snapshot.statistics.open_conflicts,
            last_frame: snapshot
                .last_event
                .map(|at| probe_datapath::clock::MONOTONIC.to_wall_clock(at)),
        }
    }
}
