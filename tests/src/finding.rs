//! A finding, as the binary prints it in JSON.

use anyhow::Context;
use jiff::Timestamp;
use probe_common::wire::MacAddr;
use serde::Deserialize;

/// What detection concluded; see the design for the words.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Finding {
    /// When, as RFC 3339.
    pub time: String,
    /// `conflict`, `moved` and so on.
    pub finding: String,
    /// `critical`, `warning`, `notice` or `info`.
    pub severity: String,
    /// Where.
    pub interface: String,
    /// `0` untagged, `100`, or `100.200`.
    pub vlan: String,
    /// The address that it is about.
    pub ip: String,
    /// Who claims it.
    #[serde(default)]
    pub owners: Vec<Owner>,
    /// What it rests on, where it rests on something.
    #[serde(default)]
    pub evidence: serde_json::Value,
    /// What may be the cause.
    #[serde(default)]
    pub hint: serde_json::Value,
    /// How often what was seen.
    #[serde(default)]
    pub counts: serde_json::Value,
}

/// One machine that claims an address.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Owner {
    /// Its MAC addresses.
    pub macs: Vec<String>,
}

impl Finding {
    /// Reads one line.
    pub fn parse(line: &str) -> anyhow::Result<Self> {
        serde_json::from_str(line).with_context(|| format!("not a finding: {line}"))
    }

    /// The same without its time: the clock of a live run is translated anew for each line, and a capture has
    /// times of its own.
    #[must_use]
    pub fn without_time(mut self) -> Self {
        self.time.clear();
        self
    }

    /// How long after `start` it became true, by the clock of whoever reports it: the time at which its last frame
    /// arrived, not the one at which a test has read it. Negative if that was earlier.
    pub fn seconds_after(&self, start: Timestamp) -> anyhow::Result<f64> {
        let time: Timestamp = self
            .time
            .parse()
            .with_context(|| format!("not a time: {}", self.time))?;
        Ok(time.duration_since(start).as_secs_f64())
    }

    /// What it is about: the address and its VLAN.
    pub fn address(&self) -> (&str, &str) {
        (&self.ip, &self.vlan)
    }

    /// Every MAC address of every owner, in order.
    pub fn macs(&self) -> anyhow::Result<Vec<MacAddr>> {
        let mut macs = self
            .owners
            .iter()
            .flat_map(|owner| &owner.macs)
            .map(|mac| {
                mac.parse()
                    .with_context(|| format!("not a MAC address: {mac}"))
            })
            .collect::<anyhow::Result<Vec<MacAddr>>>()?;
        macs.sort_unstable();
        Ok(macs)
    }
}
