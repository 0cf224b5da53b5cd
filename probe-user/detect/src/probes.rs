//! Newcomers that ask for an address by ARP probe, and what they learn.

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Timestamp};

use super::{DetectConfig, recent::RecentMap};

/// How many addresses' last probe, and how many denials, are remembered.
const HISTORY_CAPACITY: usize = 4096;

/// The probes seen lately.
#[derive(Debug, Default)]
pub(super) struct ProbeHistory {
    asked: RecentMap<BindingKey, MacAddr, HISTORY_CAPACITY>,
    denied: RecentMap<(BindingKey, MacAddr), (), HISTORY_CAPACITY>,
}

/// What an answer to a probe means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeDenial {
    /// Nothing: no newcomer asked in time.
    None,
    /// A newcomer asked, and learns that the address is used.
    Denied {
        /// When.
        asked: Timestamp,
    },
    /// The same again, too soon to be told again.
    AlreadyReported,
}

impl ProbeHistory {
    /// A newcomer asks everybody for an address.
    pub fn record_probe(&mut self, key: BindingKey, prober: MacAddr, at: Timestamp) {
        self.asked.insert(key, at, prober);
    }

    /// When a newcomer last asked for the address.
    pub fn last(&self, key: &BindingKey) -> Option<Timestamp> {
        self.asked.get(key).map(|&(at, _)| at)
    }

    /// `owner` tells `asker` that the address is used.
    pub fn record_reply(
        &mut self,
        key: BindingKey,
        asker: MacAddr,
        owner: MacAddr,
        at: Timestamp,
        config: &DetectConfig,
    ) -> ProbeDenial {
        let Some(&(asked, _)) = self.asked.get(&key).filter(|(_, prober)| *prober == asker) else {
            return ProbeDenial::None;
        };
        if owner == asker || at.since(asked) > config.probe_denied_window {
            return ProbeDenial::None;
        }
        let told = self.denied.get(&(key, asker));
        if told.is_some_and(|&(told, ())| at.since(told) < config.probe_denied_interval) {
            return ProbeDenial::AlreadyReported;
        }
        self.denied.insert((key, asker), at, ());
        ProbeDenial::Denied { asked }
    }

    /// Forgets everything: the clock was set back.
    pub fn clear(&mut self) {
        self.asked.clear();
        self.denied.clear();
    }
}
