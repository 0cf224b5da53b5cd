//! Active probing: sends ARP probes (RFC 5227) and evaluates the replies, for the daemon and for `probe check`.
//!
//! Every frame that this program sends is an [`ArpProbe`]: an ARP request. It never replies, never announces, and never
//! uses an address that is not this host's; by default it uses none, which changes no cache on the network (RFC 5227
//! section 1.1).
//!
//! The daemon uses a [`Prober`]: detection requests probes, the pure [`ProbeScheduler`] chooses the time and enforces
//! the rules, [`SourceInterfaces`] selects the egress interface, and replies arrive as frames like any others. Must not
//! depend on `datapath`, `kubernetes`, `notify` or `render`.

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
