//! A host: a namespace with one network card.

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

/// The name of every host's network card.
pub const INTERFACE: &str = "eth0";

/// For a state of a link that the kernel is about to reach.
const LINK_DEADLINE: Duration = Duration::from_secs(5);

/// For a tool that runs and ends on its own.
const EXEC_DEADLINE: Duration = Duration::from_secs(30);

/// One machine of the network.
#[derive(Debug)]
pub struct Host {
    name: String,
    mac: MacAddr,
    namespace: Arc<Namespace>,
}

impl Host {
    /// A host without a network card yet.
    pub(crate) fn new(numbers: &Numbers, name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            mac: numbers.mac()?,
            namespace: numbers.namespace(name)?,
        })
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    /// The address of its network card.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Gives its network card another address.
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

    /// Configures an IP address (with its prefix length). The kernel announces nothing; it answers
    /// whoever asks.
    pub fn add_address(&self, address: &str) -> anyhow::Result<()> {
        self.ip(["address", "add", address, "dev", INTERFACE])
    }

    /// Removes an IP address.
    pub fn remove_address(&self, address: &str) -> anyhow::Result<()> {
        self.ip(["address", "del", address, "dev", INTERFACE])
    }

    /// Forgets the neighbours that it knows, so that it asks for the next one anew.
    pub fn forget_neighbours(&self) -> anyhow::Result<()> {
        self.ip(["neighbour", "flush", "all"])
    }

    /// Asks for an address anew, by a real ping. The outcome is the ping's: with two owners, whether it is
    /// answered is a matter of luck.
    pub fn ask(&self, address: &str) -> anyhow::Result<Finished> {
        self.forget_neighbours()?;
        self.run(["ping", "-c1", "-W1", address])
    }

    /// Sets a parameter of the kernel, by its path below `/proc/sys/net`.
    pub fn set_parameter(&self, path: &str, value: &str) -> anyhow::Result<()> {
        self.enter(|| {
            let path = Path::new("/proc/sys/net").join(path);
            fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
        })
    }

    /// Runs `ip` on it.
    pub fn ip<'a>(&'a self, words: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
        self.namespace.ip(words).map(drop)
    }

    /// Does something on it: sockets that are opened and questions that are put to the kernel there are
    /// this host's.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.namespace.enter(work)
    }

    /// What the kernel says of its network card now.
    pub fn link(&self) -> anyhow::Result<Link> {
        self.link_of(INTERFACE)
    }

    /// What the kernel says of another interface of the host now.
    pub fn link_of(&self, interface: &str) -> anyhow::Result<Link> {
        Link::read(&self.namespace, interface)
    }

    /// Waits for its network card to be as wished; `what` names the wish.
    pub fn wait_for_link(
        &self,
        what: &str,
        mut wish: impl FnMut(&Link) -> bool,
    ) -> anyhow::Result<Link> {
        let what = format!("{what} on {} of {}", INTERFACE, self.name);
        eventually(&what, LINK_DEADLINE, || {
            Ok(Some(self.link()?).filter(&mut wish))
        })
    }

    /// Starts a program on it: the program first, then its arguments.
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

    /// Runs a program on it to its end, whatever that is.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Finished> {
        self.spawn(words)?.finish(EXEC_DEADLINE)
    }

    /// Runs a program on it that must succeed, and returns what it printed.
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<String> {
        self.run(words)?.success()
    }

    /// A socket that sends whatever bytes it is given through its network card.
    pub fn sender(&self) -> anyhow::Result<Sender> {
        self.sender_on(INTERFACE)
    }

    /// The same through another interface of the host.
    pub fn sender_on(&self, interface: &str) -> anyhow::Result<Sender> {
        Sender::open(&self.namespace, interface)
    }

    /// A socket through which frames leave whose headers are not in one piece of memory with the start of
    /// the buffer, as a driver that splits headers delivers them.
    pub fn scattering_sender(&self) -> anyhow::Result<ScatteringSender> {
        ScatteringSender::open(&self.namespace, INTERFACE)
    }

    /// Adds a cable with both ends plugged into this host: what is sent into one arrives at the other.
    pub fn add_cable(&self, end: &str, other_end: &str) -> anyhow::Result<()> {
        self.ip([
            "link", "add", end, "type", "veth", "peer", "name", other_end,
        ])?;
        for end in [end, other_end] {
            self.ip(["link", "set", "dev", end, "up"])?;
        }
        Ok(())
    }

    /// Starts to listen to every frame on its network card.
    pub fn capture(&self) -> anyhow::Result<Capture> {
        Capture::open(&self.namespace, INTERFACE)
    }

    /// Asks an HTTP server for a page, from this host.
    pub fn http_get(&self, server: SocketAddr, path: &str) -> anyhow::Result<Response> {
        let stream = self.namespace.enter(|| http::connect(server))?;
        http::get(stream, path)
    }
}
