//! What a binding may look at while it judges, and what it may leave behind.

use std::collections::HashMap;

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, Counts, Finding, FindingKind, Segment, Severity, Timestamp};

use super::{
    Ask, Statistics,
    facts::{Held, KnownFacts},
    owner::Rules,
};

/// The surroundings of one binding.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub rules: &'a Rules,
    pub facts: &'a KnownFacts,
    pub key: BindingKey,
    /// The address matters.
    pub tracked: bool,
    /// This host holds the address.
    pub held: Option<Held>,
}

/// One claim, answer or deadline while it is judged: when, among what, and where conclusions go.
pub(super) struct Turn<'a> {
    pub at: Timestamp,
    pub scene: Scene<'a>,
    pub ledger: &'a mut Ledger,
    pub findings: &'a mut Vec<Finding>,
}

/// What the machine keeps that is no binding's own.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The time up to which everything is judged.
    pub now: Timestamp,
    pub statistics: Statistics,
    pub asks: Vec<Ask>,
    pub holders: Holders,
}

/// Asks that nobody fetches are dropped beyond this, the newest first.
const MAX_ASKS: usize = 65_536;

impl Turn<'_> {
    /// A finding of this turn, yet without owners. `since` is when what it tells of began.
    pub fn finding(&self, kind: FindingKind, since: Timestamp) -> Finding {
        Finding {
            kind,
            severity: severity(kind, self.scene.tracked),
            at: self.at,
            segment: self.scene.key.segment,
            ip: self.scene.key.ip,
            since,
            owners: Vec::new(),
            evidence: None,
            counts: Counts::default(),
            hint: None,
            bogus: None,
        }
    }

    /// Whether disputes over this address are known to be fine.
    pub fn is_ignored(&self) -> bool {
        let config = &self.scene.rules.config;
        config.ignored(self.scene.key.ip, self.at).is_some()
    }

    /// Reports a finding, unless it is a dispute that is known to be fine.
    pub fn report(&mut self, mut finding: Finding) {
        if finding.kind.is_dispute() && self.is_ignored() {
            self.ledger.statistics.ignored(finding.kind);
            return;
        }
        // A claim that arrives late tells of the past, but findings come in the order of time.
        finding.at = finding.at.max(self.ledger.now);
        self.ledger.statistics.reported(&finding);
        self.findings.push(finding);
    }

    /// Counts a finding that is not reported because its like just was.
    pub const fn hold_back(&mut self, kind: FindingKind) {
        self.ledger.statistics.held_back(kind);
    }

    /// Wishes something to be asked.
    pub fn ask(&mut self, ask: Ask) {
        if self.ledger.asks.len() < MAX_ASKS {
            self.ledger.asks.push(ask);
        } else {
            self.ledger.statistics.dropped_asks += 1;
        }
    }
}

/// How much a finding matters, by its kind and whether the address is tracked.
const fn severity(kind: FindingKind, tracked: bool) -> Severity {
    match kind {
        FindingKind::NewBinding | FindingKind::ProbeDenied | FindingKind::SourceMismatch => {
            Severity::Info
        }
        FindingKind::Moved
        | FindingKind::ConflictQuiet
        | FindingKind::ConflictResolved
        | FindingKind::ConflictExpired => Severity::Notice,
        FindingKind::Contested | FindingKind::BogusClaim | FindingKind::Silent => Severity::Warning,
        FindingKind::Conflict => {
            if tracked {
                Severity::Critical
            } else {
                Severity::Warning
            }
        }
    }
}

/// How many addresses each MAC has claimed on a segment, among those remembered: a station with none is a
/// newcomer.
#[derive(Debug, Default)]
pub(super) struct Holders(HashMap<(Segment, MacAddr), u32>);

impl Holders {
    /// Whether the station has claimed any address.
    pub fn holds_any(&self, segment: Segment, mac: MacAddr) -> bool {
        self.0.contains_key(&(segment, mac))
    }

    /// The station has claimed one more.
    pub fn add(&mut self, segment: Segment, mac: MacAddr) {
        *self.0.entry((segment, mac)).or_default() += 1;
    }

    /// One of its claims is forgotten.
    pub fn remove(&mut self, segment: Segment, mac: MacAddr) {
        if let Some(count) = self.0.get_mut(&(segment, mac)) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&(segment, mac));
            }
        }
    }
}
