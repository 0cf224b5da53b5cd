//! Taking an address over, taking it back, and settling.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind, Hint, Timestamp};

use super::{
    Binding,
    claimants::{ClaimMode, PriorClaimantState},
    dispute::{Contest, TakeoverConfirmation},
};
use crate::{
    ProbePurpose, ProbeRequest,
    transition::{BindingContext, BindingTransition},
};

impl Binding {
    /// Another owner takes the address from `previous`.
    pub(super) fn take_over(
        &mut self,
        mac: MacAddr,
        previous: MacAddr,
        before: PriorClaimantState,
        turn: &mut BindingTransition,
    ) {
        let (at, config) = (turn.at, &turn.context.rules.config);
        self.holder = Some(mac);
        self.since = at;
        let dispute = self.dispute.get_or_insert_default();
        if before.known {
            dispute.record_return(at, config);
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
        let balanced = self.is_balanced(&turn.context);
        if alternates && !balanced {
            self.evidence(
                self.alternation_evidence(mac, &turn.context),
                None,
                None,
                turn,
            );
        } else if alternates || returned {
            self.report_contested(balanced.then_some(Hint::BalanceAlb), turn);
        }
        self.request_confirmation(mac, previous, turn);
    }

    /// A stranger that took the address from this host, lost it and took it again: this host held it.
    fn alternation_evidence(&self, mac: MacAddr, context: &BindingContext) -> Evidence {
        let is_local = |mac| context.facts.is_local(mac);
        let from_local = self
            .contest()
            .is_some_and(|contest| is_local(contest.settled_owner));
        if from_local && !is_local(mac) {
            Evidence::Local
        } else {
            Evidence::Alternation
        }
    }

    /// Bonding mode balance-alb: of two owners, one only ever asks and the other only ever answers.
    fn is_balanced(&self, context: &BindingContext) -> bool {
        let (mut asking, mut answering) = (None, None);
        for claimant in self.claimants.present() {
            let side = match claimant.mode {
                ClaimMode::Requests => &mut asking,
                ClaimMode::Replies => &mut answering,
                ClaimMode::Both => return false,
            };
            let owner = self.owner_of(claimant.mac, context);
            if *side.get_or_insert(owner) != owner {
                return false;
            }
        }
        asking.is_some() && answering.is_some() && asking != answering
    }

    /// Asked by us, an owner that does not have the address at present answered. That is no return, but no
    /// silence either.
    pub(super) fn confirm_current(&mut self, at: Timestamp) {
        if let Some(contest) = self.contest_mut() {
            contest.silent_since = contest.silent_since.max(at);
        }
    }

    /// Wishes both owners to be asked, twice.
    fn request_confirmation(&self, mac: MacAddr, previous: MacAddr, turn: &mut BindingTransition) {
        let (facts, config) = (turn.context.facts, &turn.context.rules.config);
        // Nobody hears himself answer.
        let with_local = facts.is_local(mac) || facts.is_local(previous);
        if !config.can_probe || with_local || self.conflict().is_some() {
            return;
        }
        for (round, (earliest, latest)) in (0..).zip(config.confirmation) {
            turn.request_probe(ProbeRequest {
                key: turn.context.key,
                purpose: ProbePurpose::Confirmation,
                round,
                requested_for: turn.at,
                earliest: turn.at + earliest,
                latest: turn.at + latest,
                to: vec![previous, mac],
            });
        }
    }

    /// A pending move was asked about.
    pub(super) fn confirm(
        &mut self,
        ask: &ProbeRequest,
        by: &[MacAddr],
        turn: &mut BindingTransition,
    ) {
        let previous = self.contest().map(|contest| contest.previous);
        let (Some(previous), Some(holder)) = (previous, self.holder) else {
            return;
        };
        if self.since != ask.requested_for {
            return;
        }
        let answered = |mac| {
            let owner = self.owner_of(mac, &turn.context);
            by.iter()
                .any(|&mac| self.owner_of(mac, &turn.context) == owner)
        };
        let said = TakeoverConfirmation {
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

    pub(super) fn settles_at(&self, context: &BindingContext) -> Option<Timestamp> {
        Some(self.contest()?.silent_since + context.rules.config.settle)
    }

    /// Nobody but the holder has claimed the address for long enough.
    pub(super) fn settle(&mut self, turn: &mut BindingTransition) {
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
        let context = turn.context;
        let from_local = context.facts.is_local(contest.settled_owner);
        if from_local && self.local_dispute_since(holder, &context).is_some() {
            // This host kept silent, but it still holds the address.
            self.report_contested(None, turn);
            self.holder = Some(contest.settled_owner);
            return;
        }
        let (now, then) = (
            self.owner_of(holder, &context),
            self.owner_of(contest.settled_owner, &context),
        );
        if now != then {
            let mut finding = turn.finding(FindingKind::Moved, self.since);
            finding.owners = self.owners_among(&context, |mac| {
                [now, then].contains(&self.owner_of(mac, &context))
            });
            finding.counts.returns = contest.returns;
            turn.report(finding);
        }
        self.retain_only(now, &context);
    }
}
