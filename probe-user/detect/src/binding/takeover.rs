//! Takeovers, returns, and settling.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind, Hint, TakeoverView, Timestamp};

use super::{
    Binding, ObservedClaim,
    claimants::{AnnouncementOperations, PriorClaimantState},
    dispute::{
        Contest, PendingReturn, ReturnKind, StaleAnnouncement, StartUpAnnouncement,
        TakeoverConfirmation,
    },
};
use crate::{
    ProbePurpose, ProbeRequest,
    owner::OwnerIdentity,
    transition::{BindingContext, BindingTransition},
};

/// How long a neighbour entry lives without being used: the default of Cisco's routers, the longest in common use.
const MAX_CACHE_AGE: Duration = Duration::from_hours(4);

impl Binding {
    /// Another owner takes the address from `previous`.
    pub(super) fn take_over(
        &mut self,
        claim: &ObservedClaim,
        previous: MacAddr,
        before: PriorClaimantState,
        transition: &mut BindingTransition,
    ) {
        if self.undo_start_up(claim, transition) {
            return;
        }
        let (at, mac, config) = (transition.at, claim.mac, &transition.context.rules.config);
        let tenure = at.since(self.since);
        let owner_since = std::mem::replace(&mut self.since, at);
        self.current_owner = Some(mac);
        let owner = self.owner_of(mac, &transition.context);
        let dispute = self.dispute.get_or_insert_default();
        dispute.start_up = claim.form.is_broadcast_announcement().then(|| {
            let (contest, pending) = (dispute.contest, dispute.pending);
            StartUpAnnouncement {
                by: owner,
                at,
                operations: AnnouncementOperations::of(claim.form),
                was_present: before.present,
                current_owner: previous,
                owner_since,
                contest,
                pending,
            }
        });
        let returns_from = match dispute.contest {
            None => before.known.then_some(ReturnKind::FromSettled),
            Some(_) if !before.present => None,
            Some(_) if tenure < config.takeover_grace + config.takeover_grace / 2 => {
                Some(ReturnKind::Late)
            }
            Some(_) => Some(ReturnKind::Unsettled),
        };
        let counted = returns_from.and_then(|kind| {
            let counted = dispute.count_pending(config);
            dispute.pending = Some(PendingReturn { at, kind });
            counted
        });
        match &mut dispute.contest {
            None => dispute.contest = Some(Contest::new(previous, at)),
            Some(contest) => contest.renew(previous, at),
        }
        let alternates = counted.is_some_and(|counted| dispute.alternates(counted, at, config));
        // A failback is announced. Another use of the address shows that its owner has not let go.
        let unannounced =
            returns_from == Some(ReturnKind::Unsettled) && !claim.form.is_broadcast_announcement();
        let contested = unannounced || counted == Some(ReturnKind::Unsettled);
        let balanced = (alternates || contested)
            && self.may_be_bond(&transition.context, &transition.state.claimed_addresses);
        if alternates && !balanced {
            self.evidence(
                self.alternation_evidence(mac, &transition.context),
                None,
                None,
                transition,
            );
        } else if alternates || contested {
            self.report_contested(balanced.then_some(Hint::BalanceAlb), transition);
        }
        self.request_confirmation(mac, previous, transition);
    }

    /// Undoes the last takeover if it was a start-up announcement, now that the previous owner goes on by broadcast, which
    /// corrects the neighbour caches.
    fn undo_start_up(&mut self, claim: &ObservedClaim, transition: &BindingTransition) -> bool {
        let context = &transition.context;
        let owner = self.owner_of(claim.mac, context);
        let Some(start_up) = self.dispute.as_ref().and_then(|it| it.start_up.as_ref()) else {
            return false;
        };
        let is_undone = !claim.form.unicast
            && self
                .current_owner
                .map(|current_owner| self.owner_of(current_owner, context))
                == Some(start_up.by)
            && self.conflict().is_none()
            && self.owner_of(start_up.current_owner, context) == owner;
        let Some(dispute) = self.dispute.as_mut().filter(|_| is_undone) else {
            return false;
        };
        let Some(start_up) = dispute.take_start_up(transition.at, &context.rules.config) else {
            return false;
        };
        if start_up.pending != dispute.pending
            && let Some(pending) = start_up.pending
        {
            dispute.returns.retain(|&at| at != pending.at);
        }
        dispute.pending = start_up.pending;
        dispute.contest = start_up.contest.map(|contest| Contest {
            silent_since: transition.at,
            ..contest
        });
        self.current_owner = Some(claim.mac);
        self.since = start_up.owner_since;
        if !start_up.was_present {
            self.set_absent(start_up.by, context);
        }
        if start_up.contest.is_none() {
            self.retain_only(owner, context);
        }
        true
    }

