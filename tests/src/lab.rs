//! The lab, an isolated test network made of network namespaces.

use std::sync::{
    Arc, Once,
    atomic::{AtomicU8, AtomicU32, Ordering},
};

use anyhow::ensure;
use probe_common::wire::MacAddr;

use crate::{
    host::{Host, INTERFACE},
    namespace::{self, Namespace},
    switch::Switch,
    tool::ip,
};

/// An isolated test network. Its parts exist as long as they are held; parallel tests have separate labs.
#[derive(Debug)]
pub struct Lab {
    numbers: Arc<Numbers>,
}

/// Assigns unique names and MAC addresses within one lab.
#[derive(Debug)]
pub(crate) struct Numbers {
    lab: u32,
    next_mac: AtomicU8,
}

impl Numbers {
    pub(crate) fn namespace(&self, part: &str) -> anyhow::Result<Arc<Namespace>> {
        Namespace::new(self.lab, part)
    }

    /// The next MAC address: 02:00:00:00:00:01, …:02 and so on, in the order in which hosts are created, so that
    /// every run uses the same addresses.
    pub(crate) fn mac(&self) -> anyhow::Result<MacAddr> {
        let number = self.next_mac.fetch_add(1, Ordering::Relaxed);
        ensure!(number > 0, "a lab has room for 255 hosts");
        Ok(MacAddr([2, 0, 0, 0, 0, number]))
    }
}

impl Lab {
    /// Creates an empty lab.
    pub fn new() -> anyhow::Result<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(namespace::sweep);
        Ok(Self {
            numbers: Arc::new(Numbers {
                lab: NEXT.fetch_add(1, Ordering::Relaxed),
                next_mac: AtomicU8::new(1),
            }),
        })
    }

    /// Adds a learning switch: a host receives broadcasts and the frames that are addressed to it.
    pub fn bridge(&self) -> anyhow::Result<Switch> {
        Switch::new(&self.numbers, true)
    }

    /// Adds a hub: every host receives every frame, as on a mirror port.
    pub fn hub(&self) -> anyhow::Result<Switch> {
        Switch::new(&self.numbers, false)
    }

    /// Creates a host whose interface is a device of this machine. The device is returned when the host is dropped.
    pub fn adopt(&self, name: &str, device: &str) -> anyhow::Result<Host> {
        let host = Host::new(&self.numbers, name)?;
        ip([
            "link",
            "set",
            "dev",
            device,
            "netns",
            host.namespace(),
            "name",
            INTERFACE,
        ])?;
        host.set_link_up()?;
        Ok(host)
    }

    /// Creates a host without an interface.
    pub(crate) fn host_without_interface(&self, name: &str) -> anyhow::Result<Host> {
        Host::new(&self.numbers, name)
    }

    /// Creates two hosts that are connected by a veth pair: each receives exactly the frames that the other sends,
    /// including VLAN tags (a bridge moves the tag out of the frame).
    pub fn pair(&self, left: &str, right: &str) -> anyhow::Result<[Host; 2]> {
        let hosts = [
            Host::new(&self.numbers, left)?,
            Host::new(&self.numbers, right)?,
        ];
        let [left, right] = &hosts;
        left.ip([
            "link",
            "add",
            INTERFACE,
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            right.namespace(),
        ])?;
        for host in &hosts {
            host.set_link_up()?;
        }
        for host in &hosts {
            host.wait_for_link("the carrier", crate::Link::is_up)?;
        }
        Ok(hosts)
    }
}
