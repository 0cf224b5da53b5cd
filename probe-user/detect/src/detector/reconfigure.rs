//! A change of the configuration at run time. The state is kept.

use super::{BindingSlot, BindingTransition, DetectConfig, Detector, Finding, Timestamp};
use crate::{binding::ReconfigurationChange, owner::OwnerRules, transition::BindingContext};

impl Detector {
    /// Replaces the configuration. Deadlines by the old one are processed first; those in the past by the new one are due
    /// now. Conclusions stay, with these exceptions:
    ///
    /// - a conflict whose owners are declared to be one host is resolved;
    /// - a conflict of an address that is tracked from now on, or no longer ignored, is reported again;
    /// - over smaller bounds the least recently seen goes, but no open conflict and no tracked address.
    pub fn reconfigure(
        &mut self,
        config: DetectConfig,
        at: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        self.handle_clock_step(at);
        self.advance(at, findings);
        let at = at.max(self.state.now);
        self.reported_count += 1;
        let before = std::mem::replace(&mut self.environment.rules, OwnerRules::new(config));
        self.table
            .set_max(self.environment.rules.config.max_bindings);
        for slot in self.table.slots() {
            let Some(entry) = self.table.get_mut(slot) else {
                continue;
            };
            let was_tracked = entry.tracked;
            entry.tracked = self.environment.is_tracked(&entry.key);
            let context = self.environment.context(entry.key, entry.tracked);
            let change = ReconfigurationChange {
                newly_tracked: entry.tracked && !was_tracked,
                before: BindingContext {
                    rules: &before,
                    tracked: was_tracked,
                    ..context
                },
            };
            let mut transition = BindingTransition {
                at,
                context,
                state: &mut self.state,
                findings,
            };
            entry.binding.reconsider(&change, &mut transition);
            self.refresh_from(slot, at);
        }
        self.evict_surplus();
        self.advance(at, findings);
    }

    /// Evicts bindings beyond the bound, which was higher when they were inserted.
    pub(super) fn evict_surplus(&mut self) {
        while let Some(evicted) = self.table.evict_surplus() {
            self.state.statistics.evicted_bindings += 1;
            self.remove_claimed_addresses(&evicted);
        }
    }

    /// Updates the table; nothing is due before `at`.
    pub(super) fn refresh_from(&mut self, slot: BindingSlot, at: Timestamp) {
        let Some(entry) = self.table.get(slot) else {
            return;
        };
        let context = self.environment.context(entry.key, entry.tracked);
        let due = entry.binding.next_deadline(&context);
        self.table.update(slot, due.map(|due| due.max(at)));
    }
}
