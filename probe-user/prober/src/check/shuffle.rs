//! A pseudorandom permutation without a list of its elements.

use std::hash::{BuildHasher as _, RandomState};

/// A pseudorandom permutation of the numbers below a total, so that a sweep does not probe adjacent hosts or the ports of one
/// switch one after the other.
///
/// A Feistel network permutes the numbers below the next power of four; results outside the range are permuted again
/// ("cycle walking"), less than four times on average.
#[derive(Clone, Copy, Debug)]
pub struct AddressPermutation {
    total: u32,
    half_bits: u32,
    keys: [u32; 4],
}

impl AddressPermutation {
    /// The permutation of the numbers below `total` for this seed.
    pub fn new(total: u32, seed: u64) -> Self {
        let bits = u32::BITS - total.saturating_sub(1).leading_zeros();
        let mut state = seed;
        Self {
            total,
            half_bits: bits.div_ceil(2).max(1),
            keys: [(); 4].map(|()| {
                // The upper half of SplitMix64.
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut key = state;
                key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                u32::try_from((key ^ key >> 31) >> 32).unwrap_or(0)
            }),
        }
    }

    /// The number at this position, which must be below the total.
    pub fn at(&self, position: u32) -> u32 {
        let mut number = position;
        loop {
            number = self.permute_once(number);
            if number < self.total || self.total == 0 {
                return number;
            }
        }
    }

    fn permute_once(&self, number: u32) -> u32 {
        let mask = (1u32 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits & mask, number & mask);
        for key in self.keys {
            (left, right) = (right, left ^ mix(right ^ key) & mask);
        }
        left << self.half_bits | right
    }
}

/// A random seed.
pub fn seed() -> u64 {
    RandomState::new().hash_one("probe check")
}

/// The finaliser of `MurmurHash3`: every bit of the result depends on every bit.
const fn mix(value: u32) -> u32 {
    let value = (value ^ value >> 16).wrapping_mul(0x85eb_ca6b);
    let value = (value ^ value >> 13).wrapping_mul(0xc2b2_ae35);
    value ^ value >> 16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_occurs_exactly_once() {
        for total in [1, 2, 3, 4, 5, 7, 16, 17, 254, 256, 1000, 65_534, 65_536] {
            for seed in [0, 1, seed()] {
                let shuffle = AddressPermutation::new(total, seed);
                let all: HashSet<_> = (0..total).map(|position| shuffle.at(position)).collect();
                assert_eq!(all.len(), total as usize, "{total} {seed}");
                assert!(all.iter().all(|number| *number < total));
            }
        }
    }

    #[test]
    fn the_order_is_not_sequential_and_depends_on_the_seed() {
        let order = |seed| -> Vec<u32> {
            let shuffle = AddressPermutation::new(254, seed);
            (0..254).map(|position| shuffle.at(position)).collect()
        };
        assert_ne!(order(1), order(2));
        assert_eq!(order(1), order(1));
        let close = order(7)
            .windows(2)
            .filter(|pair| pair[0].abs_diff(pair[1]) <= 2)
            .count();
        assert!(close < 25, "{close} of 253 steps go to an adjacent number");
    }
}
