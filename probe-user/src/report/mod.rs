//! How findings look to machines and to people.

mod record;
pub mod terminal;

pub use record::{FindingRecord, OwnerRecord};
