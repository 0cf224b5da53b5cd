//! Probe requests of detection, as data. The prober decides whether, when and how they are sent; the replies come
//! back through [`Detector::record_replies`](super::Detector::record_replies).

use probe_common::{label_enum, wire::MacAddr};
use probe_model::{BindingKey, Timestamp};

label_enum! {
    /// Why to probe.
    pub enum ProbePurpose {
        /// A pending move: do the previous owner and the new one both reply?
        Confirmation = "confirmation",
        /// Another host claims an address of this host: does it reply?
        Local = "local",
        /// A conflict without evidence for a while: which owners are left?
        Resolution = "resolution",
        /// A tracked address: does a host reply for it, and only one?
        Periodic = "periodic",
    }
}

/// One round of RFC 5227 ARP probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The address and its segment.
    pub key: BindingKey,
    /// The purpose.
    pub purpose: ProbePurpose,
    /// The round: 0, or 1 for a second one. Of periodic probing, the second one follows an unanswered first.
    pub round: u8,
    /// The time of the event that it is about: replies to a request that is no longer of use are recognised by it.
    pub requested_for: Timestamp,
    /// The earliest time to send it. The prober picks a time in the window, so that agents do not send at once.
    pub earliest: Timestamp,
    /// The latest time to send it; later replies count too.
    pub latest: Timestamp,
    /// The unicast destinations; broadcast if empty.
    pub to: Vec<MacAddr>,
}

impl ProbeRequest {
    /// The round that observes which owners of a new conflict reply to ARP probes at all.
    pub const BASELINE: u8 = 2;
}
