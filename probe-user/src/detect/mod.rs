//! Detection: who owns an address, and is it a conflict. A pure state machine.

mod ask;
mod config;
mod detector;
mod facts;
mod finding;
mod observation;
mod statistics;
mod time;

pub use ask::{Ask, Purpose};
pub use config::{DetectConfig, Ignore, MacPattern, MacPatternError};
pub use detector::{BindingView, ConflictView, Detector};
pub use facts::HostFacts;
pub use finding::{Counts, Evidence, Finding, FindingKind, Hint, OwnerView, Role, Severity};
pub use observation::{
    Answer, BindingKey, Body, BogusFrame, BogusReason, Claim, EventError, Form, Observation,
    PreviousClaim, Probe, RequestId, Segment,
};
pub use statistics::Statistics;
pub use time::Timestamp;
