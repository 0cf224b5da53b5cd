//! Asking: who answers for an address?
//!
//! What this program sends, all of it, is a [`Question`]: an ARP request. It never answers, never announces, and
//! never sends with an address that is not this host's; by default it sends with none at all, an ARP probe
//! (RFC 5227 section 1.1), which changes no cache on the network.
//!
//! A daemon asks by [`Asking`]: detection wishes, the pure [`Asker`] chooses the time and keeps the rules,
//! [`Places`] says whence, and the answers come back as frames like any others.

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

pub use asker::{Asker, AskerConfig, Outcome, QUIET_AFTER_NEWCOMER, Shot, View};
pub use asking::{Asking, AskingView};
pub use care::Wanted;
pub use counts::{AskCounts, AskingState, NotSent};
pub use place::{Place, Places};
pub use question::Question;
pub use receiver::{ArpReceiver, Heard};
pub use socket::{ArpSocket, SocketError};
