//! The summary at the end of `watch`, and the exit status.

use std::collections::BTreeMap;

use probe_model::{DisputePhase, FindingKind, FindingRecord};
use probe_render::terminal::location;

use super::Exit;

/// Maximum number of conflicts in a summary.
const MAX_NAMED: usize = 10;
/// Maximum number of remembered conflicts.
const MAX_REMEMBERED: usize = 10_000;

/// Counts of the shown findings.
#[derive(Clone, Debug, Default)]
pub struct FindingSummary {
    counts: [u64; FindingKind::COUNT],
    conflicts: BTreeMap<ConflictLocation, ConflictState>,
    undecided: u64,
    missed: u64,
}

/// An address on a segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ConflictLocation {
    location: String,
    ip: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConflictState {
    Open,
    Ended,
}

impl FindingSummary {
    /// Counts a finding that is shown.
    pub fn count(&mut self, record: &FindingRecord) {
        self.counts[usize::from(record.finding.number())] += 1;
        let opens = record.finding.attributes().dispute == DisputePhase::OpenConflict;
        if opens && !record.drill && self.conflicts.len() < MAX_REMEMBERED {
            let location = ConflictLocation::of(record);
            self.conflicts.insert(location, ConflictState::Open);
        }
    }

    /// Records the end of a counted conflict, even if its end is not shown.
    pub fn record_end(&mut self, record: &FindingRecord) {
        if record.finding.attributes().dispute == DisputePhase::EndedConflict
            && let Some(state) = self.conflicts.get_mut(&ConflictLocation::of(record))
        {
            *state = ConflictState::Ended;
        }
    }

    /// Counts a takeover that is not decided at the end.
    pub const fn add_undecided(&mut self) {
        self.undecided += 1;
    }

    /// Counts missed findings.
    pub fn add_missed(&mut self, missed: u64) {
        self.missed = self.missed.saturating_add(missed);
    }

    /// The number of shown findings.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The summary in one line.
    pub fn summary(&self) -> String {
        let kinds = FindingKind::ALL.iter().zip(self.counts);
        let shown: Vec<_> = kinds
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let mut parts = vec![if shown.is_empty() {
            "no findings".to_owned()
        } else {
            shown.join(", ")
        }];
        for (state, label) in [
            (ConflictState::Open, "open conflicts"),
            (ConflictState::Ended, "ended conflicts"),
        ] {
            parts.extend(
                self.named_conflicts(state)
                    .map(|named| format!("{label}: {named}")),
            );
        }
        if self.undecided > 0 {
            parts.push(format!("{} undecided at the end", self.undecided));
        }
        if self.missed > 0 {
            parts.push(format!("{} missed: findings came too fast", self.missed));
        }
        parts.join("; ")
    }

    fn named_conflicts(&self, wanted: ConflictState) -> Option<String> {
        let conflicts = self.conflicts.iter().filter(|(_, state)| **state == wanted);
        let count = conflicts.clone().count();
        let named: Vec<_> = conflicts
            .take(MAX_NAMED)
            .map(|(ConflictLocation { location, ip }, _)| format!("{ip} on {location}"))
            .collect();
        match count.saturating_sub(MAX_NAMED) {
            _ if count == 0 => None,
            0 => Some(named.join(", ")),
            more => Some(format!("{} and {more} more", named.join(", "))),
        }
    }

    /// The exit status. Missed findings are no success; with `fail_on_conflict` neither are pending takeovers.
    pub fn exit(&self, fail_on_conflict: bool) -> Exit {
        if fail_on_conflict && !self.conflicts.is_empty() {
            Exit::Conflict
        } else if self.missed > 0 || fail_on_conflict && self.undecided > 0 {
            Exit::Failed
        } else {
            Exit::Success
        }
    }
}

impl ConflictLocation {
    fn of(record: &FindingRecord) -> Self {
        Self {
            location: location(&record.interface, record.vlan),
            ip: record.ip.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undecided_takeover_fails_only_where_conflicts_fail() {
        let mut summary = FindingSummary::default();
        assert_eq!(summary.exit(true), Exit::Success);
        summary.add_undecided();
        assert_eq!(
            [true, false].map(|fail| summary.exit(fail)),
            [Exit::Failed, Exit::Success]
        );
        assert_eq!(summary.summary(), "no findings; 1 undecided at the end");
    }
}