    /// The evidence of an alternation: local if another host took the address from this host, lost it and took it again.
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

    /// Records that an owner that lost the address replied to a probe of this host. That is no return, but no silence
    /// either.
    pub(super) fn confirm_current(&mut self, at: Timestamp) {
        if let Some(contest) = self.contest_mut() {
            contest.silent_since = contest.silent_since.max(at);
        }
    }

    /// Requests two rounds of probes to both owners.
    fn request_confirmation(
        &self,
        mac: MacAddr,
        previous: MacAddr,
        transition: &mut BindingTransition,
    ) {
        let config = &transition.context.rules.config;
        if !config.can_probe || self.conflict().is_some() {
            return;
        }
        let to = self.confirmation_targets(mac, previous, &transition.context);
        if to.is_empty() {
            return;
        }
        for (round, (earliest, latest)) in (0..).zip(config.confirmation) {
            transition.request_probe(ProbeRequest {
                key: transition.context.key,
                purpose: ProbePurpose::Confirmation,
                round,
                requested_for: transition.at,
                earliest: transition.at + earliest,
                latest: transition.at + latest,
                to: to.clone(),
            });
        }
    }

    /// The MACs to probe about a takeover. This host does not receive its own probes, so only the other owner is
    /// probed where one of the two is this host.
    ///
    /// An address that is not configured here but was announced from here is not probed after its first takeover:
    /// in a handover the outgoing speaker has released it, and the reply of the incoming one proves nothing. Once
    /// the speaker on this host has claimed the address again, it has not released it.
    fn confirmation_targets(
        &self,
        mac: MacAddr,
        previous: MacAddr,
        context: &BindingContext,
    ) -> Vec<MacAddr> {
        let is_local = |mac| context.facts.is_local(mac);
        if is_local(previous) && context.local_address.is_none() && !self.has_returned() {
            return Vec::new();
        }
        let owners = [previous, mac].into_iter();
        owners.filter(|&mac| !is_local(mac)).collect()
    }

    /// Whether this host has the address with this MAC: it is configured, or has been claimed from here since the
    /// last takeover.
    fn is_held_locally(&self, mac: MacAddr, context: &BindingContext) -> bool {
        context.facts.is_local(mac)
            && (context.local_address.is_some() || self.has_observed(mac, self.since))
    }

    /// Takes the replies to one round of probes about a takeover.
    pub(super) fn confirm(
        &mut self,
        probe_request: &ProbeRequest,
        by: &[MacAddr],
        transition: &mut BindingTransition,
    ) {
        if probe_request.round == ProbeRequest::BASELINE {
            // The replies are claims, and were observed as such.
            return;
        }
        let previous = self.contest().map(|contest| contest.previous);
        let (Some(previous), Some(current_owner)) = (previous, self.current_owner) else {
            return;
        };
        if self.since != probe_request.requested_for {
            return;
        }
        let context = transition.context;
        let replied = |mac| {
            let owner = self.owner_of(mac, &context);
            let mut replying = by.iter().map(|&mac| self.owner_of(mac, &context));
            replying.any(|replying| replying == owner)
        };
        let is_claimed_by = |mac| self.is_held_locally(mac, &context) || replied(mac);
        let confirmation = TakeoverConfirmation {
            previous: is_claimed_by(previous),
            current_owner: is_claimed_by(current_owner),
        };
        let is_local = |mac| context.facts.is_local(mac);
        let evidence = if is_local(previous) || is_local(current_owner) {
            Evidence::Local
        } else {
            Evidence::Confirmed
        };
        let Some(contest) = self.contest_mut() else {
            return;
        };
        if let Some(round) = contest.rounds.get_mut(usize::from(probe_request.round)) {
            *round = Some(confirmation);
        }
        let [Some(first), Some(second)] = contest.rounds else {
            return;
        };
        if first.previous && first.current_owner && second.previous && second.current_owner {
            self.evidence(evidence, None, None, transition);
        } else if second.previous && !second.current_owner {
            self.revert_takeover(transition);
        } else if !first.previous && !second.previous && !is_local(previous) {
            self.settle(transition);
        }
    }

    /// The previous owner replied to the last probes and the one that took over did not: the address stays with the
    /// previous owner, although the last announcement on the segment names the other one.
    fn revert_takeover(&mut self, transition: &mut BindingTransition) {
        let context = transition.context;
        let Some(dispute) = &mut self.dispute else {
            return;
        };
        let (Some(contest), Some(announcer)) = (dispute.contest.take(), self.current_owner) else {
            return;
        };
        if dispute.conflict.is_some() {
            return;
        }
        dispute.start_up = None;
        dispute.drop_excursion(&contest);
        let announced_at = self.since;
        self.current_owner = Some(contest.previous);
        self.since = transition.at;
        let [kept, announced] =
            [contest.previous, announcer].map(|mac| self.owner_of(mac, &context));
        self.report_stale_announcement(kept, announced, announced_at, transition);
        self.retain_only(kept, &context);
    }

