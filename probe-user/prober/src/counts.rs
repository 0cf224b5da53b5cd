//! What was asked, and what was not.

use probe_common::label_enum;
use probe_detect::ProbePurpose;

label_enum! {
    /// Whether this process asks.
    pub enum ProberState {
        /// It was told not to.
        Off = "off",
        /// It may not: `CAP_NET_RAW` is missing.
        NotPermitted = "not_permitted",
        /// It asks.
        On = "on",
    }
}

label_enum! {
    /// Why a question was put off, or not put at all.
    pub enum NotSentReason {
        /// Put off: a newcomer has just probed for the address, and would take us for a rival.
        RecentlyStarted = "newcomer",
        /// Put off: others have just asked about other addresses, and the segment's budget is theirs too.
        BudgetUsed = "segment_rate_limited",
        /// Dropped: others ask about this address.
        NotSelected = "probed_by_others",
        /// Dropped: by the time it could be put, its answer was of no use any more.
        Obsolete = "obsolete",
        /// Dropped: the interface is down or has no carrier.
        LinkDown = "link_down",
        /// Dropped: this host has no address in the address's network there.
        OffLink = "off_link",
        /// Dropped: more are waiting than there is room for.
        QueueFull = "queue_full",
        /// Dropped: more addresses matter than are cared for.
        TooMany = "too_many",
        /// The kernel did not send it.
        SendFailed = "send_failed",
        /// Sent, but this program's own egress hook has not seen it go, as where a filter leaves the address out:
        /// silence after it says nothing.
        NoFramesReceived = "unseen",
    }
}

/// How often each of it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    sent: [u64; ProbePurpose::COUNT],
    not_sent: [u64; NotSentReason::COUNT],
}

impl ProbeCounts {
    /// ARP probes sent, by purpose.
    pub const fn sent(&self, purpose: ProbePurpose) -> u64 {
        self.sent[purpose.number() as usize]
    }

    /// Questions put off or dropped, by reason.
    pub const fn not_sent(&self, reason: NotSentReason) -> u64 {
        self.not_sent[reason.number() as usize]
    }

    pub(super) const fn count_sent(&mut self, purpose: ProbePurpose) {
        self.sent[purpose.number() as usize] += 1;
    }

    pub(super) const fn retract_sent(&mut self, purpose: ProbePurpose) {
        self.sent[purpose.number() as usize] -= 1;
    }

    pub(super) const fn count_not_sent(&mut self, reason: NotSentReason) {
        self.not_sent[reason.number() as usize] += 1;
    }
}
