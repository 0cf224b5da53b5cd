//! Networks that more than one place needs.

use anyhow::Result;

use crate::{host::Host, lab::Lab, switch::Switch};

/// The address that two hosts of [`Lab::three_hosts`] have (TEST-NET-1, RFC 5737).
pub const SHARED_ADDRESS: &str = "192.0.2.10";

/// A client, and two servers that somebody gave the same address.
#[derive(Debug)]
pub struct Duplicate {
    /// 192.0.2.1, who wants to reach the address.
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
        let switch = self.hub()?;
        let client = switch.host("client")?;
        let server = switch.host("server")?;
        let rival = switch.host("rival")?;
        client.add_address("192.0.2.1/24")?;
        server.add_address(&format!("{SHARED_ADDRESS}/24"))?;
        rival.add_address(&format!("{SHARED_ADDRESS}/24"))?;
        Ok(Duplicate {
            client,
            server,
            rival,
            switch,
        })
    }
}
