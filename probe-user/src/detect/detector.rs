//! The machine: what goes in, what comes out.

use probe_common::wire::MacAddr;

use super::{
    Ask, BindingKey, Counts, DetectConfig, Evidence, Finding, HostFacts, Observation, OwnerView,
    Statistics, Timestamp,
};

/// A binding as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BindingView {
    /// Where and which address.
    #[serde(flatten)]
    pub key: BindingKey,
    /// Whether the address matters.
    pub tracked: bool,
    /// Whether its disputes are on the ignore list.
    pub ignored: bool,
    /// Who claimed it: the current owner first.
    pub owners: Vec<OwnerView>,
    /// Its open conflict.
    pub conflict: Option<ConflictView>,
}

/// An open conflict as the API shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConflictView {
    /// Why it was opened.
    pub evidence: Evidence,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When there was last evidence.
    pub last_evidence: Timestamp,
    /// Whether there has been no evidence for a while.
    pub quiet: bool,
    /// How often there was evidence.
    pub counts: Counts,
}

/// The detection state machine.
#[derive(Debug)]
pub struct Detector {
    config: DetectConfig,
}

impl Detector {
    /// A machine that has seen nothing.
    pub fn new(config: DetectConfig) -> Self {
        Self { config }
    }

    /// Takes one frame. Deadlines that lie before it are judged first, so a run over a capture needs no ticks.
    pub fn observe(&mut self, _observation: &Observation, _findings: &mut Vec<Finding>) {}

    /// Judges what became due without a frame.
    pub fn tick(&mut self, _now: Timestamp, _findings: &mut Vec<Finding>) {}

    /// Replaces what is known beyond the frames.
    pub fn learn(&mut self, _facts: HostFacts, _at: Timestamp, _findings: &mut Vec<Finding>) {}

    /// Takes the outcome of one round of asking: who answered, perhaps nobody.
    pub fn answered(
        &mut self,
        _ask: &Ask,
        _at: Timestamp,
        _answered_by: &[MacAddr],
        _findings: &mut Vec<Finding>,
    ) {
    }

    /// When to tick next; before that a tick does nothing.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// Fetches what is to be asked. Without [`DetectConfig::may_ask`] it is always empty.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        Vec::new()
    }

    /// Whether the answer to an ask would still be of use.
    pub fn wants(&self, _ask: &Ask) -> bool {
        false
    }

    /// When a station other than this host last asked for the address by ARP probe; remembered for 10 s. It
    /// may be a booting host, which would take a probe of ours for a rival (RFC 5227 section 2.1.1).
    pub fn last_probed(&self, _key: &BindingKey) -> Option<Timestamp> {
        None
    }

    /// One binding.
    pub fn binding(&self, _key: &BindingKey) -> Option<BindingView> {
        None
    }

    /// All bindings, in no particular but a stable order.
    pub fn bindings(&self) -> impl Iterator<Item = BindingView> {
        std::iter::empty()
    }

    /// The bindings with an open conflict, in a stable order.
    pub fn open_conflicts(&self) -> impl Iterator<Item = BindingView> {
        std::iter::empty()
    }

    /// The counts.
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// What it goes by.
    pub fn config(&self) -> &DetectConfig {
        &self.config
    }
}
