//! The counters of the BPF programs, per interface, direction and CPU.
//!
//! For each interface and direction:
//!
//! ```text
//! frames = malformed + bogus + claims + probes
//! kind   = emitted + unchanged + rate_limited + filtered + ring_full   (kind: claims, probes, bogus)
//! ```
//!
//! Both sides of each equation are counted independently, so that a test can compare them.

use bytemuck::{Pod, Zeroable};

use crate::{
    label::label_enum,
    parse::MalformedReason,
    wire::{BogusFrameReason, FrameKind, Operation},
};

label_enum! {
    /// The direction of a frame, relative to this host.
    pub enum Direction {
        /// Received.
        Ingress = "ingress",
        /// Sent by this host.
        Egress = "egress",
    }
}

label_enum! {
    /// Whether a claim, an ARP probe or a bogus frame was emitted as an event, or why not.
    pub enum EmitOutcome {
        /// The event was submitted to a ring.
        Emitted = "emitted",
        /// The frame repeats what was emitted before.
        Unchanged = "unchanged",
        /// The token bucket for such frames was empty.
        RateLimited = "rate_limited",
        /// The watch filter does not contain the address.
        Filtered = "filtered",
        /// The event was lost: the ring was full, or the CPU has no ring.
        RingFull = "ring_full",
    }
}

/// A counter of the BPF programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Frames with the ARP ethertype, by operation.
    Frames(Operation),
    /// Malformed frames, by reason.
    Malformed(MalformedReason),
    /// Bogus frames, by reason.
    Bogus(BogusFrameReason),
    /// Claims.
    Claims,
    /// ARP probes.
    Probes,
    /// Frames of one kind, by outcome.
    Outcome(FrameKind, EmitOutcome),
}

const MALFORMED: usize = Operation::COUNT;
const BOGUS: usize = MALFORMED + MalformedReason::COUNT;
const CLAIMS: usize = BOGUS + BogusFrameReason::COUNT;
const PROBES: usize = CLAIMS + 1;
const OUTCOMES: usize = PROBES + 1;

impl Counter {
    /// Number of counters.
    pub const COUNT: usize = OUTCOMES + FrameKind::COUNT * EmitOutcome::COUNT;

    /// The index of the counter in [`Counters`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        match self {
            Self::Frames(operation) => operation.number() as usize,
            Self::Malformed(reason) => MALFORMED + reason.number() as usize,
            Self::Bogus(reason) => BOGUS + reason.number() as usize,
            Self::Claims => CLAIMS,
            Self::Probes => PROBES,
            Self::Outcome(kind, outcome) => {
                OUTCOMES + kind.number() as usize * EmitOutcome::COUNT + outcome.number() as usize
            }
        }
    }
}

/// The key of the [`Counters`] of an interface and direction; never 0.
#[inline(always)]
pub const fn counters_key(ifindex: u32, direction: Direction) -> u32 {
    // Interface indexes are positive `int`s in the kernel, so the top bit is free.
    ifindex << 1 | direction.number() as u32
}

/// The size of the kernel's array of [`Counters`], one entry for each interface and direction.
pub const COUNTERS_CAPACITY: u32 = 512;

/// The indexes in the kernel's array at which the counters of a key may be stored, in the order in which they are tried.
///
/// An array with indexes derived from the key, because a lookup in a hash map would cost each frame as much as all
/// counting does. Interface indexes are consecutive, so the counters are nearly always at the first index.
#[inline(always)]
pub const fn counters_indexes(key: u32) -> [u32; 4] {
    let mask = COUNTERS_CAPACITY - 1;
    // Three ranges of bits of Knuth's multiplicative hash.
    let hash = key.wrapping_mul(0x9e37_79b1);
    [
        key & mask,
        hash >> 23 & mask,
        hash >> 14 & mask,
        hash >> 5 & mask,
    ]
}

const _: () = assert!(COUNTERS_CAPACITY.is_power_of_two());

/// The number of slots in [`Counters`]: a power of two, so that the BPF programs bound an index with a mask.
const SLOTS: usize = 64;
const _: () = assert!(SLOTS.is_power_of_two() && Counter::COUNT <= Counters::KEY_SLOT);

/// The counters of one interface and direction, on one CPU or summed over all CPUs. In the kernel, one slot stores the
/// key of [`counters_key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Counters([u64; SLOTS]);

impl Default for Counters {
    fn default() -> Self {
        Self::zeroed()
    }
}

impl Counters {
    /// The index of the slot that stores the key.
    pub const KEY_SLOT: usize = SLOTS - 1;

    /// The index of the slot of a counter, masked so that the verifier can bound it.
    #[inline(always)]
    pub const fn slot(counter: Counter) -> usize {
        counter.index() & (SLOTS - 1)
    }

    /// Counters of this key, all zero.
    pub fn with_key(key: u32) -> Self {
        let mut counters = Self::default();
        counters.0[Self::KEY_SLOT] = u64::from(key);
        counters
    }

