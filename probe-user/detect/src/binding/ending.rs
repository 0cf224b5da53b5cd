//! How a conflict ends: by an answer, or by a long time without a second owner.

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

    /// When nobody but one owner will have claimed the address for the expiry time. This host goes on
    /// claiming what it holds.
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

    /// There has been no evidence, or no answer, for long enough, or no second owner for very long.
    pub(super) fn expire_conflict(&mut self, turn: &mut BindingTransition) {
        let config = &turn.context.rules.config;
        let expires_at = self.expires_at(&turn.context);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.quiet_since.is_some() && expires_at <= turn.at {
            self.end_conflict(FindingKind::ConflictExpired, None, turn);
            return;
        }
        let unanswered = conflict.inquiry_started_at().is_some();
        if config.can_probe {
            for ask in conflict.request_replies(turn.context.key, turn.at, config) {
                turn.request_probe(ask);
            }
        }
        if unanswered || !config.can_probe {
            self.mark_quiet_if_due(turn);
        }
    }

    /// It was asked who is left.
    pub(super) fn resolve(
        &mut self,
        ask: &ProbeRequest,
        by: &[MacAddr],
        turn: &mut BindingTransition,
    ) {
        let context = turn.context;
        let local_address = context.local_address.map(|local_address| local_address.mac);
        // Nobody hears himself answer: for what this host holds, it would have.
        let answered =
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
        // What speaks for the address from this host, without its being configured here, cannot be asked.
        let unheard = local_address.is_none() && self.is_claimed_locally(&context);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        let started_at = conflict.inquiry_started_at();
        let conclusion = conflict.record_replies(ask, answered);
        if conclusion == InquiryConclusion::NoneLeft {
            conflict.unanswered_inquiries += 1;
        } else if conclusion != InquiryConclusion::Waiting {
            conflict.unanswered_inquiries = 0;
        }
        let none_left = conflict.unanswered_inquiries >= INQUIRIES_WITHOUT_REPLY;
        match conclusion {
            InquiryConclusion::Waiting => {}
            InquiryConclusion::OneLeft(owner)
                if !unheard
                    && !self.has_unproven_silence(Some(owner), &context)
                    && !self.has_two_masters(owner, started_at) =>
            {
                self.end_conflict(FindingKind::ConflictResolved, Some(owner), turn);
            }
            InquiryConclusion::NoneLeft
                if none_left && !unheard && !self.has_unproven_silence(None, &context) =>
            {
                self.end_conflict(FindingKind::ConflictResolved, None, turn);
            }
            InquiryConclusion::OneLeft(_)
            | InquiryConclusion::NoneLeft
            | InquiryConclusion::Unclear => self.mark_quiet_if_due(turn),
            InquiryConclusion::StillShared => self.evidence(Evidence::Confirmed, None, None, turn),
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
    pub(super) fn request_baseline(&mut self, turn: &mut BindingTransition) {
        let context = turn.context;
        let is_known = |mac| {
            context.facts.is_local(mac)
                || self.replies_to_probes(self.owner_of(mac, &context), &context)
        };
        let mut present = self.claimants.present();
        if !context.rules.config.can_probe || present.all(|claimant| is_known(claimant.mac)) {
            return;
        }
        turn.request_probe(ProbeRequest {
            key: context.key,
            purpose: ProbePurpose::Confirmation,
            round: ProbeRequest::BASELINE,
            requested_for: turn.at,
            earliest: turn.at,
            latest: turn.at + BASELINE_WITHIN,
            to: Vec::new(),
        });
    }

    /// Whether this host takes part by its claims.
    fn is_claimed_locally(&self, context: &BindingContext) -> bool {
        let mut present = self.claimants.present();
        present.any(|claimant| context.facts.is_local(claimant.mac))
    }

    /// The conflict is quiet if there was no evidence for long enough.
    pub(super) fn mark_quiet_if_due(&mut self, turn: &mut BindingTransition) {
        let config = &turn.context.rules.config;
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.quiet_since.is_none() && conflict.quiet_at(config) <= turn.at {
            conflict.quiet_since = Some(turn.at);
            let evidence = conflict.evidence;
            self.report_conflict(FindingKind::ConflictQuiet, evidence, turn);
        }
    }

    /// The conflict is over; `left` is the owner that is known to be left. None is known to be left of an expired
    /// conflict, and none is left of a resolved one whose owners do not reply any more.
    pub(super) fn end_conflict(
        &mut self,
        kind: FindingKind,
        left: Option<OwnerIdentity>,
        turn: &mut BindingTransition,
    ) {
        if let Some(left) = left {
            self.holder = self.latest_mac_of(left, &turn.context).or(self.holder);
        }
        let evidence = self.conflict().map(|conflict| conflict.evidence);
        let finding = evidence.and_then(|evidence| self.conflict_finding(kind, evidence, turn));
        if let Some(mut finding) = finding {
            if kind == FindingKind::ConflictResolved && left.is_none() {
                for owner in &mut finding.owners {
                    owner.role = OwnerRole::Earlier;
                }
            }
            turn.report(finding);
        }
        if let Some(dispute) = &mut self.dispute {
            dispute.settle();
        }
        self.since = turn.at;
        if let Some(holder) = self.holder {
            self.retain_only(self.owner_of(holder, &turn.context), &turn.context);
        }
    }
}
