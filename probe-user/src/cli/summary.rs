//! What was seen, for the end: a summary, and how the program exits.

use std::collections::BTreeSet;

use probe_model::{DisputePhase, FindingKind, FindingRecord};
use probe_render::terminal::place;

use super::Exit;

/// Conflicts that a summary names.
const MAX_NAMED: usize = 10;
/// Conflicts that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Counts of what was shown.
#[derive(Clone, Debug, Default)]
pub struct FindingSummary {
    counts: [u64; FindingKind::COUNT],
    /// Where and which address.
    conflicts: BTreeSet<(String, String)>,
    missed: u64,
}

impl FindingSummary {
    /// Counts a finding.
    pub fn count(&mut self, record: &FindingRecord) {
        self.counts[usize::from(record.finding.number())] += 1;
        if record.finding.attributes().dispute == DisputePhase::OpenConflict
            && !record.drill
            && self.conflicts.len() < MAX_REMEMBERED
        {
            let place = place(&record.interface, record.vlan);
            self.conflicts.insert((place, record.ip.to_string()));
        }
    }

    /// Counts what was missed.
    pub fn add_missed(&mut self, missed: u64) {
        self.missed = self.missed.saturating_add(missed);
    }

    /// How many findings were shown.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was seen, in a line.
    pub fn summary(&self) -> String {
        let kinds = FindingKind::ALL.iter().zip(self.counts);
        let seen: Vec<_> = kinds
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let mut parts = vec![if seen.is_empty() {
            "no findings".to_owned()
        } else {
            seen.join(", ")
        }];
        if !self.conflicts.is_empty() {
            parts.push(format!("in conflict: {}", self.named_conflicts()));
        }
        if self.missed > 0 {
            parts.push(format!("{} missed: they came too fast", self.missed));
        }
        parts.join("; ")
    }

    fn named_conflicts(&self) -> String {
        let named = self.conflicts.iter().take(MAX_NAMED);
        let named: Vec<_> = named
            .map(|(place, ip)| format!("{ip} on {place}"))
            .collect();
        let more = self.conflicts.len().saturating_sub(MAX_NAMED);
        if more == 0 {
            named.join(", ")
        } else {
            format!("{} and {more} more", named.join(", "))
        }
    }

    /// How the program ends: what was missed is never a success.
    pub fn exit(&self, fail_on_conflict: bool) -> Exit {
        if fail_on_conflict && !self.conflicts.is_empty() {
            Exit::Conflict
        } else if self.missed > 0 {
            Exit::Failed
        } else {
            Exit::Success
        }
    }
}
