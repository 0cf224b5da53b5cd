//! Asking: who answers for an address?
//!
//! What this program sends, all of it, is a [`Question`]: an ARP request. It never answers, never announces, and
//! never sends with an address that is not this host's; by default it sends with none at all, an ARP probe
//! (RFC 5227 section 1.1), which changes no cache on the network.

mod question;
mod receiver;
mod socket;

pub use question::Question;
pub use receiver::{ArpReceiver, Heard};
pub use socket::{ArpSocket, SocketError};
