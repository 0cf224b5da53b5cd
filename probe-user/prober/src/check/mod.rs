//! Checking: who answers for these addresses, now?
//!
//! The parts are pure, and time comes with what they are told: [`Target`]s are what somebody typed, [`TargetRanges`] the
//! addresses that come of it, [`CheckSchedule`] says which of them is asked about when, [`ResponseTable`] what was heard, and
//! [`CheckEvaluator`] what that means. [`HostNetwork`] is what netlink says of this host. Whoever joins them sends and
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

pub use judge::{CheckEvaluator, CheckMode, CheckResult, CheckedHost};
pub use ledger::{AddressResponses, RespondingMac, ResponseTable};
pub use list::{TargetList, TargetListError, parse_target_list};
pub use lots::{TargetRange, TargetRanges, TargetRangesError};
pub use record::{CheckDetails, check_record};
pub use schedule::{CheckSchedule, ScheduleAction, ScheduleMode};
pub use shuffle::seed;
pub use surroundings::{
    EgressInterface, EgressNeighbours, HostNetwork, HostNetworkError, TargetRoute,
};
pub use target::{InvalidTarget, Target};
