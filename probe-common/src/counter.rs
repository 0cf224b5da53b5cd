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

/// An interface and direction, as the owner of [`Counters`]; never 0.
#[inline(always)]
pub const fn counters_key(ifindex: u32, direction: Direction) -> u32 {
    // Interface indexes are positive `int`s in the kernel, so the top bit is free.
    ifindex << 1 | direction.number() as u32
}

/// Counters in the kernel's array: interfaces and directions that can be counted at once.
pub const COUNTERS_PLACES: u32 = 512;

/// Places in the kernel's array where the counters of a key may be. An array and a place that follows from
/// the key, because a hash table would cost each frame as much as all counting does; interfaces are numbered
/// one after the other, so the first place is nearly always the one.
#[inline(always)]
pub const fn counters_places(key: u32) -> [u32; 4] {
    let mask = COUNTERS_PLACES - 1;
    // Knuth's multiplicative hash, three times other bits of it.
    let scattered = key.wrapping_mul(0x9e37_79b1);
    [
        key & mask,
        scattered >> 23 & mask,
        scattered >> 14 & mask,
        scattered >> 5 & mask,
    ]
}

const _: () = assert!(COUNTERS_PLACES.is_power_of_two());

/// Numbers in [`Counters`]: a power of two, so that the kernel side bounds an index with a mask.
const SLOTS: usize = 64;
const _: () = assert!(SLOTS.is_power_of_two() && Counter::COUNT <= Counters::OWNER);

/// The counters of one interface and direction, on one CPU or summed over all; in the kernel with their
/// owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Counters([u64; SLOTS]);

impl Default for Counters {
    fn default() -> Self {
        Self::zeroed()
    }
}

impl Counters {
    /// The index of the number that says whose counters they are.
    pub const OWNER: usize = SLOTS - 1;

    /// The index of a counter among the numbers that counters consist of, as the verifier of the kernel can bound it.
    #[inline(always)]
    pub const fn slot(counter: Counter) -> usize {
        counter.index() & (SLOTS - 1)
    }

    /// Zeros, owned by the interface and direction of this key.
    pub fn of(key: u32) -> Self {
        let mut counters = Self::default();
        counters.0[Self::OWNER] = u64::from(key);
        counters
    }

    /// Whether the interface and direction of this key own them.
    #[inline(always)]
    pub const fn belong_to(&self, key: u32) -> bool {
        self.0[Self::OWNER] == key as u64
    }

    /// Whether nobody owns them.
    pub const fn are_free(&self) -> bool {
        self.0[Self::OWNER] == 0
    }

    /// Adds one.
    #[inline(always)]
    pub const fn increment(&mut self, counter: Counter) {
        let slot = &mut self.0[Self::slot(counter)];
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
        for (slot, value) in self.0[..Counter::COUNT].iter_mut().zip(other.0) {
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
    fn a_key_has_places_of_its_own_and_few_share_one() {
        let keys = (1..=200).flat_map(|ifindex| {
            Direction::ALL
                .iter()
                .map(move |&way| counters_key(ifindex, way))
        });
        let first: Vec<_> = keys.map(|key| counters_places(key)[0]).collect();
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), first.len(), "neighbours never collide");
        // Interfaces a multiple of the array's size apart share their first place, not all of them.
        for apart in [256, 512, 4096, 1 << 20] {
            let [one, other] = [7, 7 + apart]
                .map(|ifindex| counters_places(counters_key(ifindex, Direction::Ingress)));
            assert_eq!(one[0], other[0]);
            assert_ne!(one, other);
        }
    }

    #[test]
    fn counters_know_their_owner_and_sums_do_not_add_it() {
        let key = counters_key(3, Direction::Egress);
        let mut counters = Counters::of(key);
        assert!(counters.belong_to(key) && !counters.are_free());
        assert!(Counters::default().are_free());
        counters.add(&Counters::of(key));
        assert!(counters.belong_to(key));
    }

    #[test]
    fn sums_cover_each_counter_once() {
        let mut counters = Counters::default();
        for counter in all() {
            counters.increment(counter);
        }
        assert_eq!(counters.frames(), 3);
        assert_eq!(counters.malformed(), 6);
        assert_eq!(counters.of_kind(Kind::Bogus), 7);
        assert_eq!(counters.outcomes(Kind::Probe), [1; 5]);
        assert_eq!(counters.emitted(), 3);
        let once = counters;
        counters.add(&once);
        assert_eq!(counters.get(Counter::Claims), 2);
    }
}
