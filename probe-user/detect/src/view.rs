//! Views of a binding.

use probe_model::{BindingView, ConflictView, Timestamp};

use super::{binding::Binding, table::BindingEntry, transition::BindingContext};

/// The view of one entry of the table.
pub(super) fn binding_view(
    entry: &BindingEntry,
    context: &BindingContext,
    now: Timestamp,
) -> BindingView {
    let binding = &entry.binding;
    BindingView {
        key: entry.key,
        tracked: entry.tracked,
        ignored: context.rules.config.ignored(entry.key.ip, now).is_some(),
        owners: binding.shown_owners(context, now),
        silent_since: binding.silent_since(context),
        conflict: conflict_view(binding),
        takeover: binding.pending_takeover(context, now),
    }
}

/// The view of the open conflict of a binding, if it has one.
pub(super) fn conflict_view(binding: &Binding) -> Option<ConflictView> {
    binding.conflict().map(|conflict| ConflictView {
        evidence: conflict.evidence,
        hint: conflict.hint,
        opened_at: conflict.opened_at,
        last_evidence: conflict.last_evidence,
        quiet: conflict.quiet_since.is_some(),
        counts: conflict.counts,
    })
}
