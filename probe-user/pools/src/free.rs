//! Free addresses of pools: those that no service has.

use std::iter;

use super::{
    Pool, PoolInventory,
    interval::{Interval, IntervalSet, subtract},
    offer::{self, AddressSpan},
};

/// The free addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeSpans {
    /// The index of the pool.
    pub pool: usize,
    /// Its free addresses, in order.
    pub spans: Vec<AddressSpan>,
}

/// The free addresses of the selected pools, given the assigned addresses. An address of two pools is listed with the
/// first; an address that the first reserves, with the second.
pub fn free_spans(
    inventory: &PoolInventory,
    assigned: impl IntoIterator<Item = Interval>,
    is_wanted: impl Fn(&Pool) -> bool,
) -> Vec<FreeSpans> {
    let mut given = AllocatedSpace::default();
    for one in assigned {
        given.whole.add(one);
    }
    let mut left = Vec::new();
    for (number, pool) in inventory.pools.iter().enumerate() {
        if !is_wanted(pool) {
            continue;
        }
        let offered = offer::of_pools(iter::once(pool));
        let mut free = Vec::new();
        for &span in &offered {
            given.remaining(span, &mut free);
        }
        free.sort_unstable_by_key(|span| span.interval());
        for span in offered {
            given.add(span);
        }
        left.push(FreeSpans {
            pool: number,
            spans: free,
        });
    }
    left
}

/// Addresses that are assigned, or listed with another pool.
#[derive(Default)]
struct AllocatedSpace {
    /// Intervals that are allocated completely.
    whole: IntervalSet,
    /// Intervals that are allocated except for the addresses that end in .0 and .255.
    partly_available: IntervalSet,
}

impl AllocatedSpace {
    fn add(&mut self, span: AddressSpan) {
        let set = if span.is_thinned() {
            &mut self.partly_available
        } else {
            &mut self.whole
        };
        set.add(span.interval());
    }

