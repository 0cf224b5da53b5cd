//! Networks that more than one place needs.

use anyhow::Result;

use crate::{
    host::{Host, INTERFACE},
    lab::Lab,
    process::Finished,
    switch::Switch,
};

/// The address that two hosts of [`Lab::three_hosts`] have (TEST-NET-1, RFC 5737).
pub const SHARED_ADDRESS: &str = "192.0.2.10";

/// The address of the client there.
pub const CLIENT_ADDRESS: &str = "192.0.2.1";

/// A client, and two servers that somebody gave the same address.
#[derive(Debug)]
pub struct Duplicate {
    /// [`CLIENT_ADDRESS`], who wants to reach the address.
    pub client: Host,
    /// The first host with [`SHARED_ADDRESS`].
    pub server: Host,
    /// The second.
    pub rival: Host,
    /// What they are plugged into.
    pub switch: Switch,
}

impl Lab {
    /// A switch with three hosts on it, two of which have one address: the static duplicate that nobody
    /// notices until somebody asks.
    pub fn three_hosts(&self) -> Result<Duplicate> {
        let switch = self.bridge()?;
        let client = switch.host("client")?;
        let server = switch.host("server")?;
        let rival = switch.host("rival")?;
        client.add_address(&with_prefix(CLIENT_ADDRESS))?;
        server.add_address(&with_prefix(SHARED_ADDRESS))?;
        rival.add_address(&with_prefix(SHARED_ADDRESS))?;
        Ok(Duplicate {
            client,
            server,
            rival,
            switch,
        })
    }
}

impl Duplicate {
    /// Lets the client ask for the shared address anew, by a real ping. Whether that one is answered is
    /// a matter of luck: it is what makes duplicates so confusing.
    pub fn ask(&self) -> Result<Finished> {
        self.client.ask(SHARED_ADDRESS)
    }

    /// Moves the address from the server to the rival, who announces it as cluster software does.
    pub fn fail_over(&self) -> Result<()> {
        let address = with_prefix(SHARED_ADDRESS);
        self.server.remove_address(&address)?;
        self.rival.add_address(&address)?;
        // Unsolicited ARP is answered by nobody, which arping calls a failure.
        self.rival
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

    /// Lets the rival give the address up.
    pub fn remove_rival(&self) -> Result<()> {
        self.rival.remove_address(&with_prefix(SHARED_ADDRESS))
    }
}

fn with_prefix(address: &str) -> String {
    format!("{address}/24")
}
