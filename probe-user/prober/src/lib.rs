//! Asking: who answers for an address?
//!
//! What this program sends, all of it, is a [`ArpProbe`]: an ARP request. It never answers, never announces, and
//! never sends with an address that is not this host's; by default it sends with none at all, an ARP probe
//! (RFC 5227 section 1.1), which changes no cache on the network.
//!
//! A daemon asks by [`Prober`]: detection wishes, the pure [`ProbeScheduler`] chooses the time and keeps the rules,
//! [`SourceInterfaces`] says whence, and the answers come back as frames like any others.

mod agents;
mod arp_probe;
pub mod check;
mod counts;
mod periodic;
mod prober;
mod receiver;
mod scheduler;
mod socket;
mod source_interface;

#[cfg(test)]
mod agents_tests;
#[cfg(test)]
mod tests;

pub use arp_probe::ArpProbe;
pub use counts::{NotSentReason, ProbeCounts, ProberState};
pub use periodic::TrackedTarget;
pub use prober::{Prober, ProberStatus};
pub use receiver::{ArpReceiver, ReceivedFrame};
pub use scheduler::{
    DetectorView, ProbeOutcome, ProbeScheduler, ProbeSchedulerConfig, ScheduledProbe,
};
pub use socket::{ArpSocket, ArpSocketError};
pub use source_interface::{SourceInterface, SourceInterfaces};
