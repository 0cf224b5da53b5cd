//! An open conflict: its evidence, quiet time and inquiries.

use std::time::Duration;

use probe_model::{BindingKey, Evidence, EvidenceCounts, Hint, Timestamp};

use crate::{DetectConfig, ProbePurpose, ProbeRequest, RequestId, owner::OwnerIdentity};

/// An open conflict.
#[derive(Debug)]
pub(crate) struct OpenConflict {
    /// The evidence that opened it.
    pub evidence: Evidence,
    pub hint: Option<Hint>,
    pub opened_at: Timestamp,
    pub last_evidence: Timestamp,
    pub counts: EvidenceCounts,
    /// When it was reported that there was no evidence for a while.
    pub quiet_since: Option<Timestamp>,
    /// How many owners the last report named.
    reported_owners: usize,
    /// The last report was ignored.
    unreported: bool,
    /// The request whose replies were last counted: three replies are one piece of evidence.
    suppressed_since_report: Option<RequestId>,
    inquiry: Option<ConflictInquiry>,
    /// How often there was new evidence after it had become quiet.
    reopened: u32,
    /// The inquiries in succession to which no host replied.
    pub unanswered_inquiries: u32,
}

/// The number of times that a conflict that reopens again and again takes twice as long to become quiet.
const MAX_DOUBLINGS: u32 = 3;

/// Two rounds of probes for the owners that are left.
#[derive(Clone, Copy, Debug)]
struct ConflictInquiry {
    requested_for: Timestamp,
    rounds: [Option<ReplyCount>; 2],
}

/// The owners that replied in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyCount {
    None,
    One(OwnerIdentity),
    Multiple,
}

/// The conclusion from two rounds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InquiryConclusion {
    /// A round is missing.
    Waiting,
    /// Exactly one owner replied to both.
    OneLeft(OwnerIdentity),
    /// Several owners replied to one of them.
    StillShared,
    /// No host replied to either.
    NoneLeft,
    /// One replied to one of them, or another one to each.
    Unclear,
}

impl OpenConflict {
    /// A conflict without evidence, opened after `returns` returns.
    pub fn new(evidence: Evidence, at: Timestamp, returns: u64) -> Self {
        Self {
            evidence,
            hint: None,
            opened_at: at,
            last_evidence: at,
            counts: EvidenceCounts {
                returns,
                ..EvidenceCounts::default()
            },
            quiet_since: None,
            reported_owners: 0,
            unreported: false,
            suppressed_since_report: None,
            inquiry: None,
            reopened: 0,
            unanswered_inquiries: 0,
        }
    }

    /// Adds evidence. Returns whether to report it: if it is the first, if the conflict was quiet, if an owner has
    /// joined, and if the last report was ignored and this one is not. So at most once for each owner, and once for each
    /// time it was quiet.
    pub fn add_evidence(
        &mut self,
        evidence: Evidence,
        at: Timestamp,
        request: Option<RequestId>,
        owners: usize,
        ignored: bool,
    ) -> bool {
        match evidence {
            Evidence::DuplicateReply if request == self.suppressed_since_report => {}
            Evidence::DuplicateReply => self.counts.duplicate_replies += 1,
            Evidence::Alternation | Evidence::ManyOwners => {}
            Evidence::Local => self.counts.local += 1,
            Evidence::Confirmed => self.counts.confirmed += 1,
        }
        self.suppressed_since_report = request.or(self.suppressed_since_report);
        self.last_evidence = self.last_evidence.max(at);
        self.inquiry = None;
        self.unanswered_inquiries = 0;
        self.reopened += u32::from(self.quiet_since.is_some());
        let is_reported = owners > self.reported_owners
            || self.quiet_since.is_some()
            || self.unreported && !ignored;
        self.reported_owners = self.reported_owners.max(owners);
        self.quiet_since = None;
        self.unreported = ignored;
        is_reported
    }

    /// Counts the reported owners anew, because some are gone.
    pub const fn forget_reported_owners(&mut self) {
        self.reported_owners = 0;
    }

