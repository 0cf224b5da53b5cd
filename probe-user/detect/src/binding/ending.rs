//! How a conflict ends: by the replies to probes, or by a long time without a second owner.

use std::{cmp::Reverse, time::Duration};

use probe_common::wire::MacAddr;
use probe_model::{Evidence, FindingKind, OwnerRole, Timestamp};
use smallvec::SmallVec;

use super::{
    Binding,
    conflict::{InquiryConclusion, ReplyCount},
};
use crate::{
    ProbePurpose, ProbeRequest,
    owner::OwnerIdentity,
    transition::{BindingContext, BindingTransition},
};

/// How soon the owners of a new conflict are probed: one of them may be gone a moment later.
const BASELINE_WITHIN: Duration = Duration::from_millis(300);

/// The inquiries, each of two rounds of probes, to which no host replies before the owners are gone: one may be lost.
const INQUIRIES_WITHOUT_REPLY: u32 = 2;

impl Binding {
    pub(super) fn conflict_deadline(&self, context: &BindingContext) -> Option<Timestamp> {
        let conflict = self.conflict()?;
        Some(conflict.due_at(|| self.expires_at(context), &context.rules.config))
    }

    /// When only one owner will have claimed the address for the expiry time. This host claims its own addresses all
    /// the time.
    fn expires_at(&self, context: &BindingContext) -> Timestamp {
        let mut last_seen: SmallVec<[(OwnerIdentity, Timestamp); 8]> = SmallVec::new();
        if let Some(local_address) = context.local_address {
            last_seen.push((
                self.owner_of(local_address.mac, context),
                Timestamp(u64::MAX),
            ));
        }
        for claimant in self.claimants.present() {
            let owner = self.owner_of(claimant.mac, context);
            match last_seen.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, at)) => *at = claimant.last_seen.max(*at),
                None => last_seen.push((owner, claimant.last_seen)),
            }
        }
        last_seen.sort_unstable_by_key(|&(_, at)| Reverse(at));
        let second = last_seen.get(1).map(|&(_, at)| at);
        let evidence = self.conflict().map(|conflict| conflict.last_evidence);
        second.or(evidence).unwrap_or_default() + context.rules.config.expire_after
    }

    /// Processes the deadline of the conflict: no evidence or no reply for long enough, or no second owner for very long.
    pub(super) fn expire_conflict(&mut self, transition: &mut BindingTransition) {
        let config = &transition.context.rules.config;
        let expires_at = self.expires_at(&transition.context);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.quiet_since.is_some() && expires_at <= transition.at {
            self.end_conflict(FindingKind::ConflictExpired, None, transition);
            return;
        }
        let unanswered = conflict.inquiry_started_at().is_some();
        if config.can_probe {
            for probe_request in
                conflict.request_replies(transition.context.key, transition.at, config)
            {
                transition.request_probe(probe_request);
            }
        }
        if unanswered || !config.can_probe {
            self.mark_quiet_if_due(transition);
        }
    }

    /// Takes the replies to one round of an inquiry.
    pub(super) fn resolve(
        &mut self,
        probe_request: &ProbeRequest,
        by: &[MacAddr],
        transition: &mut BindingTransition,
    ) {
        let context = transition.context;
        let local_address = context.local_address.map(|local_address| local_address.mac);
        // This host does not receive its own probes, but would reply for an address that it has.
        let replied =
            by.iter()
                .copied()
                .chain(local_address)
                .fold(ReplyCount::None, |so_far, mac| {
                    let owner = self.owner_of(mac, &context);
                    match so_far {
                        ReplyCount::None => ReplyCount::One(owner),
                        ReplyCount::One(known) if known == owner => so_far,
                        ReplyCount::One(_) | ReplyCount::Multiple => ReplyCount::Multiple,
                    }
                });
        // A speaker on this host that claims the address, which is not configured here, cannot be probed.
        let is_unprobeable = local_address.is_none() && self.is_claimed_locally(&context);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        let started_at = conflict.inquiry_started_at();
        let conclusion = conflict.record_replies(probe_request, replied);
        if conclusion == InquiryConclusion::NoneLeft {
            conflict.unanswered_inquiries += 1;
        } else if conclusion != InquiryConclusion::Waiting {
            conflict.unanswered_inquiries = 0;
        }
        let none_left = conflict.unanswered_inquiries >= INQUIRIES_WITHOUT_REPLY;
        match conclusion {
            InquiryConclusion::Waiting => {}
            InquiryConclusion::OneLeft(owner)
                if !is_unprobeable
                    && !self.has_unproven_silence(Some(owner), &context)
                    && !self.has_two_masters(owner, started_at) =>
            {
                self.end_conflict(FindingKind::ConflictResolved, Some(owner), transition);
            }
            InquiryConclusion::NoneLeft
                if none_left && !is_unprobeable && !self.has_unproven_silence(None, &context) =>
            {
                self.end_conflict(FindingKind::ConflictResolved, None, transition);
            }
            InquiryConclusion::OneLeft(_)
            | InquiryConclusion::NoneLeft
            | InquiryConclusion::Unclear => self.mark_quiet_if_due(transition),
            InquiryConclusion::StillShared => {
                self.evidence(Evidence::Confirmed, None, None, transition);
            }
        }
    }

    /// Whether two hosts replied with the MAC of the virtual router that is left, since the inquiry was started.
    fn has_two_masters(&self, left: OwnerIdentity, started_at: Option<Timestamp>) -> bool {
        let last = self.dispute.as_ref().and_then(|it| it.two_masters);
        matches!(left, OwnerIdentity::VirtualRouter(_)) && last.is_some() && last >= started_at
    }

    /// Whether an owner other than `left` was never observed to reply to an ARP probe: that it did not reply now does
    /// not show that it is gone.
    fn has_unproven_silence(&self, left: Option<OwnerIdentity>, context: &BindingContext) -> bool {
        let mut others = self
            .claimants
            .present()
            .filter(|claimant| Some(self.owner_of(claimant.mac, context)) != left);
        others.any(|claimant| {
            let owner = self.owner_of(claimant.mac, context);
            !self.replies_to_probes(owner, context)
        })
    }

    fn replies_to_probes(&self, owner: OwnerIdentity, context: &BindingContext) -> bool {
        let mut claimants = self.claimants.iter();
        claimants.any(|claimant| {
            claimant.replies_to_probes && self.owner_of(claimant.mac, context) == owner
        })
    }

    /// Has the owners of a conflict probed while all of them are there, if one of them was never observed to reply to
    /// an ARP probe: only of those that do, silence shows later that they are gone.
    pub(super) fn request_baseline(&mut self, transition: &mut BindingTransition) {
        let context = transition.context;
        let is_known = |mac| {
            context.facts.is_local(mac)
                || self.replies_to_probes(self.owner_of(mac, &context), &context)
        };
        let mut present = self.claimants.present();
        if !context.rules.config.can_probe || present.all(|claimant| is_known(claimant.mac)) {
            return;
        }
        transition.request_probe(ProbeRequest {
            key: context.key,
            purpose: ProbePurpose::Confirmation,
            round: ProbeRequest::BASELINE,
            requested_for: transition.at,
            earliest: transition.at,
            latest: transition.at + BASELINE_WITHIN,
            to: Vec::new(),
        });
    }

    /// Whether a MAC of this host is among the present owners.
    fn is_claimed_locally(&self, context: &BindingContext) -> bool {
        let mut present = self.claimants.present();
        present.any(|claimant| context.facts.is_local(claimant.mac))
    }

    /// Marks the conflict as quiet if there was no evidence for long enough.
    pub(super) fn mark_quiet_if_due(&mut self, transition: &mut BindingTransition) {
        let config = &transition.context.rules.config;
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.quiet_since.is_none() && conflict.quiet_at(config) <= transition.at {
            conflict.quiet_since = Some(transition.at);
            let evidence = conflict.evidence;
            self.report_conflict(FindingKind::ConflictQuiet, evidence, transition);
        }
    }

    /// Ends the conflict; `left` is the owner that is known to be left. None is known to be left of an expired
    /// conflict, and none is left of a resolved one whose owners do not reply any more.
    pub(super) fn end_conflict(
        &mut self,
        kind: FindingKind,
        left: Option<OwnerIdentity>,
        transition: &mut BindingTransition,
    ) {
        if let Some(left) = left {
            self.current_owner = self
                .latest_mac_of(left, &transition.context)
                .or(self.current_owner);
        }
        let evidence = self.conflict().map(|conflict| conflict.evidence);
        let finding =
            evidence.and_then(|evidence| self.conflict_finding(kind, evidence, transition));
        if let Some(mut finding) = finding {
            if kind == FindingKind::ConflictResolved && left.is_none() {
                for owner in &mut finding.owners {
                    owner.role = OwnerRole::Earlier;
                }
            }
            transition.report(finding);
        }
        if let Some(dispute) = &mut self.dispute {
            dispute.settle();
        }
        self.since = transition.at;
        if let Some(current_owner) = self.current_owner {
            self.retain_only(
                self.owner_of(current_owner, &transition.context),
                &transition.context,
            );
        }
    }
}
