//! Finds overlapping intervals with a sweep, O(n log n + k) for k listed overlaps. The total number is counted without
//! enumerating them.

use std::{cmp::Reverse, collections::BTreeSet};

use super::interval::Interval;

/// An interval of a pool, or a reserved one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlapEntry {
    /// Its addresses.
    pub interval: Interval,
    /// Whether it is reserved. Overlaps between two reserved ranges are no finding.
    pub reserved: bool,
}

/// Overlapping entries, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlapPairs {
    /// The first overlaps, sorted by address; the smaller index first.
    pub pairs: Vec<(usize, usize)>,
    /// The total number of overlaps.
    pub all: u64,
}

/// Counts all overlaps, and lists the first `limit` of them.
pub fn overlaps(entries: &[OverlapEntry], limit: usize) -> OverlapPairs {
    let everything = entries.iter().map(|entry| entry.interval);
    let reserved = entries.iter().filter(|entry| entry.reserved);
    OverlapPairs {
        pairs: pairs(entries, limit),
        all: count(everything) - count(reserved.map(|entry| entry.interval)),
    }
}

fn pairs(entries: &[OverlapEntry], limit: usize) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_unstable_by_key(|&index| entries[index].interval);
    let mut found = Vec::new();
    // The open intervals by their last address: of pools, and reserved.
    let mut open = [BTreeSet::new(), BTreeSet::new()];
    for index in order {
        let entry = entries[index];
        let start = entry.interval.first();
        for side in &mut open {
            while side.first().is_some_and(|&(ends, _)| ends < start) {
                side.pop_first();
            }
        }
        let [pools, reserved] = &open;
        // A filter over all open intervals would be quadratic.
        let reserved = (!entry.reserved).then_some(reserved).into_iter().flatten();
        for &(_, other) in pools.iter().chain(reserved) {
            if found.len() == limit {
                return found;
            }
            found.push((index.min(other), index.max(other)));
        }
        open[usize::from(entry.reserved)].insert((entry.interval.last(), index));
    }
    found
}

/// The number of overlapping pairs: for each interval, those that start within it after its start.
fn count(intervals: impl Iterator<Item = Interval>) -> u64 {
    let mut intervals: Vec<_> = intervals.collect();
    intervals.sort_unstable_by_key(|interval| (interval.first(), Reverse(interval.last())));
    let later = intervals.iter().enumerate().map(|(index, interval)| {
        let end = intervals.partition_point(|other| other.first() <= interval.last());
        (end - index - 1) as u64
    });
    later.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(text: &str, reserved: bool) -> OverlapEntry {
        OverlapEntry {
            interval: Interval::parse(text).unwrap().0,
            reserved,
        }
    }

    fn slowly(entries: &[OverlapEntry]) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for one in 0..entries.len() {
            for other in one + 1..entries.len() {
                let both_kept = entries[one].reserved && entries[other].reserved;
                let common = entries[one].interval.common(&entries[other].interval);
                if !both_kept && common.is_some() {
                    pairs.push((one, other));
                }
            }
        }
        pairs
    }

    #[test]
    fn neighbours_do_not_overlap_and_nested_ones_do() {
        let entries = [
            entry("192.0.2.0/25", false),
            entry("192.0.2.128/25", false),
            entry("192.0.2.64-192.0.2.130", false),
            entry("::/0", false),
        ];
        let found = overlaps(&entries, 10);
        assert_eq!(found.pairs, [(0, 2), (1, 2)]);
        assert_eq!(found.all, 2);
    }

    #[test]
    fn hundred_thousand_overlaps_are_counted_and_few_are_listed() {
        let entries = vec![entry("10.0.0.0/8", false); 100_000];
        let found = overlaps(&entries, 5);
        assert_eq!(found.pairs.len(), 5);
        assert_eq!(found.all, 100_000 * 99_999 / 2);
    }

    #[test]
    fn overlap_search_is_linear_in_non_overlapping_ranges() {
        let mut entries = vec![entry("10.0.0.0/8", true); 100_000];
        entries.push(entry("10.1.0.0/16", false));
        let found = overlaps(&entries, 3);
        assert_eq!(found.all, 100_000);
        assert_eq!(found.pairs.len(), 3);
    }

    proptest! {
        #[test]
        fn sweep_finds_the_same_overlaps_as_pairwise_comparison(
            raw in prop::collection::vec((0..48_u8, 0..12_u8, any::<bool>(), any::<bool>()), 0..40),
            limit in 0..60_usize,
        ) {
            let entries: Vec<_> = raw.iter().map(|&(first, more, reserved, six)| {
                let last = first + more;
                let text = if six {
                    format!("2001:db8::{first:x}-2001:db8::{last:x}")
                } else {
                    format!("192.0.2.{first}-192.0.2.{last}")
                };
                entry(&text, reserved)
            }).collect();
            let expected = slowly(&entries);
            let found = overlaps(&entries, limit);
            prop_assert_eq!(found.all, expected.len() as u64);
            prop_assert_eq!(found.pairs.len(), expected.len().min(limit));
            prop_assert!(found.pairs.iter().all(|pair| expected.contains(pair)));
            let mut all = overlaps(&entries, usize::MAX).pairs;
            all.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }
}
