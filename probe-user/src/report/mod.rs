//! How findings look to machines and to people.

mod binding;
mod cause_step;
mod check;
mod claim;
mod inert;
pub(crate) mod layout;
mod next_step;
mod record;

pub mod terminal;
pub mod vendor;
pub(crate) mod words;

pub use binding::{BindingRecord, ConflictRecord};
pub(crate) use cause_step::{Blamed, cause_step};
pub use check::{CheckOwnerRecord, CheckRecord, Checked, NeighbourRecord};
pub use claim::{ClaimForm, ClaimRecord};
pub(crate) use inert::inert;
pub(crate) use next_step::machines;
pub use next_step::{NextStep, Origin, next_step};
pub use record::{CountsRecord, FindingRecord, OwnerRecord, to_json};
pub use terminal::Terminal;

#[cfg(test)]
pub(crate) mod schema;
#[cfg(test)]
mod schema_tests;
