//! A lab: where its parts get their names and numbers from.

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

/// A network of its own. Its parts live as long as they are held; tests that run side by side each have
/// their own.
#[derive(Debug)]
pub struct Lab {
    numbers: Arc<Numbers>,
}

/// What makes the names and MAC addresses of one lab unique.
#[derive(Debug)]
pub(crate) struct Numbers {
    lab: u32,
    next_mac: AtomicU8,
}

impl Numbers {
    pub(crate) fn namespace(&self, part: &str) -> anyhow::Result<Arc<Namespace>> {
        Namespace::new(self.lab, part)
    }

    /// 02:00:00:00:00:01, …:02 and so on, in the order in which hosts are made: easy to read and the
    /// same in every run.
    pub(crate) fn mac(&self) -> anyhow::Result<MacAddr> {
        let number = self.next_mac.fetch_add(1, Ordering::Relaxed);
        ensure!(number > 0, "a lab has room for 255 hosts");
        Ok(MacAddr([2, 0, 0, 0, 0, number]))
    }
}

impl Lab {
    /// An empty lab.
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

    /// A switch as they are everywhere: it learns which MAC is behind which port, so a host sees
    /// broadcasts and what is meant for it.
    pub fn bridge(&self) -> anyhow::Result<Switch> {
        Switch::new(&self.numbers, true)
    }

    /// A switch that learns nothing and sends every frame to every port: each host sees everything, as
    /// on a mirror port.
    pub fn hub(&self) -> anyhow::Result<Switch> {
        Switch::new(&self.numbers, false)
    }

    /// A host whose network card is a device of this machine. When the host goes, the device comes back.
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

    /// A host without a network card.
    pub(crate) fn lonely_host(&self, name: &str) -> anyhow::Result<Host> {
        Host::new(&self.numbers, name)
    }

    /// Two hosts with a cable between them and nothing else: each sees exactly what the other sends,
    /// VLAN tags included (a bridge moves the tag out of the frame's bytes).
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
            host.wait_for_link("its carrier", crate::Link::is_up)?;
        }
        Ok(hosts)
    }
}
