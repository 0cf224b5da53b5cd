//! Address pool files: parses manifests, finds overlaps and mistakes, and excludes addresses from pools.
//!
//! Pure. Must not depend on anything but `model` and `probe-common`, on tokio, on sockets or on files. Texts go in
//! ([`manifest`], [`AddressPlan`]), become a [`PoolInventory`] and are evaluated ([`check_pools`]), so the files of a
//! repository and the objects of an API server are checked in the same way.

#![forbid(unsafe_code)]

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

pub use evaluate::{PoolsEvaluation, check_pools};
pub use finding::{PoolFinding, PoolFindingCode, PoolFindingLevel};
pub use model::{
    Advertisement, AdvertisementKind, InvalidRangeEntry, Labels, ManifestError, Pool,
    PoolInventory, PoolKind, ServiceScope, SourceLocation, UnreadFile, WrittenRange,
};
pub use plan::{AddressPlan, PlanShare, ReservedRange, ReservedUse};
pub use yaml::YamlMark;
