//! Effects of another configuration on one address.

use probe_model::FindingKind;

use super::Binding;
use crate::transition::{BindingContext, BindingTransition};

/// A change of the configuration or the host facts.
pub(crate) struct ReconfigurationChange<'a> {
    /// The address is tracked from now on.
    pub newly_tracked: bool,
    /// The context before the change.
    pub before: BindingContext<'a>,
}

impl Binding {
    /// Applies a change of the context. The state of the address stays.
    pub fn reconsider(
        &mut self,
        change: &ReconfigurationChange,
        transition: &mut BindingTransition,
    ) {
        let context = transition.context;
        if context.rules.owners_differ(change.before.rules) {
            let parties = self.count_parties(&context);
            if let Some(conflict) = self.conflict_mut() {
                conflict.clear_replies();
                let merged = self.count_parties(&change.before) > 1 && parties < 2;
                if merged {
                    let left = self
                        .current_owner
                        .map(|current_owner| self.owner_of(current_owner, &context));
                    self.end_conflict(FindingKind::ConflictResolved, left, transition);
                }
            }
        }
        self.report_again(change, transition);
        // In a conflict each remembered claimant may be an owner. The next new claimant evicts one.
        if self.conflict().is_none() {
            self.evict_surplus(None, transition);
        }
    }

    /// Reports an open conflict again that became tracked or is no longer ignored.
    fn report_again(&mut self, change: &ReconfigurationChange, transition: &mut BindingTransition) {
        let ignored = transition.is_ignored();
        let parties = self.count_parties(&transition.context);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.reconsider(change.newly_tracked, ignored) && parties > 1 {
            let evidence = conflict.evidence;
            self.report_conflict(FindingKind::Conflict, evidence, transition);
        }
    }
}
