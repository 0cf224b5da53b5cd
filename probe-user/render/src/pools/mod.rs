//! How a verdict on pools looks: to people, as JSON, and as SARIF.

mod human;
mod record;
mod sarif;
mod words;

pub use human::Page;
pub use record::{
    ClusterRecord, FindingRecord, PlaceRecord, PoolRecord, Report, UnreadRecord, UsageRecord,
};
pub use sarif::sarif;

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
