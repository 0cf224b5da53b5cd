//! The shared data types: addresses, segments, owners, findings, causes, and their JSON form.
//!
//! Pure data. Must not depend on any other crate of this workspace but `probe-common`, on tokio, on sockets or on
//! files.

#![forbid(unsafe_code)]

mod backoff;
mod binding;
mod binding_key;
mod bogus_reason;
mod cause_step;
mod check;
mod claim;
mod clock;
mod context;
pub mod drill;
mod escape;
mod finding;
mod leadership;
mod links;
mod mac_pattern;
mod next_step;
pub mod on_link;
mod record;
mod text;
mod time;
pub mod vendor;
mod view;
pub mod watched;

#[cfg(any(test, feature = "testing"))]
pub mod schema;
#[cfg(test)]
mod schema_tests;

pub use backoff::Backoff;
pub use binding::{BindingRecord, ConflictRecord, TakeoverRecord, UndecidedKind, UndecidedRecord};
pub use binding_key::{BindingKey, Segment};
pub use bogus_reason::BogusReason;
pub use cause_step::{CauseSubject, cause_step};
pub use check::{CheckOwnerRecord, CheckRecord, CheckStatus, NeighborRecord};
pub use claim::{ClaimForm, ClaimRecord};
pub use clock::Clock;
pub use context::{
    AddressContext, AnnouncementMode, CauseKind, CauseScope, ClusterCause, NamespacedName,
};
pub use escape::escape_untrusted;
pub use finding::{
    AnnouncementKind, DisputePhase, Evidence, EvidenceCounts, Finding, FindingAttributes,
    FindingKind, FindingPublication, Hint, OwnerRole, OwnerView, Severity,
};
pub use leadership::{Leadership, Predecessor};
pub use links::{DefaultRoute, Link, Links};
pub use mac_pattern::{MacPattern, MacPatternError};
pub use next_step::{FindingOrigin, NextStep, after_check, identify_hosts, next_step};
pub use record::{CountsRecord, FindingRecord, OwnerRecord, to_json};
pub use text::{error_chain, truncate};
pub use time::Timestamp;
pub use view::{BindingView, ConflictView, TakeoverView};
