//! The kernel's counts of one interface and direction, and the equations between them.

use anyhow::ensure;
use probe_common::{
    counter::{Direction, Outcome},
    wire::Kind,
};

use crate::metrics::Metrics;

/// What one scrape says was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Everything with the ARP ethertype.
    pub frames: u64,
    /// What could not be read.
    pub malformed: u64,
    /// What makes no valid claim.
    pub bogus: u64,
    /// Claims.
    pub claims: u64,
    /// ARP probes.
    pub probes: u64,
    /// What became of each kind, in the order of [`Kind::ALL`] and [`Outcome::ALL`].
    pub outcomes: [[u64; Outcome::COUNT]; Kind::COUNT],
    /// What user space took out of the rings.
    pub received: u64,
}

impl Ledger {
    /// Reads it from a scrape; of all interfaces together if there are several.
    pub fn read(metrics: &Metrics, direction: Direction) -> anyhow::Result<Self> {
        let way = ("direction", direction.label());
        let count = |what: &str| metrics.count(&format!("arp_monitor_{what}_total"), &[way]);
        let mut outcomes = [[0; Outcome::COUNT]; Kind::COUNT];
        for (kind, row) in Kind::ALL.iter().zip(&mut outcomes) {
            for (outcome, value) in Outcome::ALL.iter().zip(row) {
                let labels = [way, ("kind", kind.label()), ("outcome", outcome.label())];
                *value = metrics.count("arp_monitor_frame_outcomes_total", &labels)?;
            }
        }
        Ok(Self {
            frames: count("frames")?,
            malformed: count("malformed_frames")?,
            bogus: count("bogus_frames")?,
            claims: count("claims")?,
            probes: count("probes")?,
            outcomes,
            received: count("events_received")?,
        })
    }

    /// How many of one kind had this outcome.
    pub fn outcome(&self, kind: Kind, outcome: Outcome) -> u64 {
        self.outcomes[usize::from(kind.number())][usize::from(outcome.number())]
    }

    /// How many frames the kernel side handed to user space.
    pub fn emitted(&self) -> u64 {
        Kind::ALL
            .iter()
            .map(|&kind| self.outcome(kind, Outcome::Emitted))
            .sum()
    }

    /// Whether user space has everything that the kernel side handed to it. A scrape reads the counters a
    /// moment before or after the rings, so this holds once the network is quiet.
    pub fn is_settled(&self) -> bool {
        self.emitted() == self.received
    }

    /// Holds the counts against each other: nothing was lost, nothing counted twice.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.frames == self.malformed + self.bogus + self.claims + self.probes,
            "frames are not malformed + bogus + claims + probes: {self:?}"
        );
        for &kind in Kind::ALL {
            let counted = match kind {
                Kind::Claim => self.claims,
                Kind::Probe => self.probes,
                Kind::Bogus => self.bogus,
            };
            let outcomes: u64 = self.outcomes[usize::from(kind.number())].iter().sum();
            ensure!(
                counted == outcomes,
                "the outcomes of each {kind} do not add up to {counted}: {self:?}"
            );
        }
        ensure!(self.is_settled(), "emitted is not received: {self:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// A scrape with two frames of each kind and one malformed; each kind has one outcome twice.
    fn scrape(received: u64) -> Metrics {
        let mut text = String::new();
        for (what, value) in [
            ("frames", 7),
            ("malformed_frames", 1),
            ("bogus_frames", 2),
            ("claims", 2),
            ("probes", 2),
            ("events_received", received),
        ] {
            writeln!(
                text,
                "arp_monitor_{what}_total{{direction=\"ingress\"}} {value}"
            )
            .unwrap();
        }
        for kind in Kind::ALL {
            for (place, outcome) in Outcome::ALL.iter().enumerate() {
                let value = if place == usize::from(kind.number()) {
                    2
                } else {
                    0
                };
                writeln!(
                    text,
                    "arp_monitor_frame_outcomes_total\
                     {{direction=\"ingress\",kind=\"{kind}\",outcome=\"{outcome}\"}} {value}"
                )
                .unwrap();
            }
        }
        Metrics::parse(&text).unwrap()
    }

    #[test]
    fn counts_that_add_up_are_accepted() {
        let ledger = Ledger::read(&scrape(2), Direction::Ingress).unwrap();
        assert_eq!(ledger.outcome(Kind::Claim, Outcome::Emitted), 2);
        assert_eq!(ledger.outcome(Kind::Probe, Outcome::Unchanged), 2);
        ledger.check().unwrap();
    }

    #[test]
    fn each_equation_is_held() {
        let ledger = Ledger::read(&scrape(2), Direction::Ingress).unwrap();
        for (wrong, complaint) in [
            (
                Ledger {
                    frames: 8,
                    ..ledger
                },
                "frames are not",
            ),
            (
                Ledger {
                    claims: 3,
                    probes: 1,
                    ..ledger
                },
                "outcomes of each claim",
            ),
            (
                Ledger {
                    received: 1,
                    ..ledger
                },
                "emitted is not received",
            ),
        ] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_direction_that_is_missing_is_an_error() {
        assert!(Ledger::read(&scrape(2), Direction::Egress).is_err());
    }
}
