//! Counters of detection.

use probe_model::{Finding, FindingKind, Severity};

/// Counts since the start, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectorStatistics {
    /// Bindings remembered now.
    pub bindings: usize,
    /// Conflicts open now, ignored ones included.
    pub open_conflicts: usize,
    /// Those of them that have become quiet.
    pub quiet_conflicts: usize,
    /// Tracked addresses that are remembered now.
    pub tracked: usize,
    /// Addresses that are, or were lately, contested.
    pub contested: usize,
    /// Observations taken.
    pub observations: u64,
    /// Findings reported, by kind and severity.
    pub findings: [[u64; Severity::COUNT]; FindingKind::COUNT],
    /// Findings that the ignore list kept from being reported, by kind.
    pub ignored: [u64; FindingKind::COUNT],
    /// Findings suppressed as repetitions, by kind.
    pub suppressed: [u64; FindingKind::COUNT],
    /// Bindings forgotten to make room.
    pub evicted_bindings: u64,
    /// Claims dropped, because every binding in the table has an open conflict or is tracked.
    pub rejected_claims: u64,
    /// MACs forgotten to make room in their binding.
    pub evicted_macs: u64,
    /// Those of them that were claimants of a tracked address.
    pub evicted_tracked_macs: u64,
    /// Probe requests dropped because they were not taken.
    pub dropped_probe_requests: u64,
    /// Times that the clock was set back.
    pub clock_steps: u64,
}

impl DetectorStatistics {
    /// Counts a MAC that was evicted from a binding.
    pub(super) const fn count_evicted_mac(&mut self, tracked: bool) {
        self.evicted_macs += 1;
        self.evicted_tracked_macs += tracked as u64;
    }

    /// Findings reported of one kind and severity.
    pub const fn findings(&self, kind: FindingKind, severity: Severity) -> u64 {
        self.findings[kind.number() as usize][severity.number() as usize]
    }

    pub(super) const fn count_reported(&mut self, finding: &Finding) {
        let (kind, severity) = (finding.kind.number(), finding.severity.number());
        self.findings[kind as usize][severity as usize] += 1;
    }

    pub(super) const fn ignored(&mut self, kind: FindingKind) {
        self.ignored[kind.number() as usize] += 1;
    }

    pub(super) const fn count_suppressed(&mut self, kind: FindingKind) {
        self.suppressed[kind.number() as usize] += 1;
    }
}
