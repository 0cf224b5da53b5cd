//! What pools hand out: their ranges, less the addresses that `avoidBuggyIPs` keeps back. Everything that counts
//! addresses of pools counts these, so that no two verbs or metrics differ by them.

use std::iter;

use super::{
    interval::{Interval, intersections, merged, subtract},
    model::Pool,
};

/// Addresses that are handed out, from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpan {
    interval: Interval,
    use_kind: SpanUse,
}

/// Which of the addresses from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanUse {
    /// All of them.
    All,
    /// Those that do not end in .0 or .255.
    Thinned,
    /// Those that do: what another pool keeps back.
    Excluded,
}

impl AddressSpan {
    /// All from one to another.
    pub const fn all_of(interval: Interval) -> Self {
        Self {
            interval,
            use_kind: SpanUse::All,
        }
    }

    /// Whether addresses that end in .0 and .255 are left out.
    pub fn is_thinned(self) -> bool {
        self.use_kind == SpanUse::Thinned
    }

    /// Of parts of it in which the others are somebody else's, those addresses that end in .0 and .255, if it
    /// has them.
    pub fn excluded(self, parts: impl IntoIterator<Item = Interval>) -> impl Iterator<Item = Self> {
        let parts = parts.into_iter();
        let parts =
            parts.filter(move |part| !self.is_thinned() && part.buggy_addresses().is_some());
        parts.map(|interval| Self {
            interval,
            use_kind: SpanUse::Excluded,
        })
    }

    /// From where to where.
    pub const fn interval(self) -> Interval {
        self.interval
    }

    /// How many addresses.
    pub fn count(self) -> u128 {
        match self.use_kind {
            SpanUse::All => self.interval.count(),
            SpanUse::Thinned => self.interval.count() - self.buggy_addresses(),
            SpanUse::Excluded => self.buggy_addresses(),
        }
    }

    /// How many runs there are at most.
    pub fn max_runs(self) -> u128 {
        match self.use_kind {
            SpanUse::All => 1,
            // One more than addresses that are left out.
            SpanUse::Thinned => self.buggy_addresses() + 1,
            SpanUse::Excluded => self.buggy_addresses(),
        }
    }

    /// Parts of it, each as it is.
    pub fn parts(self, parts: impl IntoIterator<Item = Interval>) -> impl Iterator<Item = Self> {
        let parts = parts.into_iter();
        parts.map(move |interval| Self { interval, ..self })
    }

    /// What is in one of these, which are merged.
    pub fn intersections(self, others: &[Interval]) -> impl Iterator<Item = Self> {
        self.parts(intersections(self.interval, others))
    }

    /// The addresses, as intervals without those that are left out: worked out one by one, as they are wanted.
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

/// What pools hand out, each address once: what one keeps back another may still have.
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
    fn a_run_ends_before_what_is_left_out() {
        let runs = |range: &str, use_kind| {
            let (interval, _) = Interval::parse(range).unwrap();
            let stretch = AddressSpan { interval, use_kind };
            let runs: Vec<_> = stretch.runs().collect();
            assert!(runs.len() as u128 <= stretch.max_runs());
            let count: u128 = runs.iter().map(Interval::count).sum();
            assert_eq!(count, stretch.count());
            runs.iter().map(Interval::spoken).collect::<Vec<_>>()
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
        let stretch = AddressSpan {
            interval,
            use_kind: SpanUse::Thinned,
        };
        assert_eq!(stretch.count(), (1 << 32) - (1 << 25));
        assert_eq!(stretch.runs().next().unwrap().spoken(), "0.0.0.1-0.0.0.254");
    }

    proptest! {
        /// Against a set of addresses.
        #[test]
        fn each_address_counts_once_and_what_every_pool_keeps_back_not_at_all(
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
