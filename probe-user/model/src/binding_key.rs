//! The key of a binding.

use std::net::IpAddr;

use probe_common::wire::Vlan;
use serde::Serialize;

/// A segment, in which an address is unique: an interface and a VLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Segment {
    /// The index of the interface.
    pub interface: u32,
    /// The VLAN on the interface.
    pub vlan: Vlan,
}

/// The key of a binding: segment and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BindingKey {
    /// The segment.
    pub segment: Segment,
    /// The address.
    pub ip: IpAddr,
}
