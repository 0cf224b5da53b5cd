//! The kernel's frame counters of one direction, and a check that they add up.

use anyhow::ensure;
use probe_common::{
    counter::{Direction, EmitOutcome},
    wire::FrameKind,
};

use crate::metrics::Metrics;

/// The frame counters of one scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterBalance {
    /// Frames with the ARP ethertype.
    pub frames: u64,
    /// Frames that the parser rejected.
    pub malformed: u64,
    /// Frames that are no valid claim.
    pub bogus: u64,
    /// Claims.
    pub claims: u64,
    /// ARP probes.
    pub probes: u64,
    /// The outcomes of each kind, in the order of [`FrameKind::ALL`] and [`EmitOutcome::ALL`].
    pub outcomes: [[u64; EmitOutcome::COUNT]; FrameKind::COUNT],
    /// Events that user space received from the rings.
    pub received: u64,
}

impl CounterBalance {
    /// Reads the counters from a scrape, summed over all interfaces.
    pub fn read(metrics: &Metrics, direction: Direction) -> anyhow::Result<Self> {
        let way = ("direction", direction.label());
        let count = |what: &str| metrics.count(&format!("arp_monitor_{what}_total"), &[way]);
        let mut outcomes = [[0; EmitOutcome::COUNT]; FrameKind::COUNT];
        for (kind, row) in FrameKind::ALL.iter().zip(&mut outcomes) {
            for (outcome, value) in EmitOutcome::ALL.iter().zip(row) {
                let labels = [way, ("kind", kind.label()), ("outcome", outcome.label())];
                *value = metrics.count("arp_monitor_frame_outcomes_total", &labels)?;
            }
        }
        Ok(Self {
            frames: count("frames")?,
            malformed: count("malformed_frames")?,
            bogus: count("bogus_frames")?,
            claims: count("claims")?,
            probes: count("arp_probes")?,
            outcomes,
            received: count("events_received")?,
        })
    }

    /// The number of frames of a kind with this outcome.
    pub fn outcome(&self, kind: FrameKind, outcome: EmitOutcome) -> u64 {
        self.outcomes[usize::from(kind.number())][usize::from(outcome.number())]
    }

    /// The number of frames that the kernel emitted to user space.
    pub fn emitted(&self) -> u64 {
        FrameKind::ALL
            .iter()
            .map(|&kind| self.outcome(kind, EmitOutcome::Emitted))
            .sum()
    }

    /// Whether user space has received every emitted event. A scrape reads the counters shortly before or after the
    /// rings, so this is only true on a quiet network.
    pub fn is_settled(&self) -> bool {
        self.emitted() == self.received
    }

    /// Checks that no frame was lost or counted twice.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.frames == self.malformed + self.bogus + self.claims + self.probes,
            "frames are not malformed + bogus + claims + probes: {self:?}"
        );
        for &kind in FrameKind::ALL {
            let counted = match kind {
                FrameKind::Claim => self.claims,
                FrameKind::Probe => self.probes,
                FrameKind::Bogus => self.bogus,
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

    /// A scrape with two frames of each kind and one malformed frame; both frames of a kind have the same outcome.
    fn scrape(received: u64) -> Metrics {
        let mut text = String::new();
        for (what, value) in [
            ("frames", 7),
            ("malformed_frames", 1),
            ("bogus_frames", 2),
            ("claims", 2),
            ("arp_probes", 2),
            ("events_received", received),
        ] {
            writeln!(
                text,
                "arp_monitor_{what}_total{{direction=\"ingress\"}} {value}"
            )
            .unwrap();
        }
        for kind in FrameKind::ALL {
            for (number, outcome) in EmitOutcome::ALL.iter().enumerate() {
                let value = if number == usize::from(kind.number()) {
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
    fn counters_that_add_up_are_accepted() {
        let balance = CounterBalance::read(&scrape(2), Direction::Ingress).unwrap();
        assert_eq!(balance.outcome(FrameKind::Claim, EmitOutcome::Emitted), 2);
        assert_eq!(balance.outcome(FrameKind::Probe, EmitOutcome::Unchanged), 2);
        balance.check().unwrap();
    }

    #[test]
    fn each_equation_is_checked() {
        let balance = CounterBalance::read(&scrape(2), Direction::Ingress).unwrap();
        for (wrong, complaint) in [
            (
                CounterBalance {
                    frames: 8,
                    ..balance
                },
                "frames are not",
            ),
            (
                CounterBalance {
                    claims: 3,
                    probes: 1,
                    ..balance
                },
                "outcomes of each claim",
            ),
            (
                CounterBalance {
                    received: 1,
                    ..balance
                },
                "emitted is not received",
            ),
        ] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_missing_direction_is_an_error() {
        assert!(CounterBalance::read(&scrape(2), Direction::Egress).is_err());
    }
}
