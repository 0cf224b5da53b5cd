//! Newcomers that ask for an address by ARP probe, and what they learn.

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Timestamp};

use super::{DetectConfig, recent::Recent};

/// How many addresses' last probe, and how many denials, are remembered.
const REMEMBERED: usize = 4096;

/// The probes seen lately.
#[derive(Debug, Default)]
pub(super) struct Probes {
    asked: Recent<BindingKey, MacAddr, REMEMBERED>,
    denied: Recent<(BindingKey, MacAddr), (), REMEMBERED>,
}

/// What an answer to a probe means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// Nothing: no newcomer asked in time.
    None,
    /// A newcomer asked, and learns that the address is used.
    Denied {
        /// When.
        asked: Timestamp,
    },
    /// The same again, too soon to be told again.
    ToldAlready,
}

impl Probes {
    /// A newcomer asks everybody for an address.
    pub fn ask(&mut self, key: BindingKey, prober: MacAddr, at: Timestamp) {
        self.asked.put(key, at, prober);
    }

    /// When a newcomer last asked for the address.
    pub fn last(&self, key: &BindingKey) -> Option<Timestamp> {
        self.asked.get(key).map(|&(at, _)| at)
    }

    /// `owner` tells `asker` that the address is used.
    pub fn answer(
        &mut self,
        key: BindingKey,
        asker: MacAddr,
        owner: MacAddr,
        at: Timestamp,
        config: &DetectConfig,
    ) -> Denial {
        let Some(&(asked, _)) = self.asked.get(&key).filter(|(_, prober)| *prober == asker) else {
            return Denial::None;
        };
        if owner == asker || at.since(asked) > config.probe_window {
            return Denial::None;
        }
        let told = self.denied.get(&(key, asker));
        if told.is_some_and(|&(told, ())| at.since(told) < config.probe_denied_interval) {
            return Denial::ToldAlready;
        }
        self.denied.put((key, asker), at, ());
        Denial::Denied { asked }
    }

    /// Forgets everything: the clock was set back.
    pub fn clear(&mut self) {
        self.asked.clear();
        self.denied.clear();
    }
}
