//! The settings of detection, with their defaults.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::{MacPattern, Timestamp};

/// The settings of detection. The documentation describes [`DetectConfig::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectConfig {
    /// How long the previous owner must send no claim until an address has moved. Default 10 s: longer than the
    /// bursts of MetalLB and keepalived, and RFC 5227's `DEFEND_INTERVAL`.
    pub settle: Duration,
    /// How long after a takeover claims by earlier owners mean nothing. Default 1 s: in a clean handover
    /// the outgoing speaker still replies to the incoming one's announcement.
    pub takeover_grace: Duration,
    /// How long a speaker that starts announces addresses of others. Default 100 ms: MetalLB's speakers announce every
    /// service until they have joined their peers, for up to 60 ms.
    pub start_up_window: Duration,
    /// How long after a request a reply to it counts. Default 1 s.
    pub reply_window: Duration,
    /// Alternation: this many returns, each followed by a claim of another owner… Default 2: both owners have claimed
    /// the address again.
    pub alternation_returns: usize,
    /// …in this time. Default 10 s.
    pub alternation_window: Duration,
    /// Slow alternation: this many returns… Default 5, as RFC 7432 section 15.1 and FRR have it…
    pub slow_alternation_returns: usize,
    /// …in this time. Default 180 s, from the same sources.
    pub slow_alternation_window: Duration,
    /// How long this host has to release an address that another host claims. Default 1 s.
    pub local_grace: Duration,
    /// How long a conflict is without evidence until its resolution is looked for, and how long a contested
    /// address is calm until the next sign is a new episode. Default 60 s.
    pub quiet_after: Duration,
    /// The least time between the two rounds of probes for a resolution. Default 1 s.
    pub resolution_gap: Duration,
    /// How long only one owner has claimed the address until a quiet conflict expires. Default 10 min.
    pub expire_after: Duration,
    /// The windows in which the owners of a pending move are probed, counted from the takeover. Default 1–2 s and
    /// 3–4 s: not earlier, because a clean handover overlaps.
    pub confirmation: [(Duration, Duration); 2],
    /// Whether probes can be sent. Default no: then none is requested, and a conflict without
    /// evidence becomes quiet.
    pub can_probe: bool,
    /// How long after an unknown host's ARP probe a reply denies it the address. Default 1 s.
    pub probe_denied_window: Duration,
    /// How often one address is reported as denied to one prober. Default once an hour.
    pub probe_denied_interval: Duration,
    /// How often a sender's bogus frames of one reason are reported. Default once in 10 min.
    pub bogus_interval: Duration,
    /// How long a tracked address is not claimed until it is silent. Default never: an address may be unused, so
    /// this needs requests or probes for it.
    pub silent_after: Option<Duration>,
    /// How many MACs a binding remembers, at least 2. Default 8.
    pub max_macs: usize,
    /// How many bindings are remembered, at least 1. Default 65 536, a whole /16.
    pub max_bindings: usize,
    /// The MACs that first-hop redundancy protocols share between hosts. Default
    /// [`MacPattern::VIRTUAL_ROUTERS`].
    pub virtual_routers: Vec<MacPattern>,
    /// Sets of MACs that are one host. Sets that share a MAC are one set. Default none.
    pub same_owner: Vec<Vec<MacAddr>>,
    /// Disputes that are known to be fine. Default none.
    pub ignore: Vec<IgnoreRule>,
    /// The tracked networks, beyond gateways and this host's own addresses. Default none.
    pub tracked: Vec<IpNet>,
}

impl Default for DetectConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            settle: seconds(10),
            takeover_grace: seconds(1),
            start_up_window: Duration::from_millis(100),
            reply_window: seconds(1),
            alternation_returns: 2,
            alternation_window: seconds(10),
            slow_alternation_returns: 5,
            slow_alternation_window: seconds(180),
            local_grace: seconds(1),
            quiet_after: seconds(60),
            resolution_gap: seconds(1),
            expire_after: seconds(600),
            confirmation: [(seconds(1), seconds(2)), (seconds(3), seconds(4))],
            can_probe: false,
            probe_denied_window: seconds(1),
            probe_denied_interval: seconds(3600),
            bogus_interval: seconds(600),
            silent_after: None,
            max_macs: 8,
            max_bindings: 65_536,
            virtual_routers: MacPattern::VIRTUAL_ROUTERS.to_vec(),
            same_owner: Vec::new(),
            ignore: Vec::new(),
            tracked: Vec::new(),
        }
    }
}

impl DetectConfig {
    /// The ignore entry that covers the address now.
    pub fn ignored(&self, ip: IpAddr, now: Timestamp) -> Option<&IgnoreRule> {
        self.ignore.iter().find(|entry| entry.covers(ip, now))
    }
}

/// Addresses whose disputes are counted, not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreRule {
    /// The addresses.
    pub network: IpNet,
    /// The reason, for later readers of the configuration.
    pub reason: String,
    /// The end; `None` if there is none.
    pub expires: Option<Timestamp>,
}

impl IgnoreRule {
    fn covers(&self, ip: IpAddr, now: Timestamp) -> bool {
        self.network.contains(&ip) && self.expires.is_none_or(|expires| now < expires)
    }
}
