//! What another configuration means for one address.

use probe_model::FindingKind;

use super::Binding;
use crate::turn::{Scene, Turn};

/// What has changed.
pub(crate) struct Change<'a> {
    /// The address matters from now on.
    pub newly_tracked: bool,
    /// The surroundings before.
    pub before: Scene<'a>,
}

impl Binding {
    /// The turn's scene is another than before. What is known of the address stays.
    pub fn reconsider(&mut self, change: &Change, turn: &mut Turn) {
        let scene = turn.scene;
        if scene.rules.owners_differ(change.before.rules) {
            let parties = self.count_parties(&scene);
            if let Some(conflict) = self.conflict_mut() {
                conflict.forget_answers();
                let merged = self.count_parties(&change.before) > 1 && parties < 2;
                if merged {
                    let left = self.holder.map(|holder| self.owner_of(holder, &scene));
                    self.end_conflict(FindingKind::ConflictResolved, left, turn);
                }
            }
        }
        self.tell_again(change, turn);
        // In a conflict whoever is remembered may be a party to it. The next newcomer makes room then.
        if self.conflict().is_none() {
            self.evict_surplus(None, turn);
        }
    }

    /// Tells of an open conflict that matters more than when it was told.
    fn tell_again(&mut self, change: &Change, turn: &mut Turn) {
        let ignored = turn.is_ignored();
        let parties = self.count_parties(&turn.scene);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.reconsider(change.newly_tracked, ignored) && parties > 1 {
            let evidence = conflict.evidence;
            self.tell_of_conflict(FindingKind::Conflict, evidence, turn);
        }
    }
}
