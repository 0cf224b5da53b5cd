//! The configuration and the host facts.

use probe_model::BindingKey;

use super::{
    host_facts::{HostState, covers},
    owner::OwnerRules,
    transition::BindingContext,
};

/// The configuration and the host facts.
#[derive(Debug)]
pub(super) struct DetectorEnvironment {
    pub rules: OwnerRules,
    pub facts: HostState,
}

impl DetectorEnvironment {
    /// The context of one binding.
    pub fn context(&self, key: BindingKey, tracked: bool) -> BindingContext<'_> {
        BindingContext {
            rules: &self.rules,
            facts: &self.facts,
            key,
            tracked,
            local_address: self.facts.local_address(&key),
        }
    }

    /// Whether the address is tracked.
    pub fn is_tracked(&self, key: &BindingKey) -> bool {
        covers(&self.rules.config.tracked, key.ip) || self.facts.is_tracked(key)
    }
}
