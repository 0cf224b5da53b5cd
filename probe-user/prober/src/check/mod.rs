//! Checking which hosts reply for addresses now.
//!
//! The parts are pure, the caller passes the time: [`Target`]s are the arguments of the command line, [`TargetRanges`] the
//! addresses that result, [`CheckSchedule`] decides which of them is probed when, [`ResponseTable`] records the received
//! frames, and [`CheckEvaluator`] decides who owns each address. [`HostNetwork`] reads this host's network over netlink.
//! The caller joins them, sends and receives.
//!
//! Invariants:
//!
//! - The rate limit holds for any behaviour of the clock.
//! - While a host may be booting with an address (RFC 5227 section 2.1.1), the address is not probed.
//! - An address without a reply takes a counter and two bits; an address that was reported, nothing else.

pub mod cluster_targets;
mod evaluate;
mod host_network;
mod record;
mod response_table;
mod schedule;
mod shared_replies;
mod shuffle;
mod target;
mod target_list;
mod target_ranges;

pub use evaluate::{CheckEvaluator, CheckMode, CheckResult, CheckedHost, LocalOwnership};
pub use host_network::{
    EgressInterface, EgressNeighbours, HostNetwork, HostNetworkError, TargetRoute,
};
pub use record::{CheckDetails, check_record};
pub use response_table::{AddressResponses, ProbeForm, RespondingMac, ResponseTable, SentProbe};
pub use schedule::{CheckSchedule, ScheduleAction, ScheduleMode};
pub use shared_replies::SharedReplies;
pub use shuffle::seed;
pub use target::{InvalidTarget, Target};
pub use target_list::{TargetList, TargetListError, parse_target_list};
pub use target_ranges::{TargetRange, TargetRanges, TargetRangesError};
