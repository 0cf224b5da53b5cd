//! Pools of addresses as they are written down, before anything is on the network: which overlap, which are
//! not what they seem, and what is left when an address is taken out.
//!
//! Pure: texts go in ([`manifest`], [`AddressPlan`]), become what they mean ([`PoolInventory`]) and are checked ([`check_pools`]). Nothing here opens a file or a socket, so that a cluster's answer can be judged in
//! the same way as a repository.

mod evaluate;
pub mod exclude;
pub mod finding;
pub mod free;
pub mod interval;
pub mod manifest;
mod model;
pub mod offer;
mod overlap;
mod plan;
pub mod usage;
pub mod yaml;

#[cfg(any(test, feature = "testing"))]
pub mod corpus;
#[cfg(test)]
mod corpus_tests;

pub use evaluate::{PoolsVerdict, check_pools};
pub use finding::{PoolFinding, PoolFindingCode, PoolFindingLevel};
pub use model::{
    Advertisement, AdvertisementKind, InvalidRangeEntry, Labels, ManifestError, Pool,
    PoolInventory, PoolKind, ServiceScope, SourceLocation, UnreadFile, WrittenRange,
};
pub use plan::{AddressPlan, PlanShare, ReservedRange, ReservedUse};
pub use yaml::YamlMark;
