//! The records of interfaces and status for JSON, with names and wall clock times.

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
    /// The path.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The attach mode for received frames (`native`, `tc`, `generic`); `None` if it is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether the VLAN of received frames is visible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_visible: Option<bool>,
    /// The state of its link: `up` or `down`. While it is down, no frames are received.
    #[serde(default = "LinkState::unreported")]
    pub link: LinkState,
    /// Why it is not watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Received frames that the kernel side reported.
    pub received: u64,
    /// Sent frames that the kernel side reported.
    pub sent: u64,
}

/// Whether an interface is administratively up and has a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It is up, with a carrier.
    Up,
    /// It is down, without a carrier, or removed.
    Down,
}

impl LinkState {
    /// The default for older daemons that do not report it.
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

/// The status of the monitor: one JSON object. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRecord {
    /// The watched interfaces.
    pub interfaces: Vec<InterfaceRecord>,
    /// The number of claimed addresses.
    pub addresses: usize,
    /// The number of open conflicts.
    pub conflicts: usize,
    /// The time of the last frame that the kernel side reported.
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
    /// The current status.
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
