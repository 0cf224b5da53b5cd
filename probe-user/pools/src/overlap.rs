//! Which of many intervals overlap: a sweep over their ends, O(n log n + k) for k overlaps, of which not more
//! than wanted are told one by one. How many there are in all is counted without looking at each.

use std::{cmp::Reverse, collections::BTreeSet};

use super::interval::Interval;

/// An interval and whose side it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlapEntry {
    /// The addresses.
    pub interval: Interval,
    /// Whether it may not be overlapped, but does not mind others like it: two kept ranges are no finding.
    pub reserved: bool,
}

/// Overlaps of entries, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlapPairs {
    /// The first of them, in the order of their addresses; the smaller number first.
    pub pairs: Vec<(usize, usize)>,
    /// How many there are.
    pub all: u64,
}

/// Finds all overlaps, and tells `most` of them.
pub fn overlaps(entries: &[OverlapEntry], most: usize) -> OverlapPairs {
    let everything = entries.iter().map(|entry| entry.interval);
    let reserved = entries.iter().filter(|entry| entry.reserved);
    OverlapPairs {
        pairs: pairs(entries, most),
        all: count(everything) - count(reserved.map(|entry| entry.interval)),
    }
}

fn pairs(entries: &[OverlapEntry], most: usize) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_unstable_by_key(|&index| entries[index].interval);
    let mut found = Vec::new();
    // Those that the sweep is inside of, by where they end: of the pools, and of what is kept.
    let mut open = [BTreeSet::new(), BTreeSet::new()];
    for index in order {
        let entry = entries[index];
        let begins = entry.interval.first();
        for side in &mut open {
            while side.first().is_some_and(|&(ends, _)| ends < begins) {
                side.pop_first();
            }
        }
        let [pools, reserved] = &open;
        // Not to be filtered one by one: there may be many.
        let reserved = (!entry.reserved).then_some(reserved).into_iter().flatten();
        for &(_, other) in pools.iter().chain(reserved) {
            if found.len() == most {
                return found;
            }
            found.push((index.min(other), index.max(other)));
        }
        open[usize::from(entry.reserved)].insert((entry.interval.last(), index));
    }
    found
}

/// How many pairs of intervals overlap: for each, those that begin within it after it did.
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
    fn a_hundred_thousand_ranges_that_all_overlap_are_counted_and_few_told() {
        let entries = vec![entry("10.0.0.0/8", false); 100_000];
        let found = overlaps(&entries, 5);
        assert_eq!(found.pairs.len(), 5);
        assert_eq!(found.all, 100_000 * 99_999 / 2);
    }

    #[test]
    fn many_kept_ranges_cost_nothing_among_each_other() {
        let mut entries = vec![entry("10.0.0.0/8", true); 100_000];
        entries.push(entry("10.1.0.0/16", false));
        let found = overlaps(&entries, 3);
        assert_eq!(found.all, 100_000);
        assert_eq!(found.pairs.len(), 3);
    }

    proptest! {
        #[test]
        fn the_sweep_finds_what_comparing_each_with_each_finds(
            raw in prop::collection::vec((0..48_u8, 0..12_u8, any::<bool>(), any::<bool>()), 0..40),
            most in 0..60_usize,
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
            let found = overlaps(&entries, most);
            prop_assert_eq!(found.all, expected.len() as u64);
            prop_assert_eq!(found.pairs.len(), expected.len().min(most));
            prop_assert!(found.pairs.iter().all(|pair| expected.contains(pair)));
            let mut all = overlaps(&entries, usize::MAX).pairs;
            all.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }
}
