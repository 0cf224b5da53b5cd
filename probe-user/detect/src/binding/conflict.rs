//! The life of an open conflict: evidence, silence, asking, and its end.

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
    /// Since when there has been no evidence for long enough to say so.
    pub quiet_since: Option<Timestamp>,
    /// How many owners the last report named.
    reported_owners: usize,
    /// The last report was ignored.
    unreported: bool,
    /// The request whose answers were last counted: three answers are one piece of evidence.
    suppressed_since_report: Option<RequestId>,
    inquiry: Option<ConflictInquiry>,
    /// How often there was new evidence after it had become quiet.
    reopened: u32,
    /// The inquiries in succession to which no host replied.
    pub unanswered_inquiries: u32,
}

/// The number of times that a conflict that reopens again and again takes twice as long to become quiet.
const MAX_DOUBLINGS: u32 = 3;

/// The two rounds of asking who is left.
#[derive(Clone, Copy, Debug)]
struct ConflictInquiry {
    requested_for: Timestamp,
    rounds: [Option<ReplyCount>; 2],
}

/// Who answered in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyCount {
    None,
    One(OwnerIdentity),
    Multiple,
}

/// What two rounds of asking say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InquiryConclusion {
    /// A round is missing.
    Waiting,
    /// Exactly one owner answered both.
    OneLeft(OwnerIdentity),
    /// There is more than one still.
    StillShared,
    /// No host replied to either.
    NoneLeft,
    /// One replied to one of them, or another one to each.
    Unclear,
}

impl OpenConflict {
    /// A conflict without evidence yet, opened after so many returns.
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

    /// Takes evidence. It is to be told when it is the first, when the conflict had become quiet, when an
    /// owner has joined, and when the last report was ignored and this one would not be: so at most once
    /// for each owner, and once for each time it was quiet.
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
        let tell = owners > self.reported_owners
            || self.quiet_since.is_some()
            || self.unreported && !ignored;
        self.reported_owners = self.reported_owners.max(owners);
        self.quiet_since = None;
        self.unreported = ignored;
        tell
    }

    /// The owners are counted anew: those that are gone are not awaited by the next report.
    pub const fn forget_reported_owners(&mut self) {
        self.reported_owners = 0;
    }

    /// When something is due without a frame; once it is quiet, that includes its expiry.
    pub fn due_at(
        &self,
        expires_at: impl FnOnce() -> Timestamp,
        config: &DetectConfig,
    ) -> Timestamp {
        // Asked before the configuration forbade it, and never again: nobody waits for an answer.
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

    /// Starts asking who is left, anew if need be.
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
        // The windows lie a gap apart, so the rounds do, whenever in them the asker asks.
        [round(0, requested_for), round(1, requested_for + gap + gap)]
    }

    /// Whether it is being asked who is left, and for how long without an answer.
    pub fn inquiry_started_at(&self) -> Option<Timestamp> {
        self.inquiry.map(|inquiry| inquiry.requested_for)
    }

    /// Takes what one round said.
    pub(super) fn record_replies(
        &mut self,
        ask: &ProbeRequest,
        answered: ReplyCount,
    ) -> InquiryConclusion {
        let Some(inquiry) = &mut self.inquiry else {
            return InquiryConclusion::Waiting;
        };
        let Some(round) = inquiry.rounds.get_mut(usize::from(ask.round)) else {
            return InquiryConclusion::Waiting;
        };
        if inquiry.requested_for != ask.requested_for {
            return InquiryConclusion::Waiting;
        }
        *round = Some(answered);
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

    /// Who is one owner has changed, so what was answered so far is void. It is asked again when answers are
    /// overdue.
    pub fn clear_replies(&mut self) {
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.rounds = [None; 2];
        }
    }

    /// The configuration has changed. It is to be told again when it matters from now on, or is no longer
    /// ignored; while it is ignored that is put off, and when it is quiet, the next evidence tells it anyway.
    pub fn reconsider(&mut self, newly_tracked: bool, ignored: bool) -> bool {
        if self.quiet_since.is_some() {
            return false;
        }
        let tell = newly_tracked || self.unreported;
        self.unreported = tell && ignored;
        tell && !ignored
    }

    /// No time lies in the future: called when the clock was set back to `now`.
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