    fn report_stale_announcement(
        &mut self,
        kept: OwnerIdentity,
        announced: OwnerIdentity,
        since: Timestamp,
        transition: &mut BindingTransition,
    ) {
        let context = transition.context;
        let dispute = self.dispute.get_or_insert_default();
        let stale = StaleAnnouncement {
            by: announced,
            last: since,
        };
        let before = dispute.stale.replace(stale);
        if before.is_some_and(|before| before.by == announced) {
            transition.suppress(FindingKind::StaleAnnouncement);
            return;
        }
        let mut finding = transition.finding(FindingKind::StaleAnnouncement, since);
        finding.owners = self.owners_among(&context, |mac| {
            [kept, announced].contains(&self.owner_of(mac, &context))
        });
        transition.report(finding);
    }

    /// A broadcast claim by another host than the one whose announcement is stale corrects the neighbour caches: any
    /// ARP broadcast updates the entries that exist (RFC 826, `Merge_flag`).
    pub(super) fn update_stale_announcement(
        &mut self,
        owner: OwnerIdentity,
        observed: &ObservedClaim,
    ) {
        let stale = self.dispute.as_ref().and_then(|dispute| dispute.stale);
        if !observed.form.unicast && stale.is_some_and(|stale| stale.by != owner) {
            self.clear_stale_announcement();
        }
    }

    /// No announcement is stale any more.
    pub(super) fn clear_stale_announcement(&mut self) {
        if let Some(dispute) = &mut self.dispute {
            dispute.stale = None;
        }
    }

    /// Whether neighbour caches may hold the MAC of a host that announced the address and does not reply for it.
    pub fn has_stale_announcement(&self) -> bool {
        let dispute = self.dispute.as_ref();
        dispute.is_some_and(|dispute| dispute.stale.is_some())
    }

    /// When no neighbour cache is expected to hold the stale entry any more.
    pub(super) fn stale_announcement_expires_at(&self) -> Option<Timestamp> {
        let stale = self.dispute.as_ref()?.stale?;
        Some(stale.last + MAX_CACHE_AGE)
    }

    /// The takeover that is neither a move nor a conflict yet, or another host's recent claim on an address of this
    /// host.
    pub fn pending_takeover(
        &self,
        context: &BindingContext,
        now: Timestamp,
    ) -> Option<TakeoverView> {
        let to = self.current_owner.filter(|_| self.conflict().is_none())?;
        if let Some(contest) = self.contest() {
            return Some(TakeoverView {
                from: contest.previous,
                to,
                since: self.since,
            });
        }
        let since = self.local_dispute_since(to, context)?;
        let is_recent = now.since(since) < context.rules.config.settle;
        let from = context.local_address.filter(|_| is_recent)?.mac;
        Some(TakeoverView { from, to, since })
    }

    pub(super) fn settles_at(&self, context: &BindingContext) -> Option<Timestamp> {
        Some(self.contest()?.silent_since + context.rules.config.settle)
    }

    /// Settles the address: only the current owner has claimed it for long enough.
    pub(super) fn settle(&mut self, transition: &mut BindingTransition) {
        let Some(dispute) = &mut self.dispute else {
            return;
        };
        let in_conflict = dispute.conflict.is_some();
        let (Some(contest), Some(current_owner)) = (dispute.contest.take(), self.current_owner)
        else {
            return;
        };
        dispute.start_up = None;
        if in_conflict {
            dispute.record_move();
            return;
        }
        if contest.is_kept_by_previous() {
            dispute.contest = Some(contest);
            self.revert_takeover(transition);
            return;
        }
        let context = transition.context;
        let from_local = context.facts.is_local(contest.settled_owner);
        if from_local && self.local_dispute_since(current_owner, &context).is_some() {
            // This host sent no claim, but it still has the address.
            self.report_contested(None, transition);
            self.current_owner = Some(contest.settled_owner);
            if let Some(dispute) = &mut self.dispute {
                dispute.record_move();
            }
            return;
        }
        let (now, then) = (
            self.owner_of(current_owner, &context),
            self.owner_of(contest.settled_owner, &context),
        );
        if let Some(dispute) = &mut self.dispute {
            if now == then {
                dispute.drop_excursion(&contest);
            } else {
                dispute.record_move();
            }
        }
        if now != then {
            self.clear_stale_announcement();
            let mut finding = transition.finding(FindingKind::Moved, self.since);
            finding.owners = self.owners_among(&context, |mac| {
                [now, then].contains(&self.owner_of(mac, &context))
            });
            finding.counts.returns = contest.returns;
            transition.report(finding);
        }
        self.retain_only(now, &context);
    }
}
