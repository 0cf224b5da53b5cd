//! A Linux bridge in its own namespace.

use std::{sync::Arc, time::Duration};

use crate::{
    host::{Host, INTERFACE},
    lab::Numbers,
    link::Link,
    namespace::Namespace,
    wait::eventually,
};

const BRIDGE: &str = "switch";

/// A switch without spanning tree, so that ports forward immediately.
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

    /// Connects a new host and waits until its port forwards. The port is named like the host, so the name has at
    /// most 15 characters.
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
        host.wait_for_link("the carrier", Link::is_up)?;
        eventually(
            &format!("the port of {name} to forward"),
            Duration::from_secs(5),
            || Ok(Link::read(&self.namespace, name)?.forwards().then_some(())),
        )?;
        Ok(host)
    }

    /// Disconnects the port of a host.
    pub fn unplug(&self, host: &Host) -> anyhow::Result<()> {
        self.set_port(host, &["down"])
    }

    /// Connects the port of a host again.
    pub fn plug(&self, host: &Host) -> anyhow::Result<()> {
        self.set_port(host, &["up"])
    }

    /// Isolates the port of a host: two isolated hosts do not reach each other, but all others reach both.
    pub fn set_isolated(&self, host: &Host, apart: bool) -> anyhow::Result<()> {
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
