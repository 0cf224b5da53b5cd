//! Asking: who answers for an address?
//!
//! What this program sends, all of it, is a [`ArpProbe`]: an ARP request. It never answers, never announces, and
//! never sends with an address that is not this host's; by default it sends with none at all, an ARP probe
//! (RFC 5227 section 1.1), which changes no cache on the network.
//!
//! A daemon asks by [`Prober`]: detection wishes, the pure [`ProbeScheduler`] chooses the time and keeps the rules,
//! [`SourceInterfaces`] says whence, and the answers come back as frames like any others.

mod asker;
mod asking;
mod care;
pub mod check;
mod counts;
mod fleet;
mod place;
mod question;
mod receiver;
mod socket;

#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod tests;

pub use asker::{
    DetectorView, ProbeOutcome, ProbeScheduler, ProbeSchedulerConfig, QUIET_AFTER_START,
    ScheduledProbe,
};
pub use asking::{Prober, ProberStatus};
pub use care::TrackedTarget;
pub use counts::{NotSentReason, ProbeCounts, ProberState};
pub use place::{SourceInterface, SourceInterfaces};
pub use question::ArpProbe;
pub use receiver::{ArpReceiver, ReceivedFrame};
pub use socket::{ArpSocket, ArpSocketError};
