//! What can be asked about bindings at any time.

use probe_common::wire::MacAddr;
use serde::Serialize;

use super::{BindingKey, Evidence, EvidenceCounts, Hint, OwnerView, Timestamp};

/// A binding as the API and the metrics show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BindingView {
    /// Where and which address.
    #[serde(flatten)]
    pub key: BindingKey,
    /// Whether the address matters.
    pub tracked: bool,
    /// Whether its disputes are on the ignore list.
    pub ignored: bool,
    /// Who has claimed it: the current owner first. In an open conflict only those that take part. Empty if
    /// nobody has, which only an expected address survives.
    pub owners: Vec<OwnerView>,
    /// When it was last claimed, if it has been reported as silent since; `None` once it speaks again.
    pub silent_since: Option<Timestamp>,
    /// Its open conflict.
    pub conflict: Option<ConflictView>,
    /// Its takeover, if that is neither a move nor a conflict yet.
    pub takeover: Option<TakeoverView>,
}

/// A takeover that is not decided: the previous owner may still claim the address again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TakeoverView {
    /// The previous owner.
    pub from: MacAddr,
    /// The owner that claimed the address last.
    pub to: MacAddr,
    /// When the last owner took the address over.
    pub since: Timestamp,
}

/// An open conflict as the API and the metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ConflictView {
    /// Why it was opened.
    pub evidence: Evidence,
    /// What may be the cause.
    pub hint: Option<Hint>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When there was last evidence.
    pub last_evidence: Timestamp,
    /// Whether there has been no evidence for a while.
    pub quiet: bool,
    /// How often there was evidence.
    pub counts: EvidenceCounts,
}
