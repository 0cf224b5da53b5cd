//! The detection state machine: the owners of each address, and whether they are in conflict.
//!
//! Pure. Must not depend on anything but `model` and `probe-common`, on tokio, on sockets or on files. It has no clock:
//! every input carries its time, and the same inputs give the same findings. Inputs:
//!
//! - [`Detector::observe`]: one frame, an [`Observation`];
//! - [`Detector::learn`]: facts about the host that no frame contains, [`HostFacts`];
//! - [`Detector::set_expected`]: the addresses of a cluster's services;
//! - [`Detector::reconfigure`]: other settings, [`DetectConfig`];
//! - [`Detector::record_replies`]: the replies to a [`ProbeRequest`];
//! - [`Detector::tick`]: time has passed. What is due is also evaluated before each frame, so ticks only avoid waiting
//!   for the next one.
//!
//! Outputs: [`Finding`](probe_model::Finding)s, [`ProbeRequest`]s, and views of the state.
//!
//! # The life of a binding
//!
//! ```text
//!            first claim                     another owner claims: a takeover
//!  (nothing) ───────────► settled ─────────────────────────────────────────► in doubt
//!            new_binding     ▲                                                 │   │
//!                            │   10 s in which only this owner claims: moved   │   │ an earlier owner claims
//!                            ├─────────────────────────────────────────────────┘   │ again: contested, and a
//!                            │                                                     │ further takeover    
//!                            │   probed twice, one owner replies: resolved         │
//!                            └───────────────────── conflict ◄─────────────────────┘
//!                                10 min without a second     two returns in 10 s, five in 180 s;
//!                                owner: expired              from any state: two replies to one request,
//!                                                            another host on this host's address, two
//!                                                            owners that reply to probes
//! ```
//!
//! - For 1 s after a takeover, earlier owners that go on, and any unicast reply with spa = tpa, are only
//!   remembered: a clean handover overlaps. Two replies to one request count even then.
//! - A takeover from a settled owner is no return for the fast count, even by a host that had the address
//!   last week; else the second rolling restart of a life would be a conflict. For the slow count it is.
//! - An owner that was not present when an address settled is none of the present owners until it claims again, so
//!   that the owner of last week does not appear in today's conflict.
//! - A reply to a probe of this host is no return: probing must not create evidence for an address that is
//!   already in doubt. It does break the silence that a move needs.
//! - A conflict is reported when it opens, for each owner that joins, and when there is evidence again after it
//!   had become quiet; the rest is counted. `contested` is reported once in an episode, which ends after 60 s
//!   without a sign; `source_mismatch` once for each MAC on an address; `bogus_claim` once in 10 min for each
//!   sender and reason; `probe_denied` once an hour for each address and prober; `silent` once a silence.
//!
//! # Invariants
//!
//! - A conflict has two owners or more.
//! - An open conflict and a tracked address are never forgotten to make room.
//! - At most [`DetectConfig::max_bindings`] bindings and [`DetectConfig::max_macs`] MACs in each.
//! - A claim that the kernel suppressed and the next one carries counts as if it had been observed.
//! - A clock that jumps, or is set back, delays a conclusion at most by what it would have taken anyway.

#![forbid(unsafe_code)]

mod binding;
mod bogus;
mod config;
mod detector;
mod environment;
mod host_facts;
mod local_replies;
mod observation;
mod owner;
mod page;
mod probe_request;
mod probes;
mod recency;
mod recent;
mod statistics;
mod table;
mod transition;
mod view;

#[cfg(test)]
mod tests;

pub use config::{DetectConfig, IgnoreRule};
pub use detector::Detector;
pub use host_facts::{ExpectedAddresses, HostFacts, LocalAnnouncement};
pub use observation::{
    BogusFrame, Claim, ClaimFlags, EventError, Observation, ObservationBody, ObservedProbe,
    PreviousClaim, ProbeReply, RequestId,
};
pub use owner::{OwnerIdentity, OwnerRules};
pub use page::{AddressGroup, AddressView, BindingPage, CurrentOwner, TableCursor};
pub use probe_request::{ProbePurpose, ProbeRequest};
pub use probes::ForeignProbes;
pub use statistics::DetectorStatistics;
