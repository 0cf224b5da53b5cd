//! The assignable addresses of pools: their ranges without the addresses that `avoidBuggyIPs` reserves. All commands
//! and metrics count these addresses, so that their numbers agree.

use std::iter;

use super::{
    interval::{Interval, intersections, merged, subtract},
    model::Pool,
};

/// A span of assignable addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpan {
    interval: Interval,
    use_kind: SpanUse,
}

/// The addresses of an interval that belong to a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanUse {
    /// All addresses.
    All,
    /// The addresses that do not end in .0 or .255.
    Thinned,
    /// The addresses that end in .0 or .255, which another pool reserves.
    Excluded,
}

impl AddressSpan {
    /// A span of all addresses of an interval.
    pub const fn all_of(interval: Interval) -> Self {
        Self {
            interval,
            use_kind: SpanUse::All,
        }
    }

    /// Whether addresses that end in .0 and .255 are reserved.
    pub fn is_thinned(self) -> bool {
        self.use_kind == SpanUse::Thinned
    }

    /// The addresses that end in .0 and .255 of these parts, whose other addresses belong to another pool. Empty if the
    /// span does not contain such addresses.
    pub fn excluded(self, parts: impl IntoIterator<Item = Interval>) -> impl Iterator<Item = Self> {
        let parts = parts.into_iter();
        let parts =
            parts.filter(move |part| !self.is_thinned() && part.buggy_addresses().is_some());
        parts.map(|interval| Self {
            interval,
            use_kind: SpanUse::Excluded,
        })
    }

    /// The interval from its first to its last address.
    pub const fn interval(self) -> Interval {
        self.interval
    }

    /// The number of addresses.
    pub fn count(self) -> u128 {
        match self.use_kind {
            SpanUse::All => self.interval.count(),
            SpanUse::Thinned => self.interval.count() - self.buggy_addresses(),
            SpanUse::Excluded => self.buggy_addresses(),
        }
    }

    /// An upper bound for the number of runs.
    pub fn max_runs(self) -> u128 {
        match self.use_kind {
            SpanUse::All => 1,
            // There is one run more than reserved addresses.
            SpanUse::Thinned => self.buggy_addresses() + 1,
            SpanUse::Excluded => self.buggy_addresses(),
        }
    }

    /// Restricts the span to these parts.
    pub fn parts(self, parts: impl IntoIterator<Item = Interval>) -> impl Iterator<Item = Self> {
        let parts = parts.into_iter();
        parts.map(move |interval| Self { interval, ..self })
    }

    /// The parts of the span that are in any of these intervals, which must be merged.
    pub fn intersections(self, others: &[Interval]) -> impl Iterator<Item = Self> {
        self.parts(intersections(self.interval, others))
    }

    /// The addresses as intervals without the reserved ones, computed lazily.
    pub fn runs(self) -> impl Iterator<Item = Interval> {
        let mut rest = Some(self.interval);
        iter::from_fn(move || {
            loop {
                let piece = rest.take()?;
                let buggy = piece
                    .buggy_addresses()
                    .filter(|_| self.use_kind != SpanUse::All);
                let one = buggy.and_then(|(_, first)| Interval::new(first, first).ok());
                let Some(one) = one else {
                    return (self.use_kind != SpanUse::Excluded).then_some(piece);
                };
                let mut before = None;
                for part in piece.without(&one) {
                    if part < one {
                        before = Some(part);
                    } else {
                        rest = Some(part);
                    }
                }
                if self.use_kind == SpanUse::Excluded {
                    return Some(one);
                }
                if before.is_some() {
                    return before;
                }
            }
        })
    }

    fn buggy_addresses(self) -> u128 {
        self.interval
            .buggy_addresses()
            .map_or(0, |(number, _)| number)
    }
}

