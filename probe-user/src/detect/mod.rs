//! Detection: who owns an address, and is it a conflict. A pure state machine.

mod ask;
mod binding;
mod bogus;
mod config;
mod detector;
mod facts;
mod finding;
mod observation;
mod owner;
mod probes;
mod recency;
mod recent;
mod statistics;
mod table;
mod time;
mod turn;
mod view;
mod world;

#[cfg(test)]
mod tests;

pub use ask::{Ask, Purpose};
pub use config::{DetectConfig, Ignore, MacPattern, MacPatternError};
pub use detector::Detector;
pub use facts::HostFacts;
pub use finding::{Counts, Evidence, Finding, FindingKind, Hint, OwnerView, Role, Severity};
pub use observation::{
    Answer, BindingKey, Body, BogusFrame, BogusReason, Claim, EventError, Form, Observation,
    PreviousClaim, Probe, RequestId, Segment,
};
pub use statistics::Statistics;
pub use time::Timestamp;
pub use view::{BindingView, ConflictView};
