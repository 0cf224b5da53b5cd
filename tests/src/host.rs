//! A host: a network namespace with one interface.

use std::{
    ffi::OsStr, fs, net::SocketAddr, path::Path, process::Command, sync::Arc, time::Duration,
};

use anyhow::Context;
use probe_common::wire::MacAddr;

use crate::{
    http::{self, Response},
    lab::Numbers,
    link::Link,
    namespace::Namespace,
    packet::{Capture, ScatteringSender, Sender},
    process::{Finished, Process},
    wait::eventually,
};

/// The name of the interface of every host.
pub const INTERFACE: &str = "eth0";

/// Timeout for a change of the link state.
const LINK_DEADLINE: Duration = Duration::from_secs(5);

/// Timeout for a tool that exits by itself.
const EXEC_DEADLINE: Duration = Duration::from_secs(30);

/// A host of the network.
#[derive(Debug)]
pub struct Host {
    name: String,
    mac: MacAddr,
    namespace: Arc<Namespace>,
}

impl Host {
    /// Creates a host without an interface.
    pub(crate) fn new(numbers: &Numbers, name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            mac: numbers.mac()?,
            namespace: numbers.namespace(name)?,
        })
    }

    /// The name of the host in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    /// The MAC address of the interface.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Changes the MAC address of the interface.
    pub fn set_mac(&mut self, mac: MacAddr) -> anyhow::Result<()> {
        self.mac = mac;
        self.apply_mac()
    }

    fn apply_mac(&self) -> anyhow::Result<()> {
        let mac = self.mac.to_string();
        self.ip(["link", "set", "dev", INTERFACE, "address", &mac])
    }

    pub(crate) fn set_link_up(&self) -> anyhow::Result<()> {
        self.apply_mac()?;
        self.ip(["link", "set", "dev", INTERFACE, "up"])
    }

    /// Adds an IP address (with prefix length) to the interface. The kernel does not announce it, but replies to
    /// ARP requests for it.
    pub fn add_address(&self, address: &str) -> anyhow::Result<()> {
        self.ip(["address", "add", address, "dev", INTERFACE])
    }

    /// Removes an IP address.
    pub fn remove_address(&self, address: &str) -> anyhow::Result<()> {
        self.ip(["address", "del", address, "dev", INTERFACE])
    }

    /// Flushes the neighbour table, so that the kernel resolves the next address again.
    pub fn flush_neighbours(&self) -> anyhow::Result<()> {
        self.ip(["neighbour", "flush", "all"])
    }

    /// Flushes the neighbour table and pings an address, so that the kernel sends an ARP request. Returns the
    /// result of the ping; with two owners it may succeed or fail.
    pub fn resolve(&self, address: &str) -> anyhow::Result<Finished> {
        self.flush_neighbours()?;
        self.run(["ping", "-c1", "-W1", address])
    }

    /// Sets a kernel parameter by its path below `/proc/sys/net`.
    pub fn set_parameter(&self, path: &str, value: &str) -> anyhow::Result<()> {
        self.enter(|| {
            let path = Path::new("/proc/sys/net").join(path);
            fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
        })
    }

    /// Runs `ip` in the namespace of the host.
    pub fn ip<'a>(&'a self, words: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
        self.namespace.ip(words).map(drop)
    }

    /// Runs a closure in the namespace of the host: sockets that it opens belong to the host.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.namespace.enter(work)
    }

    /// The current state of the interface.
    pub fn link(&self) -> anyhow::Result<Link> {
        self.link_of(INTERFACE)
    }

    /// The current state of another interface of the host.
    pub fn link_of(&self, interface: &str) -> anyhow::Result<Link> {
        Link::read(&self.namespace, interface)
    }

    /// Waits until the state of the interface meets the condition; `what` describes the condition in the error
    /// message.
    pub fn wait_for_link(
        &self,
        what: &str,
        mut condition: impl FnMut(&Link) -> bool,
    ) -> anyhow::Result<Link> {
        let what = format!("{what} on {} of {}", INTERFACE, self.name);
        eventually(&what, LINK_DEADLINE, || {
            Ok(Some(self.link()?).filter(&mut condition))
        })
    }

    /// Starts a program on the host. The first word is the program, the others are its arguments.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Process> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace()]);
        let mut title = format!("{}#", self.name);
        for word in words {
            title.push(' ');
            title.push_str(&word.as_ref().to_string_lossy());
            command.arg(word);
        }
        Process::spawn(title, command)
    }

    /// Runs a program on the host and waits until it exits, with any status.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Finished> {
        self.spawn(words)?.finish(EXEC_DEADLINE)
    }

    /// Runs a program on the host that must succeed and returns its standard output.
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<String> {
        self.run(words)?.success()
    }

    /// A raw socket that sends frames through the interface.
    pub fn sender(&self) -> anyhow::Result<Sender> {
        self.sender_on(INTERFACE)
    }

    /// A raw socket that sends frames through another interface of the host.
    pub fn sender_on(&self, interface: &str) -> anyhow::Result<Sender> {
        Sender::open(&self.namespace, interface)
    }

    /// A socket that sends nonlinear buffers: the headers are not in the linear part, as with drivers that split
    /// headers.
    pub fn scattering_sender(&self) -> anyhow::Result<ScatteringSender> {
        ScatteringSender::open(&self.namespace, INTERFACE)
    }

    /// Adds a veth pair with both ends on this host: a frame that is sent into one end is received at the other.
    pub fn add_cable(&self, end: &str, other_end: &str) -> anyhow::Result<()> {
        self.ip([
            "link", "add", end, "type", "veth", "peer", "name", other_end,
        ])?;
        for end in [end, other_end] {
            self.ip(["link", "set", "dev", end, "up"])?;
        }
        Ok(())
    }

    /// Starts to capture every frame on the interface.
    pub fn capture(&self) -> anyhow::Result<Capture> {
        Capture::open(&self.namespace, INTERFACE)
    }

    /// Sends an HTTP GET request from this host.
    pub fn http_get(&self, server: SocketAddr, path: &str) -> anyhow::Result<Response> {
        let stream = self.namespace.enter(|| http::connect(server))?;
        http::get(stream, path)
    }
}