    /// Appends the parts of a span that are not allocated.
    fn remaining(&self, span: AddressSpan, rest: &mut Vec<AddressSpan>) {
        for part in self.whole.subtract(span.interval()) {
            let beyond = self.partly_available.subtract(part);
            rest.extend(span.excluded(subtract(part, &beyond)));
            rest.extend(span.parts(beyond));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{interval::merged, manifest};

    fn inventory(pools: &[(&str, &str, bool)]) -> PoolInventory {
        let mut inventory = PoolInventory::default();
        for (name, range, avoid) in pools {
            let text = format!(
                "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\n\
                 spec: {{addresses: ['{range}'], avoidBuggyIPs: {avoid}}}\n"
            );
            manifest::read(&mut inventory, "east", "pools.yaml", &text);
        }
        inventory
    }

    /// Two pools with the same addresses, of which the first reserves some.
    fn inventory_of_two(range: &str) -> PoolInventory {
        inventory(&[("a", range, true), ("b", range, false)])
    }

    fn interval(text: &str) -> Interval {
        Interval::parse(text).unwrap().0
    }

    fn texts(left: &[FreeSpans]) -> Vec<Vec<String>> {
        let texts = |left: &FreeSpans| {
            let runs = left.spans.iter().flat_map(|span| span.runs());
            runs.map(|run| run.describe()).collect()
        };
        left.iter().map(texts).collect()
    }

    #[test]
    fn assigned_addresses_are_not_free_and_shared_addresses_count_once() {
        let inventory = inventory(&[
            ("a", "192.0.2.0-192.0.2.9", false),
            ("b", "192.0.2.8-192.0.2.12", false),
        ]);
        let assigned = || vec![interval("192.0.2.3"), interval("192.0.2.12")];
        let left = free_spans(&inventory, assigned(), |_| true);
        assert_eq!(
            texts(&left),
            [
                vec!["192.0.2.0-192.0.2.2", "192.0.2.4-192.0.2.9"],
                vec!["192.0.2.10/31"]
            ]
        );
        let only_b = super::free_spans(&inventory, assigned(), |pool| pool.name == "b");
        assert_eq!(texts(&only_b), [vec!["192.0.2.8/30"]]);
    }

    #[test]
    fn addresses_that_are_never_assigned_are_not_free() {
        let inventory = inventory(&[("a", "192.0.2.254-192.0.3.1", true)]);
        let left = free_spans(&inventory, Vec::new(), |_| true);
        assert_eq!(texts(&left), [vec!["192.0.2.254", "192.0.3.1"]]);
    }

    #[test]
    fn address_reserved_in_one_pool_is_free_in_another() {
        let small = ("a", "192.0.2.0/30", true);
        let large = ("b", "192.0.2.0/29", false);
        let here = inventory(&[small, large]);
        let nobody = Vec::new;
        assert_eq!(
            texts(&free_spans(&here, nobody(), |_| true)),
            [
                vec!["192.0.2.1-192.0.2.3"],
                vec!["192.0.2.0", "192.0.2.4/30"]
            ]
        );
        let given = vec![interval("192.0.2.0"), interval("192.0.2.5")];
        assert_eq!(
            texts(&free_spans(&here, given, |_| true)),
            [
                vec!["192.0.2.1-192.0.2.3"],
                vec!["192.0.2.4", "192.0.2.6/31"]
            ]
        );
        let turned = inventory(&[large, small]);
        assert_eq!(
            texts(&free_spans(&turned, nobody(), |_| true)),
            [vec!["192.0.2.0/29"], vec![]]
        );
        let both = inventory(&[small, ("b", "192.0.2.0/29", true)]);
        assert_eq!(
            texts(&free_spans(&both, nobody(), |_| true)),
            [vec!["192.0.2.1-192.0.2.3"], vec!["192.0.2.4/30"]]
        );
    }

    proptest! {
        /// Compares with a set of single addresses.
        #[test]
        fn every_address_is_listed_under_the_first_pool_that_assigns_it(
            raw in prop::collection::vec((0..700_u32, 0..400_u32, any::<bool>()), 1..6),
            given in prop::collection::vec(0..1000_u32, 0..9),
        ) {
            let address = |number: u32| std::net::Ipv4Addr::from(0xc633_0000 + number);
            let ranges: Vec<_> = raw.iter().map(|&(first, more, avoids)| {
                (format!("{}-{}", address(first), address(first + more)), avoids)
            }).collect();
            let pools: Vec<_> = ranges.iter().map(|(range, avoids)| ("p", &**range, *avoids)).collect();
            let assigned = given.iter().map(|&number| interval(&address(number).to_string()));
            let found = free_spans(&inventory(&pools), assigned, |_| true);
            let mut known: std::collections::BTreeSet<u32> = given.iter().copied().collect();
            for (&(first, more, avoids), left) in raw.iter().zip(&found) {
                let mine = (first..=first + more).filter(|number| !avoids || !matches!(number % 256, 0 | 255));
                let mine: Vec<_> = mine.filter(|&number| known.insert(number)).collect();
                let singles = mine.iter().map(|&number| interval(&address(number).to_string()));
                let runs: Vec<_> = left.spans.iter().flat_map(|span| span.runs()).collect();
                prop_assert!(runs.is_sorted());
                prop_assert_eq!(merged(runs), merged(singles.collect()));
                let count: u128 = left.spans.iter().map(|span| span.count()).sum();
                prop_assert_eq!(count, mine.len() as u128);
            }
        }
    }

    #[test]
    fn a_large_pool_is_no_work() {
        let inventory = inventory(&[("a", "10.0.0.0/8", true), ("b", "2001:db8::/64", false)]);
        let left = free_spans(&inventory, vec![interval("10.0.0.7")], |_| true);
        let mut runs = left[0].spans.iter().flat_map(|span| span.runs());
        let describe = |run: Option<Interval>| run.unwrap().describe();
        assert_eq!(describe(runs.next()), "10.0.0.1-10.0.0.6");
        assert_eq!(describe(runs.next()), "10.0.0.8-10.0.0.254");
        assert_eq!(describe(runs.next()), "10.0.1.1-10.0.1.254");
        assert_eq!(texts(&left[1..]), [["2001:db8::/64"]]);
        let reserved = super::free_spans(&inventory_of_two("10.0.0.0/8"), Vec::new(), |_| true);
        let mut runs = reserved[1].spans.iter().flat_map(|span| span.runs());
        assert_eq!(describe(runs.next()), "10.0.0.0");
        assert_eq!(describe(runs.next()), "10.0.0.255");
        let count: u128 = reserved[1].spans.iter().map(|span| span.count()).sum();
        assert_eq!(count, 1 << 17);
    }

    #[test]
    fn free_addresses_of_many_pools_are_found_quickly() {
        let mut inventory = PoolInventory::default();
        let pools = (0..20_000_u32).map(|number| {
            let first = std::net::Ipv4Addr::from(0x0a00_0000 + 4 * number);
            format!(
                "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
                 metadata: {{name: p{number}}}\nspec: {{addresses: [{first}/31]}}\n"
            )
        });
        let text: String = pools.collect();
        manifest::read(&mut inventory, "east", "pools.yaml", &text);
        let left = free_spans(&inventory, Vec::new(), |_| true);
        assert_eq!(left.len(), 20_000);
        assert!(left.iter().all(|left| left.spans.len() == 1));
    }
}
