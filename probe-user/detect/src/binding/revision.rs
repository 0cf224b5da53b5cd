//! What another configuration means for one address.

use probe_model::FindingKind;

use super::Binding;
use crate::transition::{BindingContext, BindingTransition};

/// What has changed.
pub(crate) struct ReconfigurationChange<'a> {
    /// The address matters from now on.
    pub newly_tracked: bool,
    /// The surroundings before.
    pub before: BindingContext<'a>,
}

impl Binding {
    /// The turn's scene is another than before. What is known of the address stays.
    pub fn reconsider(&mut self, change: &ReconfigurationChange, turn: &mut BindingTransition) {
        let context = turn.context;
        if context.rules.owners_differ(change.before.rules) {
            let parties = self.count_parties(&context);
            if let Some(conflict) = self.conflict_mut() {
                conflict.clear_replies();
                let merged = self.count_parties(&change.before) > 1 && parties < 2;
                if merged {
                    let left = self.holder.map(|holder| self.owner_of(holder, &context));
                    self.end_conflict(FindingKind::ConflictResolved, left, turn);
                }
            }
        }
        self.report_again(change, turn);
        // In a conflict whoever is remembered may be a party to it. The next newcomer makes room then.
        if self.conflict().is_none() {
            self.evict_surplus(None, turn);
        }
    }

    /// Tells of an open conflict that matters more than when it was told.
    fn report_again(&mut self, change: &ReconfigurationChange, turn: &mut BindingTransition) {
        let ignored = turn.is_ignored();
        let parties = self.count_parties(&turn.context);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.reconsider(change.newly_tracked, ignored) && parties > 1 {
            let evidence = conflict.evidence;
            self.report_conflict(FindingKind::Conflict, evidence, turn);
        }
    }
}
