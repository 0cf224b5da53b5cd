//! Taking an address over, taking it back, and settling.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind, Hint, Timestamp};

use super::{
    Binding,
    claimants::{Before, Manner},
    dispute::{Confirmation, Contest},
};
use crate::{
    Ask, Purpose,
    turn::{Scene, Turn},
};

impl Binding {
    /// Another owner takes the address from `previous`.
    pub(super) fn take_over(
        &mut self,
        mac: MacAddr,
        previous: MacAddr,
        before: Before,
        turn: &mut Turn,
    ) {
        let (at, config) = (turn.at, &turn.scene.rules.config);
        self.holder = Some(mac);
        self.since = at;
        let dispute = self.dispute.get_or_insert_default();
        if before.known {
            dispute.returned(at, config);
        }
        let returned = match &mut dispute.contest {
            None => {
                dispute.contest = Some(Contest::new(previous, at));
                false
            }
            Some(contest) => {
                contest.renew(previous, at, before.known);
                before.known
            }
        };
        if let Some(conflict) = &mut dispute.conflict {
            conflict.counts.returns += u64::from(before.known);
        }
        let alternates = dispute.alternates(at, config);
        let balanced = self.is_balanced(&turn.scene);
        if alternates && !balanced {
            self.evidence(self.kind_of_alternation(mac, &turn.scene), None, None, turn);
        } else if alternates || returned {
            self.contested(balanced.then_some(Hint::BalanceAlb), turn);
        }
        self.ask_to_confirm(mac, previous, turn);
    }

    /// A stranger that took the address from this host, lost it and took it again: this host held it.
    fn kind_of_alternation(&self, mac: MacAddr, scene: &Scene) -> Evidence {
        let is_local = |mac| scene.facts.is_local(mac);
        let from_local = self
            .contest()
            .is_some_and(|contest| is_local(contest.settled));
        if from_local && !is_local(mac) {
            Evidence::Local
        } else {
            Evidence::Alternation
        }
    }

    /// Bonding mode balance-alb: of two owners, one only ever asks and the other only ever answers.
    fn is_balanced(&self, scene: &Scene) -> bool {
        let (mut asking, mut answering) = (None, None);
        for claimant in self.claimants.present() {
            let side = match claimant.manner {
                Manner::Asking => &mut asking,
                Manner::Answering => &mut answering,
                Manner::Both => return false,
            };
            let owner = self.owner_of(claimant.mac, scene);
            if *side.get_or_insert(owner) != owner {
                return false;
            }
        }
        asking.is_some() && answering.is_some() && asking != answering
    }

    /// Asked by us, an owner that does not have the address at present answered. That is no return, but no
    /// silence either.
    pub(super) fn testify(&mut self, at: Timestamp) {
        if let Some(contest) = self.contest_mut() {
            contest.silent_since = contest.silent_since.max(at);
        }
    }

    /// Wishes both owners to be asked, twice.
    fn ask_to_confirm(&self, mac: MacAddr, previous: MacAddr, turn: &mut Turn) {
        let (facts, config) = (turn.scene.facts, &turn.scene.rules.config);
        // Nobody hears himself answer.
        let with_local = facts.is_local(mac) || facts.is_local(previous);
        if !config.may_ask || with_local || self.conflict().is_some() {
            return;
        }
        for (round, (earliest, latest)) in (0..).zip(config.confirmation) {
            turn.ask(Ask {
                key: turn.scene.key,
                purpose: Purpose::Confirmation,
                round,
                about: turn.at,
                earliest: turn.at + earliest,
                latest: turn.at + latest,
                to: vec![previous, mac],
            });
        }
    }

    /// A pending move was asked about.
    pub(super) fn confirm(&mut self, ask: &Ask, by: &[MacAddr], turn: &mut Turn) {
        let previous = self.contest().map(|contest| contest.previous);
        let (Some(previous), Some(holder)) = (previous, self.holder) else {
            return;
        };
        if self.since != ask.about {
            return;
        }
        let answered = |mac| {
            let owner = self.owner_of(mac, &turn.scene);
            by.iter()
                .any(|&mac| self.owner_of(mac, &turn.scene) == owner)
        };
        let said = Confirmation {
            previous: answered(previous),
            holder: answered(holder),
        };
        let Some(contest) = self.contest_mut() else {
            return;
        };
        if let Some(round) = contest.rounds.get_mut(usize::from(ask.round)) {
            *round = Some(said);
        }
        let [Some(first), Some(second)] = contest.rounds else {
            return;
        };
        if first.previous && first.holder && second.previous && second.holder {
            self.evidence(Evidence::Confirmed, None, None, turn);
        } else if !first.previous && !second.previous {
            self.settle(turn);
        }
    }

    pub(super) fn settles_at(&self, scene: &Scene) -> Option<Timestamp> {
        Some(self.contest()?.silent_since + scene.rules.config.settle)
    }

    /// Nobody but the holder has claimed the address for long enough.
    pub(super) fn settle(&mut self, turn: &mut Turn) {
        let Some(dispute) = &mut self.dispute else {
            return;
        };
        let in_conflict = dispute.conflict.is_some();
        let (Some(contest), Some(holder)) = (dispute.contest.take(), self.holder) else {
            return;
        };
        if in_conflict {
            return;
        }
        let scene = turn.scene;
        let from_local = scene.facts.is_local(contest.settled);
        if from_local && self.local_dispute_since(holder, &scene).is_some() {
            // This host kept silent, but it still holds the address.
            self.contested(None, turn);
            self.holder = Some(contest.settled);
            return;
        }
        let (now, then) = (
            self.owner_of(holder, &scene),
            self.owner_of(contest.settled, &scene),
        );
        if now != then {
            let mut finding = turn.finding(FindingKind::Moved, self.since);
            finding.owners = self.owners_among(&scene, |mac| {
                [now, then].contains(&self.owner_of(mac, &scene))
            });
            finding.counts.returns = contest.returns;
            turn.report(finding);
        }
        self.leave_only(now, &scene);
    }
}
