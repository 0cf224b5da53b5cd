//! What detection would like to have asked on the network, as data. Who asks, how, and whether at all, is
//! decided elsewhere; the answers come back through [`Detector::answered`](super::Detector::answered).

use probe_common::{label_enum, wire::MacAddr};
use probe_model::{BindingKey, Timestamp};

label_enum! {
    /// Why to ask.
    pub enum ProbePurpose {
        /// A pending move: do the owner before and the new one both answer?
        Confirmation = "confirmation",
        /// A stranger claims an address that this host holds: does it answer?
        Local = "local",
        /// A conflict without evidence for a while: who is left?
        Resolution = "resolution",
        /// An address that matters: does anybody answer for it, and only one?
        Periodic = "periodic",
    }
}

/// One round of asking by RFC 5227 ARP probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The address to ask for, and where.
    pub key: BindingKey,
    /// Why.
    pub purpose: ProbePurpose,
    /// Which round: 0, or 1 for a second one. Of care, the second is the one after an unanswered first.
    pub round: u8,
    /// What the question is about, in time: answers to a question that the machine has since dropped are
    /// recognised by it.
    pub requested_for: Timestamp,
    /// Not before this. The asker picks a time in the window, so that a fleet does not ask at once.
    pub earliest: Timestamp,
    /// Rather not after this; a late answer is an answer too.
    pub latest: Timestamp,
    /// Whom to ask by unicast; if empty, everybody by broadcast.
    pub to: Vec<MacAddr>,
}

impl ProbeRequest {
    /// The round that observes which owners of a new conflict reply to ARP probes at all.
    pub const BASELINE: u8 = 2;
}