/// The assignable addresses of pools, each once: an address that one pool reserves may be assignable in another.
pub fn of_pools<'a>(pools: impl IntoIterator<Item = &'a Pool>) -> Vec<AddressSpan> {
    let (mut whole, mut thinned) = (Vec::new(), Vec::new());
    for pool in pools {
        let ranges = pool.ranges.iter().map(|range| range.interval);
        if pool.avoid_buggy_ips {
            thinned.extend(ranges);
        } else {
            whole.extend(ranges);
        }
    }
    let whole = merged(whole);
    let mut spans: Vec<_> = whole.iter().copied().map(AddressSpan::all_of).collect();
    for range in merged(thinned) {
        let all = AddressSpan {
            interval: range,
            use_kind: SpanUse::Thinned,
        };
        spans.extend(all.parts(subtract(range, &whole)));
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{PoolInventory, manifest};

    fn pools(pools: &[(&[String], bool)]) -> Vec<Pool> {
        let mut inventory = PoolInventory::default();
        for (ranges, avoids) in pools {
            let text = format!(
                "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: a}}\n\
                 spec: {{addresses: [{}], avoidBuggyIPs: {avoids}}}\n",
                ranges.join(", ")
            );
            manifest::read(&mut inventory, "east", "pools.yaml", &text);
        }
        inventory.pools
    }

    #[test]
    fn free_run_ends_before_an_excluded_address() {
        let runs = |range: &str, use_kind| {
            let (interval, _) = Interval::parse(range).unwrap();
            let span = AddressSpan { interval, use_kind };
            let runs: Vec<_> = span.runs().collect();
            assert!(runs.len() as u128 <= span.max_runs());
            let count: u128 = runs.iter().map(Interval::count).sum();
            assert_eq!(count, span.count());
            runs.iter().map(Interval::describe).collect::<Vec<_>>()
        };
        assert_eq!(
            runs("192.0.2.254-192.0.3.1", SpanUse::Thinned),
            ["192.0.2.254", "192.0.3.1"]
        );
        assert_eq!(
            runs("192.0.2.254-192.0.3.1", SpanUse::All),
            ["192.0.2.254-192.0.3.1"]
        );
        assert_eq!(runs("192.0.2.255-192.0.3.0", SpanUse::Thinned), [""; 0]);
        assert_eq!(
            runs("192.0.2.0/24", SpanUse::Thinned),
            ["192.0.2.1-192.0.2.254"]
        );
        assert_eq!(runs("2001:db8::/64", SpanUse::Thinned), ["2001:db8::/64"]);
        assert_eq!(runs("255.255.255.255", SpanUse::Thinned), [""; 0]);
        assert_eq!(
            runs("192.0.2.254-192.0.3.1", SpanUse::Excluded),
            ["192.0.2.255", "192.0.3.0"]
        );
        assert_eq!(
            runs("192.0.2.0/24", SpanUse::Excluded),
            ["192.0.2.0", "192.0.2.255"]
        );
    }

    #[test]
    fn the_first_of_everything_is_no_work() {
        let (interval, _) = Interval::parse("0.0.0.0/0").unwrap();
        let span = AddressSpan {
            interval,
            use_kind: SpanUse::Thinned,
        };
        assert_eq!(span.count(), (1 << 32) - (1 << 25));
        assert_eq!(span.runs().next().unwrap().describe(), "0.0.0.1-0.0.0.254");
    }

    proptest! {
        /// Compares with a set of single addresses.
        #[test]
        fn each_address_counts_once_and_reserved_addresses_do_not_count(
            raw in prop::collection::vec(
                (prop::collection::vec((0..1000_u32, 0..300_u32), 1..4), any::<bool>()), 1..5),
        ) {
            let text = |number: u32| std::net::Ipv4Addr::from(0xc633_0000 + number).to_string();
            let written: Vec<_> = raw.iter().map(|(ranges, avoids)| {
                let ranges = ranges.iter();
                let ranges: Vec<_> = ranges
                    .map(|&(first, more)| format!("{}-{}", text(first), text(first + more)))
                    .collect();
                (ranges, *avoids)
            }).collect();
            let given: Vec<_> = written.iter().map(|(ranges, avoids)| (&**ranges, *avoids)).collect();
            let mut expected = std::collections::BTreeSet::new();
            for (ranges, avoids) in &raw {
                for &(first, more) in ranges {
                    let all = first..=first + more;
                    expected.extend(all.filter(|number| !avoids || !matches!(number % 256, 0 | 255)));
                }
            }
            let spans = of_pools(&pools(&given));
            let count: u128 = spans.iter().map(|one| one.count()).sum();
            prop_assert_eq!(count, expected.len() as u128);
            let runs = merged(spans.iter().flat_map(|one| one.runs()).collect());
            let count: u128 = runs.iter().map(Interval::count).sum();
            prop_assert_eq!(count, expected.len() as u128);
        }
    }
}
