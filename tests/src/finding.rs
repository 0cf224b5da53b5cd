//! A finding in the JSON format of `probe`.

use anyhow::Context;
use jiff::Timestamp;
use probe_common::wire::MacAddr;
use serde::Deserialize;

/// A finding of the detector.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Finding {
    /// The time in RFC 3339 format.
    pub time: String,
    /// The kind: `conflict`, `moved` and so on.
    pub finding: String,
    /// The severity: `critical`, `warning`, `notice` or `info`.
    pub severity: String,
    /// The interface on which the frames arrived.
    pub interface: String,
    /// The VLAN: `0` for untagged frames, `100`, or `100.200`.
    pub vlan: String,
    /// The IP address that the finding is about.
    pub ip: String,
    /// The owners of the address.
    #[serde(default)]
    pub owners: Vec<Owner>,
    /// The evidence, for kinds that have one.
    #[serde(default)]
    pub evidence: serde_json::Value,
    /// The likely cause.
    #[serde(default)]
    pub hint: serde_json::Value,
    /// Counters, for kinds that have them.
    #[serde(default)]
    pub counts: serde_json::Value,
}

/// A host that claims an address.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Owner {
    /// The MAC addresses of the host.
    pub macs: Vec<String>,
    /// Its role in the finding.
    #[serde(default)]
    pub role: String,
}

impl Finding {
    /// Parses one line of output.
    pub fn parse(line: &str) -> anyhow::Result<Self> {
        serde_json::from_str(line).with_context(|| format!("not a finding: {line}"))
    }

    /// Returns the finding without its time: a live run and a capture have different clocks.
    #[must_use]
    pub fn without_time(mut self) -> Self {
        self.time.clear();
        self
    }

    /// Seconds between `start` and the time of the finding, by the daemon's clock. The time of a finding is the
    /// arrival time of its last frame. The result is negative if the finding is older than `start`.
    pub fn seconds_after(&self, start: Timestamp) -> anyhow::Result<f64> {
        let time: Timestamp = self
            .time
            .parse()
            .with_context(|| format!("not a time: {}", self.time))?;
        Ok(time.duration_since(start).as_secs_f64())
    }

    /// The address and VLAN that the finding is about.
    pub fn address(&self) -> (&str, &str) {
        (&self.ip, &self.vlan)
    }

    /// The MAC addresses of all owners, sorted.
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