    /// Whether these are the counters of this key.
    #[inline(always)]
    pub const fn has_key(&self, key: u32) -> bool {
        self.0[Self::KEY_SLOT] == key as u64
    }

    /// Whether no interface uses this entry.
    pub const fn is_unused(&self) -> bool {
        self.0[Self::KEY_SLOT] == 0
    }

    /// Increments a counter by one.
    #[inline(always)]
    pub const fn increment(&mut self, counter: Counter) {
        let slot = &mut self.0[Self::slot(counter)];
        *slot = slot.wrapping_add(1);
    }

    /// The value of one counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter.index()]
    }

    /// The number of frames with the ARP ethertype.
    pub fn frames(&self) -> u64 {
        Operation::ALL
            .iter()
            .map(|&operation| self.get(Counter::Frames(operation)))
            .sum()
    }

    /// The number of malformed frames.
    pub fn malformed(&self) -> u64 {
        MalformedReason::ALL
            .iter()
            .map(|&reason| self.get(Counter::Malformed(reason)))
            .sum()
    }

    /// The number of frames of one kind.
    pub fn frames_of_kind(&self, kind: FrameKind) -> u64 {
        match kind {
            FrameKind::Claim => self.get(Counter::Claims),
            FrameKind::Probe => self.get(Counter::Probes),
            FrameKind::Bogus => BogusFrameReason::ALL
                .iter()
                .map(|&reason| self.get(Counter::Bogus(reason)))
                .sum(),
        }
    }

    /// The number of frames of one kind by outcome, in the order of [`EmitOutcome::ALL`].
    pub fn outcomes(&self, kind: FrameKind) -> [u64; EmitOutcome::COUNT] {
        core::array::from_fn(|number| {
            self.0[Counter::Outcome(kind, EmitOutcome::ALL[number]).index()]
        })
    }

    /// The number of frames that were emitted as events.
    pub fn emitted(&self) -> u64 {
        FrameKind::ALL
            .iter()
            .map(|&kind| self.get(Counter::Outcome(kind, EmitOutcome::Emitted)))
            .sum()
    }

    /// Adds the counts of another CPU.
    pub fn add(&mut self, other: &Self) {
        for (slot, value) in self.0[..Counter::COUNT].iter_mut().zip(other.0) {
            *slot = slot.wrapping_add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_counters() -> Vec<Counter> {
        let mut all: Vec<_> = Operation::ALL
            .iter()
            .map(|&op| Counter::Frames(op))
            .collect();
        all.extend(
            MalformedReason::ALL
                .iter()
                .map(|&reason| Counter::Malformed(reason)),
        );
        all.extend(
            BogusFrameReason::ALL
                .iter()
                .map(|&reason| Counter::Bogus(reason)),
        );
        all.extend([Counter::Claims, Counter::Probes]);
        for &kind in FrameKind::ALL {
            all.extend(
                EmitOutcome::ALL
                    .iter()
                    .map(|&outcome| Counter::Outcome(kind, outcome)),
            );
        }
        all
    }

    #[test]
    fn every_counter_has_its_own_index() {
        let indexes: Vec<_> = all_counters().into_iter().map(Counter::index).collect();
        assert_eq!(indexes, (0..Counter::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn consecutive_keys_have_different_first_indexes() {
        let keys = (1..=200).flat_map(|ifindex| {
            Direction::ALL
                .iter()
                .map(move |&direction| counters_key(ifindex, direction))
        });
        let first: Vec<_> = keys.map(|key| counters_indexes(key)[0]).collect();
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(
            distinct.len(),
            first.len(),
            "consecutive keys never collide"
        );
        // Interface indexes that differ by a multiple of the array size share the first index, not all.
        for distance in [256, 512, 4096, 1 << 20] {
            let [one, other] = [7, 7 + distance]
                .map(|ifindex| counters_indexes(counters_key(ifindex, Direction::Ingress)));
            assert_eq!(one[0], other[0]);
            assert_ne!(one, other);
        }
    }

    #[test]
    fn counters_store_their_key_and_sums_do_not_add_it() {
        let key = counters_key(3, Direction::Egress);
        let mut counters = Counters::with_key(key);
        assert!(counters.has_key(key) && !counters.is_unused());
        assert!(Counters::default().is_unused());
        counters.add(&Counters::with_key(key));
        assert!(counters.has_key(key));
    }

    #[test]
    fn sums_cover_each_counter_once() {
        let mut counters = Counters::default();
        for counter in all_counters() {
            counters.increment(counter);
        }
        assert_eq!(counters.frames(), 3);
        assert_eq!(counters.malformed(), 6);
        assert_eq!(counters.frames_of_kind(FrameKind::Bogus), 7);
        assert_eq!(counters.outcomes(FrameKind::Probe), [1; 5]);
        assert_eq!(counters.emitted(), 3);
        let once = counters;
        counters.add(&once);
        assert_eq!(counters.get(Counter::Claims), 2);
    }
}
