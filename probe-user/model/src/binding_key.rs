//! The key of a binding: an address on one segment.

use std::net::IpAddr;

use probe_common::wire::Vlan;
use serde::Serialize;

/// The part of the network in which an address is unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Segment {
    /// Index of the interface.
    pub interface: u32,
    /// The VLAN on it.
    pub vlan: Vlan,
}

/// What a binding is known under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BindingKey {
    /// Where.
    pub segment: Segment,
    /// The address.
    pub ip: IpAddr,
}
