//! The life of an open conflict: evidence, silence, asking, and its end.

use probe_model::{BindingKey, Counts, Evidence, Hint, Timestamp};

use crate::{Ask, DetectConfig, Purpose, RequestId, owner::Identity};

/// An open conflict.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// The evidence that opened it.
    pub evidence: Evidence,
    pub hint: Option<Hint>,
    pub opened_at: Timestamp,
    pub last_evidence: Timestamp,
    pub counts: Counts,
    /// Since when there has been no evidence for long enough to say so.
    pub quiet_since: Option<Timestamp>,
    /// How many owners the last report named.
    owners_told: usize,
    /// The last report was ignored.
    hidden: bool,
    /// The request whose answers were last counted: three answers are one piece of evidence.
    counted: Option<RequestId>,
    inquiry: Option<Inquiry>,
}

/// The two rounds of asking who is left.
#[derive(Clone, Copy, Debug)]
struct Inquiry {
    about: Timestamp,
    rounds: [Option<Answered>; 2],
}

/// Who answered in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Nobody,
    One(Identity),
    Several,
}

/// What two rounds of asking say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// A round is missing.
    Waiting,
    /// Exactly one owner answered both.
    OneLeft(Identity),
    /// There is more than one still.
    StillShared,
    /// Nobody answered, or not both times: silence is no all-clear.
    Unclear,
}

impl Conflict {
    /// A conflict without evidence yet, opened after so many returns.
    pub fn new(evidence: Evidence, at: Timestamp, returns: u64) -> Self {
        Self {
            evidence,
            hint: None,
            opened_at: at,
            last_evidence: at,
            counts: Counts {
                returns,
                ..Counts::default()
            },
            quiet_since: None,
            owners_told: 0,
            hidden: false,
            counted: None,
            inquiry: None,
        }
    }

    /// Takes evidence. It is to be told when it is the first, when the conflict had become quiet, when an
    /// owner has joined, and when the last report was ignored and this one would not be: so at most once
    /// for each owner, and once for each time it was quiet.
    pub fn note(
        &mut self,
        evidence: Evidence,
        at: Timestamp,
        request: Option<RequestId>,
        owners: usize,
        ignored: bool,
    ) -> bool {
        match evidence {
            Evidence::DuplicateReply if request == self.counted => {}
            Evidence::DuplicateReply => self.counts.duplicate_replies += 1,
            Evidence::Alternation => {}
            Evidence::Local => self.counts.local += 1,
            Evidence::Confirmed => self.counts.confirmed += 1,
        }
        self.counted = request.or(self.counted);
        self.last_evidence = self.last_evidence.max(at);
        self.inquiry = None;
        let tell =
            owners > self.owners_told || self.quiet_since.is_some() || self.hidden && !ignored;
        self.owners_told = self.owners_told.max(owners);
        self.quiet_since = None;
        self.hidden = ignored;
        tell
    }

    /// When something is due without a frame; once it is quiet, that includes its expiry.
    pub fn due_at(
        &self,
        expires_at: impl FnOnce() -> Timestamp,
        config: &DetectConfig,
    ) -> Timestamp {
        let quiet = config.resolution_quiet;
        // Asked before the configuration forbade it, and never again: nobody waits for an answer.
        let inquiry = self.inquiry.filter(|_| config.may_ask);
        match (inquiry, self.quiet_since) {
            (None, None) => self.last_evidence + quiet,
            (Some(inquiry), None) => inquiry.about + quiet,
            (Some(inquiry), Some(since)) => (inquiry.about + quiet).min(expires_at().max(since)),
            (None, Some(since)) => expires_at().max(since),
        }
    }

    /// Starts asking who is left, anew if need be.
    pub fn inquire(
        &mut self,
        key: BindingKey,
        about: Timestamp,
        config: &DetectConfig,
    ) -> [Ask; 2] {
        self.inquiry = Some(Inquiry {
            about,
            rounds: [None; 2],
        });
        let gap = config.resolution_gap;
        let round = |round, earliest| Ask {
            key,
            purpose: Purpose::Resolution,
            round,
            about,
            earliest,
            latest: earliest + gap,
            to: Vec::new(),
        };
        // The windows lie a gap apart, so the rounds do, whenever in them the asker asks.
        [round(0, about), round(1, about + gap + gap)]
    }

    /// Whether it is being asked who is left, and for how long without an answer.
    pub fn inquiring_since(&self) -> Option<Timestamp> {
        self.inquiry.map(|inquiry| inquiry.about)
    }

    /// Takes what one round said.
    pub(super) fn answered(&mut self, ask: &Ask, answered: Answered) -> Conclusion {
        let Some(inquiry) = &mut self.inquiry else {
            return Conclusion::Waiting;
        };
        let Some(round) = inquiry.rounds.get_mut(usize::from(ask.round)) else {
            return Conclusion::Waiting;
        };
        if inquiry.about != ask.about {
            return Conclusion::Waiting;
        }
        *round = Some(answered);
        match inquiry.rounds {
            [Some(Answered::Several), _] | [_, Some(Answered::Several)] => Conclusion::StillShared,
            [None, _] | [_, None] => Conclusion::Waiting,
            [Some(Answered::One(first)), Some(Answered::One(second))] if first == second => {
                Conclusion::OneLeft(first)
            }
            [
                Some(Answered::One(_) | Answered::Nobody),
                Some(Answered::One(_) | Answered::Nobody),
            ] => Conclusion::Unclear,
        }
    }

    /// Who is one owner has changed, so what was answered so far is void. It is asked again when answers are
    /// overdue.
    pub fn forget_answers(&mut self) {
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
        let tell = newly_tracked || self.hidden;
        self.hidden = tell && ignored;
        tell && !ignored
    }

    /// No time lies in the future: called when the clock was set back to `now`.
    pub fn forget_future(&mut self, now: Timestamp) {
        self.opened_at = self.opened_at.min(now);
        self.last_evidence = self.last_evidence.min(now);
        self.quiet_since = self.quiet_since.map(|since| since.min(now));
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.about = inquiry.about.min(now);
        }
    }
}
