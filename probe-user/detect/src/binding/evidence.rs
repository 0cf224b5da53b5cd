//! Evidence of a conflict, and signs that are less.

use probe_model::{Evidence, Finding, FindingKind, Hint, OwnerView};
use smallvec::SmallVec;

use super::{Binding, claimants::Claimant, conflict::OpenConflict};
use crate::{
    RequestId,
    transition::{BindingContext, BindingTransition},
};

impl Binding {
    /// Records evidence of two owners.
    pub(super) fn evidence(
        &mut self,
        evidence: Evidence,
        request: Option<RequestId>,
        hint: Option<Hint>,
        transition: &mut BindingTransition,
    ) {
        self.drop_absent_owners(transition);
        let owners = self.count_parties(&transition.context);
        if owners < 2 {
            return;
        }
        let dispute = self.dispute.get_or_insert_default();
        dispute.stale = None;
        let returns = dispute.returns.len() as u64;
        let conflict = dispute
            .conflict
            .get_or_insert_with(|| OpenConflict::new(evidence, transition.at, returns));
        conflict.hint = hint.or(conflict.hint);
        let is_unexplained = conflict.hint.is_none();
        let is_new = conflict.add_evidence(
            evidence,
            transition.at,
            request,
            owners,
            transition.is_ignored(),
        );
        if is_new {
            self.report_conflict(FindingKind::Conflict, evidence, transition);
            self.request_baseline(transition);
        } else if is_unexplained && self.is_arp_flux(transition) {
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
    fn drop_absent_owners(&mut self, transition: &BindingTransition) {
        let facts = transition.context.facts;
        let quiet_after = transition.context.rules.config.quiet_after;
        if self
            .conflict()
            .is_none_or(|conflict| conflict.quiet_since.is_none())
        {
            return;
        }
        let before = self.claimants.clone();
        self.claimants.retain_present(|claimant| {
            facts.is_local(claimant.mac) || transition.at.since(claimant.last_seen) < quiet_after
        });
        if self.count_parties(&transition.context) < 2 {
            self.claimants = before;
        } else if let Some(conflict) = self.conflict_mut() {
            conflict.forget_reported_owners();
        }
    }

    /// More owners have claimed the address lately than are remembered: the first time it is contested, then a
    /// conflict. Without this, owners in rotation would each be evicted just before they claim again.
    pub(super) fn report_surplus(&mut self, transition: &mut BindingTransition) {
        let (at, context, config) = (
            transition.at,
            transition.context,
            &transition.context.rules.config,
        );
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
            self.evidence(Evidence::ManyOwners, None, None, transition);
        } else {
            self.report_contested(None, transition);
        }
    }

    /// Reports a sign that is less than a conflict, once in an episode. The episode ends after a time without a sign.
    pub(super) fn report_contested(
        &mut self,
        hint: Option<Hint>,
        transition: &mut BindingTransition,
    ) {
        let since = self.since;
        let dispute = self.dispute.get_or_insert_default();
        if dispute.conflict.is_some() {
            return;
        }
        let quiet = transition.context.rules.config.quiet_after;
        let known = dispute
            .contested
            .is_some_and(|last| transition.at.since(last) < quiet);
        dispute.contested = dispute.contested.max(Some(transition.at));
        if known {
            transition.suppress(FindingKind::Contested);
            return;
        }
        let (began, returns) = dispute
            .contest
            .map_or((since, 0), |contest| (contest.began, contest.returns));
        let mut finding = transition.finding(FindingKind::Contested, began);
        finding.counts.returns = returns;
        finding.hint = hint;
        finding.owners = self.parties_at(&transition.context, transition.at);
        transition.report(finding);
    }

    /// Reports the state of the open conflict and its evidence.
    pub(super) fn report_conflict(
        &mut self,
        kind: FindingKind,
        evidence: Evidence,
        transition: &mut BindingTransition,
    ) {
        if let Some(finding) = self.conflict_finding(kind, evidence, transition) {
            transition.report(finding);
        }
    }

    /// A finding about the open conflict, with its present owners and hint.
    pub(super) fn conflict_finding(
        &mut self,
        kind: FindingKind,
        evidence: Evidence,
        transition: &BindingTransition,
    ) -> Option<Finding> {
        let owners = self.parties_at(&transition.context, transition.at);
        let announcers = self.hint_of_announcers(&owners);
        let flux = self.is_arp_flux(transition).then_some(Hint::ArpFlux);
        let conflict = self.conflict_mut()?;
        conflict.hint = hint_of_parties(&owners, &transition.context)
            .or(flux)
            .or_else(|| conflict.hint.filter(|&hint| !names_announcers(hint)))
            .or(announcers)
            .or(conflict.hint);
        let mut finding = transition.finding(kind, conflict.opened_at);
        finding.owners = owners;
        finding.evidence = Some(evidence);
        finding.counts = conflict.counts;
        finding.hint = conflict.hint;
        Some(finding)
    }

    /// Whether the two owners are probably one host with two interfaces in one network, which replies on each for the
    /// addresses of both: both have claimed the same addresses, two or more. Two load balancers' nodes that both
    /// announce the same addresses are not meant.
    fn is_arp_flux(&self, transition: &BindingTransition) -> bool {
        let mut present = self.claimants.present();
        let (Some(one), Some(other), None) = (present.next(), present.next(), present.next())
        else {
            return false;
        };
        let (context, segment) = (&transition.context, transition.context.key.segment);
        let both = [one, other];
        both.iter().all(|claimant| claimant.replies())
            && !both.iter().all(|claimant| claimant.announces())
            && self.owner_of(one.mac, context) != self.owner_of(other.mac, context)
            && context.facts.is_local(one.mac) == context.facts.is_local(other.mac)
            && transition
                .state
                .claimed_addresses
                .share_all_addresses(segment, one.mac, other.mac)
    }

    /// The hint that follows from how many owners announce the address.
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

/// The hint that follows from the MACs of the owners.
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