    /// The next deadline; while it is quiet, that includes its expiry.
    pub fn due_at(
        &self,
        expires_at: impl FnOnce() -> Timestamp,
        config: &DetectConfig,
    ) -> Timestamp {
        // An inquiry from before the configuration disabled probing is not repeated.
        let inquiry = self.inquiry.filter(|_| config.can_probe);
        let repeated = |inquiry: ConflictInquiry| inquiry.requested_for + inquiry_timeout(config);
        match (inquiry, self.quiet_since) {
            (None, None) if config.can_probe => self.last_evidence + config.quiet_after,
            (None, None) => self.quiet_at(config),
            (Some(inquiry), None) => repeated(inquiry),
            (Some(inquiry), Some(since)) => repeated(inquiry).min(expires_at().max(since)),
            (None, Some(since)) => expires_at().max(since),
        }
    }

    /// When it becomes quiet without further evidence. Evidence at intervals a little longer than that would reopen it
    /// every time, so it takes twice as long after each of the first reopenings.
    pub fn quiet_at(&self, config: &DetectConfig) -> Timestamp {
        let delay = config.quiet_after * 2_u32.pow(self.reopened.min(MAX_DOUBLINGS));
        self.last_evidence + delay.min(config.expire_after.max(config.quiet_after))
    }

    /// Starts an inquiry, or repeats it.
    pub fn request_replies(
        &mut self,
        key: BindingKey,
        requested_for: Timestamp,
        config: &DetectConfig,
    ) -> [ProbeRequest; 2] {
        self.inquiry = Some(ConflictInquiry {
            requested_for,
            rounds: [None; 2],
        });
        let gap = config.resolution_gap;
        let round = |round, earliest| ProbeRequest {
            key,
            purpose: ProbePurpose::Resolution,
            round,
            requested_for,
            earliest,
            latest: earliest + gap,
            to: Vec::new(),
        };
        // The windows are a gap apart, so the rounds are too, at whatever time in them the prober sends.
        [round(0, requested_for), round(1, requested_for + gap + gap)]
    }

    /// When the inquiry that waits for replies was started.
    pub fn inquiry_started_at(&self) -> Option<Timestamp> {
        self.inquiry.map(|inquiry| inquiry.requested_for)
    }

    /// Takes the replies to one round.
    pub(super) fn record_replies(
        &mut self,
        probe_request: &ProbeRequest,
        replied: ReplyCount,
    ) -> InquiryConclusion {
        let Some(inquiry) = &mut self.inquiry else {
            return InquiryConclusion::Waiting;
        };
        let Some(round) = inquiry.rounds.get_mut(usize::from(probe_request.round)) else {
            return InquiryConclusion::Waiting;
        };
        if inquiry.requested_for != probe_request.requested_for {
            return InquiryConclusion::Waiting;
        }
        *round = Some(replied);
        match inquiry.rounds {
            [Some(ReplyCount::Multiple), _] | [_, Some(ReplyCount::Multiple)] => {
                InquiryConclusion::StillShared
            }
            [None, _] | [_, None] => InquiryConclusion::Waiting,
            [Some(ReplyCount::One(first)), Some(ReplyCount::One(second))] if first == second => {
                InquiryConclusion::OneLeft(first)
            }
            [Some(ReplyCount::None), Some(ReplyCount::None)] => InquiryConclusion::NoneLeft,
            [
                Some(ReplyCount::One(_) | ReplyCount::None),
                Some(ReplyCount::One(_) | ReplyCount::None),
            ] => InquiryConclusion::Unclear,
        }
    }

    /// Drops the replies so far, because the rules on owners have changed. The inquiry is repeated when its replies are
    /// overdue.
    pub fn clear_replies(&mut self) {
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.rounds = [None; 2];
        }
    }

    /// Applies a change of the configuration. Returns whether to report it again: if it is tracked from now on, or no
    /// longer ignored; later if it is ignored. A quiet conflict is reported with its next evidence anyway.
    pub fn reconsider(&mut self, newly_tracked: bool, ignored: bool) -> bool {
        if self.quiet_since.is_some() {
            return false;
        }
        let is_reported = newly_tracked || self.unreported;
        self.unreported = is_reported && ignored;
        is_reported && !ignored
    }

    /// Moves times in the future to `now`, to which the clock was set back.
    pub fn forget_future(&mut self, now: Timestamp) {
        self.opened_at = self.opened_at.min(now);
        self.last_evidence = self.last_evidence.min(now);
        self.quiet_since = self.quiet_since.map(|since| since.min(now));
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.requested_for = inquiry.requested_for.min(now);
        }
    }
}

/// How long the replies to an inquiry are awaited before it is repeated: two rounds, a gap before and after the second.
fn inquiry_timeout(config: &DetectConfig) -> Duration {
    config.quiet_after.max(config.resolution_gap * 5)
}
