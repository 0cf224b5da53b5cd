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

pub mod cluster_targets;
mod evaluate;
mod host_network;
mod record;
mod response_table;
mod schedule;
mod shuffle;
mod target;
mod target_list;
mod target_ranges;

pub use evaluate::{CheckEvaluator, CheckMode, CheckResult, CheckedHost};
pub use host_network::{
    EgressInterface, EgressNeighbours, HostNetwork, HostNetworkError, TargetRoute,
};
pub use record::{CheckDetails, check_record};
pub use response_table::{AddressResponses, RespondingMac, ResponseTable};
pub use schedule::{CheckSchedule, ScheduleAction, ScheduleMode};
pub use shuffle::seed;
pub use target::{InvalidTarget, Target};
pub use target_list::{TargetList, TargetListError, parse_target_list};
pub use target_ranges::{TargetRange, TargetRanges, TargetRangesError};
