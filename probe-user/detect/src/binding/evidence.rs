//! What opens a conflict, and what is less than one.

use probe_model::{Evidence, Finding, FindingKind, Hint, OwnerView};
use smallvec::SmallVec;

use super::{Binding, claimants::Claimant, conflict::OpenConflict};
use crate::{
    RequestId,
    transition::{BindingContext, BindingTransition},
};

impl Binding {
    /// There is evidence of two owners.
    pub(super) fn evidence(
        &mut self,
        evidence: Evidence,
        request: Option<RequestId>,
        hint: Option<Hint>,
        turn: &mut BindingTransition,
    ) {
        self.drop_absent_owners(turn);
        let owners = self.count_parties(&turn.context);
        if owners < 2 {
            return;
        }
        let dispute = self.dispute.get_or_insert_default();
        dispute.stale = None;
        let returns = dispute.returns.len() as u64;
        let conflict = dispute
            .conflict
            .get_or_insert_with(|| OpenConflict::new(evidence, turn.at, returns));
        conflict.hint = hint.or(conflict.hint);
        let is_unexplained = conflict.hint.is_none();
        let is_new = conflict.add_evidence(evidence, turn.at, request, owners, turn.is_ignored());
        if is_new {
            self.report_conflict(FindingKind::Conflict, evidence, turn);
            self.request_baseline(turn);
        } else if is_unexplained && self.is_arp_flux(turn) {
            self.set_hint(Hint::ArpFlux);
        }
    }

    fn set_hint(&mut self, hint: Hint) {
        if let Some(conflict) = self.conflict_mut() {
            conflict.hint = Some(hint);
        }
    }

    /// Evidence reopens a quiet conflict: an owner that has not claimed the address for as long as it takes to become
    /// quiet is no longer in it, unless less than two would be left. This host's own speaker is rarely seen to claim,
    /// and stays.
    fn drop_absent_owners(&mut self, turn: &BindingTransition) {
        let facts = turn.context.facts;
        let quiet_after = turn.context.rules.config.quiet_after;
        if self
            .conflict()
            .is_none_or(|conflict| conflict.quiet_since.is_none())
        {
            return;
        }
        let before = self.claimants.clone();
        self.claimants.retain_present(|claimant| {
            facts.is_local(claimant.mac) || turn.at.since(claimant.last_seen) < quiet_after
        });
        if self.count_parties(&turn.context) < 2 {
            self.claimants = before;
        } else if let Some(conflict) = self.conflict_mut() {
            conflict.forget_reported_owners();
        }
    }

