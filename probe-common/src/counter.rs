//! What the kernel counts, per interface, direction and CPU.
//!
//! The counts obey, for each interface and direction:
//!
//! ```text
//! frames = malformed + bogus + claims + probes
//! kind   = emitted + unchanged + rate_limited + filtered + ring_full   (kind: claims, probes, bogus)
//! ```
//!
//! Both sides of each equation are counted on their own, so that a test can hold them against each
//! other.

use bytemuck::{Pod, Zeroable};

use crate::{
    label::label_enum,
    parse::Malformed,
    wire::{Bogus, Kind, Operation},
};

label_enum! {
    /// Which way a frame went, as the host sees it.
    pub enum Direction {
        /// Received.
        Ingress = "ingress",
        /// Sent by this host.
        Egress = "egress",
    }
}

label_enum! {
    /// What became of a claim, an ARP probe or a bogus frame.
    pub enum Outcome {
        /// It went to user space.
        Emitted = "emitted",
        /// It says what is known already.
        Unchanged = "unchanged",
        /// It would have gone out, had its budget not been used up.
        RateLimited = "rate_limited",
        /// The watch filter does not list its address.
        Filtered = "filtered",
        /// Lost: the ring was full, or the CPU has none.
        RingFull = "ring_full",
    }
}

/// One thing that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Frames with the ARP ethertype, by operation.
    Frames(Operation),
    /// Frames that could not be read, by reason.
    Malformed(Malformed),
    /// Frames that make no valid claim, by reason.
    Bogus(Bogus),
    /// Claims.
    Claims,
    /// ARP probes.
    Probes,
    /// What became of the frames of one kind.
    Outcome(Kind, Outcome),
}

const MALFORMED: usize = Operation::COUNT;
const BOGUS: usize = MALFORMED + Malformed::COUNT;
const CLAIMS: usize = BOGUS + Bogus::COUNT;
const PROBES: usize = CLAIMS + 1;
const OUTCOMES: usize = PROBES + 1;

impl Counter {
    /// How many counters there are.
    pub const COUNT: usize = OUTCOMES + Kind::COUNT * Outcome::COUNT;

    /// The counter's place in [`Counters`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        match self {
            Self::Frames(operation) => operation.number() as usize,
            Self::Malformed(reason) => MALFORMED + reason.number() as usize,
            Self::Bogus(reason) => BOGUS + reason.number() as usize,
            Self::Claims => CLAIMS,
            Self::Probes => PROBES,
            Self::Outcome(kind, outcome) => {
                OUTCOMES + kind.number() as usize * Outcome::COUNT + outcome.number() as usize
            }
        }
    }
}

/// The key of an interface and direction in the kernel's map of counters.
#[inline(always)]
pub const fn counters_key(ifindex: u32, direction: Direction) -> u32 {
    // Interface indexes are positive `int`s in the kernel, so the top bit is free.
    ifindex << 1 | direction.number() as u32
}

/// Room for the counters: a power of two, so that the kernel side bounds an index with a mask.
const SLOTS: usize = 64;
const _: () = assert!(Counter::COUNT <= SLOTS);

/// The counters of one interface and direction, on one CPU or summed over all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Counters([u64; SLOTS]);

impl Default for Counters {
    fn default() -> Self {
        Self::zeroed()
    }
}

impl Counters {
    /// Adds one.
    #[inline(always)]
    pub const fn increment(&mut self, counter: Counter) {
        let slot = &mut self.0[counter.index() & (SLOTS - 1)];
        *slot = slot.wrapping_add(1);
    }

    /// The value of one counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter.index()]
    }

    /// All frames with the ARP ethertype.
    pub fn frames(&self) -> u64 {
        Operation::ALL
            .iter()
            .map(|&operation| self.get(Counter::Frames(operation)))
            .sum()
    }

    /// All malformed frames.
    pub fn malformed(&self) -> u64 {
        Malformed::ALL
            .iter()
            .map(|&reason| self.get(Counter::Malformed(reason)))
            .sum()
    }

    /// All frames of one kind.
    pub fn of_kind(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Claim => self.get(Counter::Claims),
            Kind::Probe => self.get(Counter::Probes),
            Kind::Bogus => Bogus::ALL
                .iter()
                .map(|&reason| self.get(Counter::Bogus(reason)))
                .sum(),
        }
    }

    /// What became of the frames of one kind, in the order of [`Outcome::ALL`].
    pub fn outcomes(&self, kind: Kind) -> [u64; Outcome::COUNT] {
        core::array::from_fn(|number| self.0[Counter::Outcome(kind, Outcome::ALL[number]).index()])
    }

    /// Frames that went to user space.
    pub fn emitted(&self) -> u64 {
        Kind::ALL
            .iter()
            .map(|&kind| self.get(Counter::Outcome(kind, Outcome::Emitted)))
            .sum()
    }

    /// Adds another CPU's counts.
    pub fn add(&mut self, other: &Self) {
        for (slot, value) in self.0.iter_mut().zip(other.0) {
            *slot = slot.wrapping_add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Counter> {
        let mut all: Vec<_> = Operation::ALL
            .iter()
            .map(|&op| Counter::Frames(op))
            .collect();
        all.extend(
            Malformed::ALL
                .iter()
                .map(|&reason| Counter::Malformed(reason)),
        );
        all.extend(Bogus::ALL.iter().map(|&reason| Counter::Bogus(reason)));
        all.extend([Counter::Claims, Counter::Probes]);
        for &kind in Kind::ALL {
            all.extend(
                Outcome::ALL
                    .iter()
                    .map(|&outcome| Counter::Outcome(kind, outcome)),
            );
        }
        all
    }

    #[test]
    fn every_counter_has_a_place_of_its_own() {
        let places: Vec<_> = all().into_iter().map(Counter::index).collect();
        assert_eq!(places, (0..Counter::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn sums_cover_each_counter_once() {
        let mut counters = Counters::default();
        for counter in all() {
            counters.increment(counter);
        }
        assert_eq!(counters.frames(), 3);
        assert_eq!(counters.malformed(), 5);
        assert_eq!(counters.of_kind(Kind::Bogus), 7);
        assert_eq!(counters.outcomes(Kind::Probe), [1; 5]);
        assert_eq!(counters.emitted(), 3);
        let once = counters;
        counters.add(&once);
        assert_eq!(counters.get(Counter::Claims), 2);
    }
}
