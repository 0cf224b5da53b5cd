//! Which addresses of pools nobody has been given.

use std::iter;

use super::{
    Inventory, Pool,
    interval::{Interval, IntervalSet},
    offer::{self, Stretch},
};

/// What is left of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The number of the pool.
    pub pool: usize,
    /// Its addresses that nobody has been given, in their order.
    pub stretches: Vec<Stretch>,
}

/// What is left of the pools that are wanted, when these addresses are given away. What two pools have is told of the
/// first.
pub fn left(
    inventory: &Inventory,
    assigned: impl IntoIterator<Item = Interval>,
    is_wanted: impl Fn(&Pool) -> bool,
) -> Vec<Left> {
    let mut given = IntervalSet::default();
    for one in assigned {
        given.add(one);
    }
    let mut left = Vec::new();
    for (number, pool) in inventory.pools.iter().enumerate() {
        if !is_wanted(pool) {
            continue;
        }
        let offered = offer::of_pools(iter::once(pool));
        let free = offered.iter().flat_map(|stretch| {
            let parts = given.outside(stretch.interval());
            stretch.parts(parts)
        });
        let free: Vec<_> = free.collect();
        for stretch in offered {
            given.add(stretch.interval());
        }
        left.push(Left {
            pool: number,
            stretches: free,
        });
    }
    left
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
        let texts = |left: &Left| {
            let runs = left.stretches.iter().flat_map(|stretch| stretch.runs());
            runs.map(|run| run.spoken()).collect()
        };
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
        let mut runs = left[0].stretches.iter().flat_map(|stretch| stretch.runs());
        let spoken = |run: Option<Interval>| run.unwrap().spoken();
        assert_eq!(spoken(runs.next()), "10.0.0.1-10.0.0.6");
        assert_eq!(spoken(runs.next()), "10.0.0.8-10.0.0.254");
        assert_eq!(spoken(runs.next()), "10.0.1.1-10.0.1.254");
        assert_eq!(texts(&left[1..]), [["2001:db8::/64"]]);
    }

    #[test]
    fn many_pools_are_no_work_either() {
        let mut inventory = Inventory::default();
        let pools = (0..20_000_u32).map(|number| {
            let first = std::net::Ipv4Addr::from(0x0a00_0000 + 4 * number);
            format!(
                "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
                 metadata: {{name: p{number}}}\nspec: {{addresses: [{first}/31]}}\n"
            )
        });
        let text: String = pools.collect();
        manifest::read(&mut inventory, "east", "pools.yaml", &text);
        let left = left(&inventory, Vec::new(), |_| true);
        assert_eq!(left.len(), 20_000);
        assert!(left.iter().all(|left| left.stretches.len() == 1));
    }
}
