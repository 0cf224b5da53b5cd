//! What was asked, and what was not.

use probe_common::label_enum;
use probe_detect::Purpose;

label_enum! {
    /// Whether this process asks.
    pub enum AskingState {
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
    pub enum NotSent {
        /// Put off: a newcomer has just probed for the address, and would take us for a rival.
        Newcomer = "newcomer",
        /// Put off: others have just asked about other addresses, and the segment's budget is theirs too.
        SharedBudget = "shared_budget",
        /// Dropped: others ask about this address.
        LeftToOthers = "left_to_others",
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
        Unseen = "unseen",
    }
}

/// How often each of it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskCounts {
    sent: [u64; Purpose::COUNT],
    not_sent: [u64; NotSent::COUNT],
}

impl AskCounts {
    /// ARP probes sent, by purpose.
    pub const fn sent(&self, purpose: Purpose) -> u64 {
        self.sent[purpose.number() as usize]
    }

    /// Questions put off or dropped, by reason.
    pub const fn not_sent(&self, reason: NotSent) -> u64 {
        self.not_sent[reason.number() as usize]
    }

    pub(super) const fn count_sent(&mut self, purpose: Purpose) {
        self.sent[purpose.number() as usize] += 1;
    }

    pub(super) const fn uncount_sent(&mut self, purpose: Purpose) {
        self.sent[purpose.number() as usize] -= 1;
    }

    pub(super) const fn count_not_sent(&mut self, reason: NotSent) {
        self.not_sent[reason.number() as usize] += 1;
    }
}