    /// More owners have claimed the address lately than are remembered: the first time it is contested, then a
    /// conflict. Without this, owners in rotation would each be evicted just before they claim again.
    pub(super) fn report_surplus(&mut self, turn: &mut BindingTransition) {
        let (at, context, config) = (turn.at, turn.context, &turn.context.rules.config);
        let is_recent =
            |claimant: &Claimant| at.since(claimant.last_seen) < config.slow_alternation_window;
        let mut owners: SmallVec<[_; 8]> = SmallVec::new();
        for claimant in self.claimants.iter().filter(|claimant| is_recent(claimant)) {
            let owner = self.owner_of(claimant.mac, &context);
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        if owners.len() < config.max_macs {
            // Several MACs of one owner.
            return;
        }
        self.claimants.readmit(is_recent);
        let dispute = self.dispute.get_or_insert_default();
        let last = dispute.surplus.replace(at);
        if last.is_some_and(|last| at.since(last) < config.slow_alternation_window) {
            self.evidence(Evidence::ManyOwners, None, None, turn);
        } else {
            self.report_contested(None, turn);
        }
    }

    /// There is a sign of trouble that is less than a conflict. It is told once an episode, which ends when
    /// there was none for a while.
    pub(super) fn report_contested(&mut self, hint: Option<Hint>, turn: &mut BindingTransition) {
        let since = self.since;
        let dispute = self.dispute.get_or_insert_default();
        if dispute.conflict.is_some() {
            return;
        }
        let quiet = turn.context.rules.config.quiet_after;
        let known = dispute
            .contested
            .is_some_and(|last| turn.at.since(last) < quiet);
        dispute.contested = dispute.contested.max(Some(turn.at));
        if known {
            turn.suppress(FindingKind::Contested);
            return;
        }
        let (began, returns) = dispute
            .contest
            .map_or((since, 0), |contest| (contest.began, contest.returns));
        let mut finding = turn.finding(FindingKind::Contested, began);
        finding.counts.returns = returns;
        finding.hint = hint;
        finding.owners = self.parties_at(&turn.context, turn.at);
        turn.report(finding);
    }

    /// Tells what has become of the open conflict, and why.
    pub(super) fn report_conflict(
        &mut self,
        kind: FindingKind,
        evidence: Evidence,
        turn: &mut BindingTransition,
    ) {
        if let Some(finding) = self.conflict_finding(kind, evidence, turn) {
            turn.report(finding);
        }
    }

    /// A finding about the open conflict, with its present owners and hint.
    pub(super) fn conflict_finding(
        &mut self,
        kind: FindingKind,
        evidence: Evidence,
        turn: &BindingTransition,
    ) -> Option<Finding> {
        let owners = self.parties_at(&turn.context, turn.at);
        let announcers = self.hint_of_announcers(&owners);
        let flux = self.is_arp_flux(turn).then_some(Hint::ArpFlux);
        let conflict = self.conflict_mut()?;
        conflict.hint = hint_of_parties(&owners, &turn.context)
            .or(flux)
            .or_else(|| conflict.hint.filter(|&hint| !names_announcers(hint)))
            .or(announcers)
            .or(conflict.hint);
        let mut finding = turn.finding(kind, conflict.opened_at);
        finding.owners = owners;
        finding.evidence = Some(evidence);
        finding.counts = conflict.counts;
        finding.hint = conflict.hint;
        Some(finding)
    }

    /// Whether the two owners are probably one host with two interfaces in one network, which replies on each for the
    /// addresses of both: both have claimed the same addresses, two or more. Two load balancers' nodes that both
    /// announce the same addresses are not meant.
    fn is_arp_flux(&self, turn: &BindingTransition) -> bool {
        let mut present = self.claimants.present();
        let (Some(one), Some(other), None) = (present.next(), present.next(), present.next())
        else {
            return false;
        };
        let (context, segment) = (&turn.context, turn.context.key.segment);
        let both = [one, other];
        both.iter().all(|claimant| claimant.replies())
            && !both.iter().all(|claimant| claimant.announces())
            && self.owner_of(one.mac, context) != self.owner_of(other.mac, context)
            && context.facts.is_local(one.mac) == context.facts.is_local(other.mac)
            && turn
                .state
                .holders
                .share_all_addresses(segment, one.mac, other.mac)
    }

    /// What it suggests that owners announce the address, or do not.
    fn hint_of_announcers(&self, parties: &[OwnerView]) -> Option<Hint> {
        let announces = |party: &&OwnerView| {
            let mut claimants = party.macs.iter().filter_map(|&mac| self.claimants.get(mac));
            claimants.any(Claimant::is_announcer)
        };
        match parties.iter().filter(announces).count() {
            0 => None,
            1 => Some(Hint::AnnouncerAndHost),
            _ => Some(Hint::TwoAnnouncers),
        }
    }
}

/// Whether more announcements may show that it was something else.
const fn names_announcers(hint: Hint) -> bool {
    matches!(hint, Hint::TwoAnnouncers | Hint::AnnouncerAndHost)
}

/// What the owners in a conflict suggest by themselves.
fn hint_of_parties(parties: &[OwnerView], context: &BindingContext) -> Option<Hint> {
    let is_router = |party: &&OwnerView| {
        let mut macs = party.macs.iter();
        macs.any(|&mac| context.rules.is_virtual_router(mac))
    };
    if parties.iter().filter(is_router).count() > 1 {
        Some(Hint::TwoRouterGroups)
    } else if parties.iter().all(|party| party.local) {
        Some(Hint::ArpFlux)
    } else {
        None
    }
}
