//! Three hosts, two of which share an address.

use anyhow::Result;

use crate::{
    host::{Host, INTERFACE},
    lab::Lab,
    process::Finished,
    switch::Switch,
};

/// The address that two hosts of [`Lab::three_hosts`] share (TEST-NET-1, RFC 5737).
pub const SHARED_ADDRESS: &str = "192.0.2.10";

/// The address of the client.
pub const CLIENT_ADDRESS: &str = "192.0.2.1";

/// A client, and two hosts with the same address.
#[derive(Debug)]
pub struct ThreeHosts {
    /// The host with [`CLIENT_ADDRESS`], which resolves the shared address.
    pub client: Host,
    /// The first host with [`SHARED_ADDRESS`].
    pub server: Host,
    /// The second host with [`SHARED_ADDRESS`].
    pub duplicate: Host,
    /// The switch that connects them.
    pub switch: Switch,
}

impl Lab {
    /// Creates a switch with three hosts, two of which have the same address: a static duplicate that shows only
    /// when the address is resolved.
    pub fn three_hosts(&self) -> Result<ThreeHosts> {
        let switch = self.bridge()?;
        let client = switch.host("client")?;
        let server = switch.host("server")?;
        let duplicate = switch.host("duplicate")?;
        client.add_address(&with_prefix(CLIENT_ADDRESS))?;
        server.add_address(&with_prefix(SHARED_ADDRESS))?;
        duplicate.add_address(&with_prefix(SHARED_ADDRESS))?;
        Ok(ThreeHosts {
            client,
            server,
            duplicate,
            switch,
        })
    }
}

impl ThreeHosts {
    /// Makes the client resolve the shared address again and ping it. The ping may succeed or fail, as usual with
    /// duplicates.
    pub fn resolve(&self) -> Result<Finished> {
        self.client.resolve(SHARED_ADDRESS)
    }

    /// Moves the address from the server to the duplicate, which announces it as cluster software does.
    pub fn fail_over(&self) -> Result<()> {
        let address = with_prefix(SHARED_ADDRESS);
        self.server.remove_address(&address)?;
        self.duplicate.add_address(&address)?;
        // Unsolicited ARP gets no reply, which arping reports as a failure.
        self.duplicate
            .run([
                "arping",
                "-U",
                "-c2",
                "-w2",
                "-I",
                INTERFACE,
                SHARED_ADDRESS,
            ])
            .map(drop)
    }

    /// Removes the address from the duplicate.
    pub fn remove_duplicate(&self) -> Result<()> {
        self.duplicate.remove_address(&with_prefix(SHARED_ADDRESS))
    }

    /// Removes the address from the server.
    pub fn remove_server(&self) -> Result<()> {
        self.server.remove_address(&with_prefix(SHARED_ADDRESS))
    }
}

fn with_prefix(address: &str) -> String {
    format!("{address}/24")
}
