//! How a verdict on pools looks: to people, as JSON, and as SARIF.

mod human;
mod record;
mod sarif;
mod text;

pub use human::ReportPrinter;
pub use record::{
    ClusterPoolsRecord, PlaceRecord, PoolFindingRecord, PoolUsageRecord, PoolsReport, UnreadRecord,
    UsageRecord,
};
pub use sarif::sarif;

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
