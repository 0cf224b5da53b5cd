//! Views of the detector's bindings, for the API and the metrics.

use probe_common::wire::MacAddr;
use serde::Serialize;

use super::{BindingKey, Evidence, EvidenceCounts, Hint, OwnerView, Timestamp};

/// A binding as the API and the metrics show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BindingView {
    /// The key of the binding.
    #[serde(flatten)]
    pub key: BindingKey,
    /// Whether the address is tracked.
    pub tracked: bool,
    /// Whether an ignore rule suppresses its disputes.
    pub ignored: bool,
    /// The owners that claimed the address, the current one first. In an open conflict, only those that are part of it.
    /// Empty only for a tracked address without claims.
    pub owners: Vec<OwnerView>,
    /// The time of the last claim, if the address has been reported as silent since.
    pub silent_since: Option<Timestamp>,
    /// The open conflict of the binding.
    pub conflict: Option<ConflictView>,
    /// The takeover of the address, if it is neither a move nor a conflict yet.
    pub takeover: Option<TakeoverView>,
}

/// A takeover that is not decided: the previous owner may still claim the address again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TakeoverView {
    /// The previous owner.
    pub from: MacAddr,
    /// The owner that claimed the address last.
    pub to: MacAddr,
    /// The time of the takeover.
    pub since: Timestamp,
}

/// An open conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ConflictView {
    /// The evidence that opened it.
    pub evidence: Evidence,
    /// The likely cause.
    pub hint: Option<Hint>,
    /// The time at which it was opened.
    pub opened_at: Timestamp,
    /// The time of the last evidence.
    pub last_evidence: Timestamp,
    /// Whether there has been no evidence for the quiet time.
    pub quiet: bool,
    /// The number of observations of each kind of evidence.
    pub counts: EvidenceCounts,
}
