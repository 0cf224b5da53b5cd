//! Checking: who answers for these addresses, now?
//!
//! The parts are pure, and time comes with what they are told: [`Target`]s are what somebody typed, [`Lots`] the
//! addresses that come of it, [`Schedule`] says which of them is asked about when, [`Ledger`] what was heard, and
//! [`Judge`] what that means. [`Surroundings`] is what netlink says of this host. Whoever joins them sends and
//! receives; here nothing does.
//!
//! What always holds:
//!
//! - Not more frames leave than the pace allows, whatever the clock does.
//! - Nothing is asked about an address for which a stranger has sent an ARP probe in the last 10 s (RFC 5227
//!   section 2.1.1: a booting host would take the question for a rival's).
//! - Of an address that keeps silent, a count and two bits are kept, and of one that has answered nothing once
//!   it has been reported.

pub mod demand;
mod judge;
mod ledger;
mod list;
mod lots;
mod record;
mod schedule;
mod shuffle;
mod surroundings;
mod target;

pub use judge::{Judge, Judgement, Machine, Manner};
pub use ledger::{Ledger, Sighting, Station};
pub use list::{List, ListError, read_list};
pub use lots::{Lot, Lots, LotsError};
pub use record::{Checked, check_record};
pub use schedule::{Course, Next, Schedule};
pub use shuffle::seed;
pub use surroundings::{Neighbours, Port, Route, Surroundings, SurroundingsError};
pub use target::{Target, TargetError};
