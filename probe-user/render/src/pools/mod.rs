//! Output of `probe pools check`: text for people, JSON, and SARIF.

mod human;
mod record;
mod sarif;
mod text;

pub use human::ReportPrinter;
pub use record::{
    ClusterPoolsRecord, LocationRecord, PoolFindingRecord, PoolUsageRecord, PoolsReport,
    UnreadRecord, UsageRecord,
};
pub use sarif::sarif;

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
