//! Which addresses of pools nobody has been given.

use super::{
    Inventory, Pool,
    interval::{Interval, merged, outside},
};

/// Of a larger range, single addresses that are left out anyway are not worked out.
const LARGEST_SPLIT: u128 = 1 << 20;

/// What is left of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The number of the pool.
    pub pool: usize,
    /// Its addresses that nobody has been given, in their order.
    pub ranges: Vec<Interval>,
}

/// What is left of the pools that are wanted, when these addresses are given away. What two pools have is told of the
/// first.
pub fn left(
    inventory: &Inventory,
    assigned: Vec<Interval>,
    is_wanted: impl Fn(&Pool) -> bool,
) -> Vec<Left> {
    let mut given = merged(assigned);
    let mut left = Vec::new();
    for (number, pool) in inventory.pools.iter().enumerate() {
        if !is_wanted(pool) {
            continue;
        }
        let ranges = merged(pool.ranges.iter().map(|range| range.interval).collect());
        let free = ranges
            .iter()
            .flat_map(|&range| outside(range, &given))
            .flat_map(|range| {
                if pool.avoid_buggy_ips {
                    without_buggy(range)
                } else {
                    vec![range]
                }
            });
        let free: Vec<_> = free.collect();
        given = merged([given, ranges].concat());
        left.push(Left {
            pool: number,
            ranges: free,
        });
    }
    left
}

/// Without the addresses that end in .0 and .255, which `avoidBuggyIPs` never gives away.
fn without_buggy(range: Interval) -> Vec<Interval> {
    let mut pieces = Vec::new();
    let mut rest = Some(range);
    while let Some(piece) = rest.take() {
        let buggy = piece.buggy().filter(|_| piece.count() <= LARGEST_SPLIT);
        let one = buggy.and_then(|(_, first)| Interval::new(first, first).ok());
        let Some(one) = one else {
            pieces.push(piece);
            break;
        };
        for part in piece.without(&one) {
            if part < one {
                pieces.push(part);
            } else {
                rest = Some(part);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::manifest;

    fn inventory(pools: &[(&str, &str, bool)]) -> Inventory {
        let mut inventory = Inventory::default();
        for (name, range, avoid) in pools {
            let text = format!(
                "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\n\
                 spec: {{addresses: ['{range}'], avoidBuggyIPs: {avoid}}}\n"
            );
            manifest::read(&mut inventory, "east", "pools.yaml", &text);
        }
        inventory
    }

    fn interval(text: &str) -> Interval {
        Interval::parse(text).unwrap().0
    }

    fn texts(left: &[Left]) -> Vec<Vec<String>> {
        let texts = |left: &Left| left.ranges.iter().map(Interval::spoken).collect();
        left.iter().map(texts).collect()
    }

    #[test]
    fn what_is_given_away_and_what_two_pools_have_is_not_free_twice() {
        let inventory = inventory(&[
            ("a", "192.0.2.0-192.0.2.9", false),
            ("b", "192.0.2.8-192.0.2.12", false),
        ]);
        let assigned = || vec![interval("192.0.2.3"), interval("192.0.2.12")];
        let left = left(&inventory, assigned(), |_| true);
        assert_eq!(
            texts(&left),
            [
                vec!["192.0.2.0-192.0.2.2", "192.0.2.4-192.0.2.9"],
                vec!["192.0.2.10/31"]
            ]
        );
        let only_b = super::left(&inventory, assigned(), |pool| pool.name == "b");
        assert_eq!(texts(&only_b), [vec!["192.0.2.8/30"]]);
    }

    #[test]
    fn addresses_that_are_never_given_away_are_not_free() {
        let inventory = inventory(&[("a", "192.0.2.254-192.0.3.1", true)]);
        let left = left(&inventory, Vec::new(), |_| true);
        assert_eq!(texts(&left), [vec!["192.0.2.254", "192.0.3.1"]]);
    }

    #[test]
    fn a_large_pool_is_no_work() {
        let inventory = inventory(&[("a", "10.0.0.0/8", true), ("b", "2001:db8::/64", false)]);
        let left = left(&inventory, vec![interval("10.0.0.7")], |_| true);
        assert_eq!(
            texts(&left)[0],
            ["10.0.0.1-10.0.0.6", "10.0.0.8-10.255.255.255"]
        );
        assert_eq!(texts(&left)[1], ["2001:db8::/64"]);
    }
}
