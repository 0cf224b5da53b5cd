//! How a conflict ends: by an answer, or by a long time without a second owner.

use std::cmp::Reverse;

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind, Timestamp};
use smallvec::SmallVec;

use super::{
    Binding,
    conflict::{Answered, Conclusion},
};
use crate::{
    Ask,
    owner::Identity,
    turn::{Scene, Turn},
};

impl Binding {
    pub(super) fn conflict_due_at(&self, scene: &Scene) -> Option<Timestamp> {
        let conflict = self.conflict()?;
        Some(conflict.due_at(|| self.expires_at(scene), &scene.rules.config))
    }

    /// When nobody but one owner will have claimed the address for the expiry time. This host goes on
    /// claiming what it holds.
    fn expires_at(&self, scene: &Scene) -> Timestamp {
        let mut last_seen: SmallVec<[(Identity, Timestamp); 8]> = SmallVec::new();
        if let Some(held) = scene.held {
            last_seen.push((self.owner_of(held.mac, scene), Timestamp(u64::MAX)));
        }
        for claimant in self.claimants.present() {
            let owner = self.owner_of(claimant.mac, scene);
            match last_seen.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, at)) => *at = claimant.last_seen.max(*at),
                None => last_seen.push((owner, claimant.last_seen)),
            }
        }
        last_seen.sort_unstable_by_key(|&(_, at)| Reverse(at));
        let second = last_seen.get(1).map(|&(_, at)| at);
        let evidence = self.conflict().map(|conflict| conflict.last_evidence);
        second.or(evidence).unwrap_or_default() + scene.rules.config.expiry
    }

    /// There has been no evidence, or no answer, for long enough, or no second owner for very long.
    pub(super) fn conflict_due(&mut self, turn: &mut Turn) {
        let config = &turn.scene.rules.config;
        let expires_at = self.expires_at(&turn.scene);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.quiet_since.is_some() && expires_at <= turn.at {
            self.end_conflict(FindingKind::ConflictExpired, None, turn);
            return;
        }
        let unanswered = conflict.inquiring_since().is_some();
        if config.may_ask {
            for ask in conflict.inquire(turn.scene.key, turn.at, config) {
                turn.ask(ask);
            }
        }
        if unanswered || !config.may_ask {
            self.become_quiet(turn);
        }
    }

    /// It was asked who is left.
    pub(super) fn resolve(&mut self, ask: &Ask, by: &[MacAddr], turn: &mut Turn) {
        let scene = turn.scene;
        let held = scene.held.map(|held| held.mac);
        // Nobody hears himself answer: for what this host holds, it would have.
        let answered = by
            .iter()
            .copied()
            .chain(held)
            .fold(Answered::Nobody, |so_far, mac| {
                let owner = self.owner_of(mac, &scene);
                match so_far {
                    Answered::Nobody => Answered::One(owner),
                    Answered::One(known) if known == owner => so_far,
                    Answered::One(_) | Answered::Several => Answered::Several,
                }
            });
        // What speaks for the address from this host, without its being configured here, cannot be asked.
        let unheard = held.is_none() && self.speaks_locally(&scene);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        match conflict.answered(ask, answered) {
            Conclusion::Waiting => {}
            Conclusion::OneLeft(owner) if !unheard => {
                self.end_conflict(FindingKind::ConflictResolved, Some(owner), turn);
            }
            Conclusion::OneLeft(_) | Conclusion::Unclear => self.become_quiet(turn),
            Conclusion::StillShared => self.evidence(Evidence::Confirmed, None, None, turn),
        }
    }

    /// Whether this host takes part by its claims.
    fn speaks_locally(&self, scene: &Scene) -> bool {
        let mut present = self.claimants.present();
        present.any(|claimant| scene.facts.is_local(claimant.mac))
    }

    pub(super) fn become_quiet(&mut self, turn: &mut Turn) {
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.quiet_since.is_none() {
            conflict.quiet_since = Some(turn.at);
            let evidence = conflict.evidence;
            self.tell_of_conflict(FindingKind::ConflictQuiet, evidence, turn);
        }
    }

    /// The conflict is over; `left` is the owner that is known to be left.
    pub(super) fn end_conflict(
        &mut self,
        kind: FindingKind,
        left: Option<Identity>,
        turn: &mut Turn,
    ) {
        if let Some(left) = left {
            self.holder = self.latest_mac_of(left, &turn.scene).or(self.holder);
        }
        if let Some(evidence) = self.conflict().map(|conflict| conflict.evidence) {
            self.tell_of_conflict(kind, evidence, turn);
        }
        if let Some(dispute) = &mut self.dispute {
            dispute.settle();
        }
        self.since = turn.at;
        if let Some(holder) = self.holder {
            self.leave_only(self.owner_of(holder, &turn.scene), &turn.scene);
        }
    }
}
