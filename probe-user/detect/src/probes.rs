//! ARP probes of hosts without an address on the segment, and the replies to them.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Timestamp};

use super::{DetectConfig, recent::RecentMap};

/// How many addresses' last probe, and how many denials, are remembered.
const HISTORY_CAPACITY: usize = 4096;

/// A booting host would take a probe for a rival's until this long after its last one (RFC 5227 section 2.1.1).
const BOOTING_FOR: Duration = Duration::from_secs(10);

/// Probes for one address that follow each other within this belong to one series.
const SERIES_GAP: Duration = Duration::from_mins(1);

/// A booting host sends three probes within 7 s and then announces the address or gives it up (RFC 5227 section 1.1).
/// A series that is twice as long in number and in time is not a booting host's: an ARP monitor, or a stuck client.
const MAX_BOOT_PROBES: u32 = 6;
const MAX_BOOT_TIME: Duration = Duration::from_secs(14);

/// The ARP probes that hosts without an address sent for one address, whichever host sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignProbes {
    /// The host that sent the last one.
    pub prober: MacAddr,
    /// When the last one was observed.
    pub last: Timestamp,
    first: Timestamp,
    count: u32,
}

impl ForeignProbes {
    /// A series that begins with this probe.
    pub const fn new(prober: MacAddr, at: Timestamp) -> Self {
        Self {
            prober,
            last: at,
            first: at,
            count: 1,
        }
    }

    /// The series with one more probe, or a new one if the last is too old.
    #[must_use]
    pub fn with_probe(self, prober: MacAddr, at: Timestamp) -> Self {
        if at.since(self.last) >= SERIES_GAP {
            return Self::new(prober, at);
        }
        Self {
            prober,
            last: at.max(self.last),
            count: self.count.saturating_add(1),
            ..self
        }
    }

    /// Whether the series is too long for a booting host.
    pub fn is_persistent(&self) -> bool {
        self.count > MAX_BOOT_PROBES && self.last.since(self.first) > MAX_BOOT_TIME
    }

    /// Until when a booting host may be affected by a probe from this host; `None` if no longer, or if no host is
    /// booting.
    pub fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.last + BOOTING_FOR;
        (until > now && !self.is_persistent()).then_some(until)
    }
}

/// The probes observed recently.
#[derive(Debug, Default)]
pub(super) struct ProbeHistory {
    requested_at: RecentMap<BindingKey, ForeignProbes, HISTORY_CAPACITY>,
    denied: RecentMap<(BindingKey, MacAddr), (), HISTORY_CAPACITY>,
}

/// The meaning of a reply to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeDenial {
    /// No unknown host probed the address in time.
    None,
    /// An unknown host probed the address, which is used.
    Denied {
        /// When it sent its probe.
        requested_at: Timestamp,
    },
    /// The same, reported a short time ago.
    AlreadyReported,
}

impl ProbeHistory {
    /// Records the broadcast ARP probe of a host that has no address.
    pub fn record_probe(&mut self, key: BindingKey, prober: MacAddr, at: Timestamp) {
        let known = self.requested_at.get(&key);
        let probes = known.map_or(ForeignProbes::new(prober, at), |(_, probes)| {
            probes.with_probe(prober, at)
        });
        self.requested_at.insert(key, at, probes);
    }

    /// The recent probes for an address.
    pub fn get(&self, key: &BindingKey) -> Option<&ForeignProbes> {
        self.requested_at.get(key).map(|(_, probes)| probes)
    }

    /// Records the reply of `owner` to the probe of `requester`.
    pub fn record_reply(
        &mut self,
        key: BindingKey,
        requester: MacAddr,
        owner: MacAddr,
        at: Timestamp,
        config: &DetectConfig,
    ) -> ProbeDenial {
        let Some(&(requested_at, _)) = self
            .requested_at
            .get(&key)
            .filter(|(_, probes)| probes.prober == requester)
        else {
            return ProbeDenial::None;
        };
        if owner == requester || at.since(requested_at) > config.probe_denied_window {
            return ProbeDenial::None;
        }
        let reported = self.denied.get(&(key, requester));
        if reported.is_some_and(|&(reported, ())| at.since(reported) < config.probe_denied_interval)
        {
            return ProbeDenial::AlreadyReported;
        }
        self.denied.insert((key, requester), at, ());
        ProbeDenial::Denied { requested_at }
    }

    /// Forgets everything, because the clock was set back.
    pub fn clear(&mut self) {
        self.requested_at.clear();
        self.denied.clear();
    }
}
