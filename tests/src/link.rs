//! The state of an interface.

use anyhow::Context;
use serde_json::Value;

use crate::namespace::Namespace;

/// The state of one interface as `ip -details -statistics link show` prints it.
#[derive(Clone, Debug)]
pub struct Link(Value);

impl Link {
    pub(crate) fn read(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        let text = namespace.ip([
            "-json",
            "-details",
            "-statistics",
            "link",
            "show",
            "dev",
            interface,
        ])?;
        let links: Vec<Value> =
            serde_json::from_str(&text).with_context(|| format!("not JSON from `ip`: {text}"))?;
        let link = links.into_iter().next().context("`ip` named no link")?;
        Ok(Self(link))
    }

    /// Whether the interface is up and has a carrier.
    pub fn is_up(&self) -> bool {
        self.0["operstate"] == "UP"
    }

    /// The interface index.
    pub fn index(&self) -> anyhow::Result<u32> {
        let index = self.0["ifindex"]
            .as_u64()
            .context("a link without an index")?;
        Ok(index.try_into()?)
    }

    /// The number of received frames, counted by the kernel.
    pub fn received(&self) -> anyhow::Result<u64> {
        self.0["stats64"]["rx"]["packets"]
            .as_u64()
            .context("a link without statistics")
    }

    /// Whether the interface is a bridge port in forwarding state.
    pub fn forwards(&self) -> bool {
        self.0["linkinfo"]["info_slave_data"]["state"] == "forwarding"
    }

    /// The IDs of the attached XDP programs in any mode.
    pub fn xdp_programs(&self) -> Vec<u64> {
        let one = self.0["xdp"]["prog"]["id"].as_u64();
        let more = self.0["xdp"]["attached"].as_array();
        let mut programs: Vec<_> = more
            .into_iter()
            .flatten()
            .filter_map(|program| program["prog"]["id"].as_u64())
            .chain(one)
            .collect();
        programs.dedup();
        programs
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attached_programs_are_listed() {
        let native = json!({"xdp": {"mode": 1, "prog": {"id": 7, "jited": 1}}});
        let several = json!({"xdp": {"mode": 4, "attached": [
            {"mode": 1, "prog": {"id": 7}}, {"mode": 2, "prog": {"id": 8}},
        ]}});
        assert_eq!(Link(native).xdp_programs(), [7]);
        assert_eq!(Link(several).xdp_programs(), [7, 8]);
        assert_eq!(Link(json!({})).xdp_programs(), [0; 0]);
    }
}
