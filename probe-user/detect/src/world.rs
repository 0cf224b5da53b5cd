//! What is given: by the configuration, and by what the host knows.

use probe_model::BindingKey;

use super::{
    facts::{KnownFacts, covers},
    owner::Rules,
    turn::Scene,
};

/// What is given.
#[derive(Debug)]
pub(super) struct World {
    pub rules: Rules,
    pub facts: KnownFacts,
}

impl World {
    /// The surroundings of one binding.
    pub fn scene(&self, key: BindingKey, tracked: bool) -> Scene<'_> {
        Scene {
            rules: &self.rules,
            facts: &self.facts,
            key,
            tracked,
            held: self.facts.held(&key),
        }
    }

    /// Whether the address matters.
    pub fn is_tracked(&self, key: &BindingKey) -> bool {
        covers(&self.rules.config.tracked, key.ip) || self.facts.is_tracked(key)
    }
}
