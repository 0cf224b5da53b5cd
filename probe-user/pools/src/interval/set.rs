//! A set of addresses that grows by intervals.

use std::collections::BTreeMap;

use super::{Interval, IpFamily, subtract};

/// A set of addresses, stored as intervals.
#[derive(Clone, Debug, Default)]
pub struct IntervalSet {
    /// The intervals by their last addresses. They neither overlap nor touch.
    by_end: BTreeMap<(IpFamily, u128), Interval>,
}

impl IntervalSet {
    /// Adds all addresses of an interval.
    pub fn add(&mut self, mut interval: Interval) {
        let neighbour = (interval.family, interval.first.saturating_sub(1));
        loop {
            let mut near = self.by_end.range(neighbour..);
            let near = near.next().map(|(_, &near)| near);
            let Some(near) = near.filter(|near| interval.touches_or_overlaps(near)) else {
                break;
            };
            self.by_end.remove(&(near.family, near.last));
            interval.first = interval.first.min(near.first);
            interval.last = interval.last.max(near.last);
        }
        self.by_end
            .insert((interval.family, interval.last), interval);
    }

    /// The parts of an interval that are not in it.
    pub fn subtract(&self, interval: Interval) -> Vec<Interval> {
        let start = (interval.family, interval.first);
        let near = self.by_end.range(start..).map(|(_, &near)| near);
        let near = near.take_while(|near| interval.common(near).is_some());
        subtract(interval, &near.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::interval::merged;

    proptest! {
        #[test]
        fn it_is_the_intervals_that_were_added(
            raw in prop::collection::vec((0..60_u8, 0..9_u8, any::<bool>()), 0..30),
            asked in (0..60_u8, 0..30_u8, any::<bool>()),
        ) {
            let interval = |(first, more, six): (u8, u8, bool)| {
                // The first and last addresses of both families are included.
                let [first, last] = [first, first + more].map(|number| if six {
                    Ipv6Addr::from(u128::from(number).wrapping_sub(30)).into()
                } else {
                    Ipv4Addr::from(u32::from(number).wrapping_sub(30)).into()
                });
                Interval::new(first, last).ok()
            };
            let added: Vec<_> = raw.into_iter().filter_map(interval).collect();
            let mut set = IntervalSet::default();
            for &one in &added {
                set.add(one);
            }
            let expected = merged(added);
            let mut found: Vec<_> = set.by_end.values().copied().collect();
            found.sort_unstable();
            prop_assert_eq!(&found, &expected);
            if let Some(asked) = interval(asked) {
                prop_assert_eq!(set.subtract(asked), subtract(asked, &expected));
            }
        }
    }
}
