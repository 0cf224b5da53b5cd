//! A Linux bridge in a namespace of its own.

use std::{sync::Arc, time::Duration};

use crate::{
    host::{Host, INTERFACE},
    lab::Numbers,
    link::Link,
    namespace::Namespace,
    wait::eventually,
};

const BRIDGE: &str = "switch";

/// A switch. It forwards at once: there is no spanning tree to wait for.
#[derive(Debug)]
pub struct Switch {
    numbers: Arc<Numbers>,
    namespace: Arc<Namespace>,
    learning: bool,
}

impl Switch {
    pub(crate) fn new(numbers: &Arc<Numbers>, learning: bool) -> anyhow::Result<Self> {
        let namespace = numbers.namespace(BRIDGE)?;
        namespace.ip([
            "link",
            "add",
            BRIDGE,
            "type",
            "bridge",
            "stp_state",
            "0",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        namespace.ip(["link", "set", "dev", BRIDGE, "up"])?;
        Ok(Self {
            numbers: Arc::clone(numbers),
            namespace,
            learning,
        })
    }

    /// Plugs a new host in and waits until its port forwards. The port has the host's name, so that one
    /// is at most 15 characters long.
    pub fn host(&self, name: &str) -> anyhow::Result<Host> {
        let host = Host::new(&self.numbers, name)?;
        host.ip([
            "link",
            "add",
            INTERFACE,
            "type",
            "veth",
            "peer",
            "name",
            name,
            "netns",
            self.namespace.name(),
        ])?;
        self.namespace
            .ip(["link", "set", "dev", name, "master", BRIDGE])?;
        if !self.learning {
            self.set_port(&host, &["type", "bridge_slave", "learning", "off"])?;
        }
        self.plug(&host)?;
        host.set_link_up()?;
        host.wait_for_link("its carrier", Link::is_up)?;
        eventually(
            &format!("the port of {name} to forward"),
            Duration::from_secs(5),
            || Ok(Link::read(&self.namespace, name)?.forwards().then_some(())),
        )?;
        Ok(host)
    }

    /// Pulls the plug of a host's port.
    pub fn unplug(&self, host: &Host) -> anyhow::Result<()> {
        self.set_port(host, &["down"])
    }

    /// Plugs a host's port in again.
    pub fn plug(&self, host: &Host) -> anyhow::Result<()> {
        self.set_port(host, &["up"])
    }

    /// Keeps a host from every other that is kept apart, and from no one else: between two such hosts the
    /// network is cut, and all others still reach both.
    pub fn keep_apart(&self, host: &Host, apart: bool) -> anyhow::Result<()> {
        let state = if apart { "on" } else { "off" };
        self.set_port(host, &["type", "bridge_slave", "isolated", state])
    }

    fn set_port(&self, host: &Host, state: &[&str]) -> anyhow::Result<()> {
        let port = ["link", "set", "dev", host.name()];
        self.namespace
            .ip(port.into_iter().chain(state.iter().copied()))?;
        Ok(())
    }
}
