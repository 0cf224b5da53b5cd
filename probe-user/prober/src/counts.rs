//! Counts the ARP probes that were sent or not sent.

use probe_common::label_enum;
use probe_detect::ProbePurpose;

label_enum! {
    /// Whether this process sends ARP probes.
    pub enum ProberState {
        /// Active probing is disabled.
        Off = "off",
        /// The process lacks `CAP_NET_RAW`.
        NotPermitted = "not_permitted",
        /// Active probing is enabled.
        On = "on",
    }
}

label_enum! {
    /// Why an ARP probe was postponed or dropped.
    pub enum NotSentReason {
        /// Postponed: another host has just probed the address and may be booting with it (RFC 5227 section 2.1.1).
        BootingHost = "booting_host",
        /// Postponed: probes of other agents have used the budget of the segment.
        BudgetUsed = "segment_rate_limited",
        /// Dropped: other agents probe the address.
        NotSelected = "probed_by_others",
        /// Dropped: the request was obsolete before the probe could be sent.
        Obsolete = "obsolete",
        /// Dropped: the interface is down or has no carrier.
        LinkDown = "link_down",
        /// Dropped: this host has no address in the network of the probed address.
        OffLink = "off_link",
        /// Dropped: the queue was full.
        QueueFull = "queue_full",
        /// Dropped: the number of tracked addresses exceeds the maximum.
        TooMany = "too_many",
        /// Dropped: the kernel returned an error.
        SendFailed = "send_failed",
        /// Sent, but not observed by the egress hook, for example because the watch filter does not contain the address:
        /// a missing reply proves nothing.
        NotObserved = "not_observed",
    }
}

/// The number of ARP probes that were sent, by purpose, or not sent, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    sent: [u64; ProbePurpose::COUNT],
    not_sent: [u64; NotSentReason::COUNT],
}

impl ProbeCounts {
    /// The number of ARP probes sent for a purpose.
    pub const fn sent(&self, purpose: ProbePurpose) -> u64 {
        self.sent[purpose.number() as usize]
    }

    /// The number of ARP probes postponed or dropped for a reason.
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
