//! Counts received events by interface and direction. If an interface is removed and recreated, its counters continue, so
//! that no counter decreases.

use std::{collections::HashMap, num::NonZeroUsize};

use lru::LruCache;
use probe_common::counter::Direction;
use probe_model::watched::WatchedInterfaces;

/// The number of removed interfaces whose counters are kept. Physical interfaces and bonds are few; for virtual interfaces
/// with ever new names, the oldest counters are evicted.
pub const MAX_RETIRED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The number of events by interface index and direction.
pub type DirectionCounts = HashMap<(u32, Direction), u64>;

/// The event counters of live and removed interfaces.
#[derive(Debug)]
pub struct FrameCounters {
    live: HashMap<u32, LiveInterface>,
    /// The counters of removed interfaces, by name.
    retired: LruCache<String, [u64; Direction::COUNT]>,
    /// The names of removed interfaces, by index: their last events may still be in a ring.
    removed: LruCache<u32, String>,
}

#[derive(Debug, Default)]
struct LiveInterface {
    name: Option<String>,
    counts: [u64; Direction::COUNT],
}

impl Default for FrameCounters {
    fn default() -> Self {
        Self {
            live: HashMap::new(),
            retired: LruCache::new(MAX_RETIRED),
            removed: LruCache::new(MAX_RETIRED),
        }
    }
}

impl FrameCounters {
    /// Counts an event.
    pub fn count(&mut self, ifindex: u32, direction: Direction) {
        let index = usize::from(direction.number());
        let removed_name = self.removed.get(&ifindex);
        let retired = removed_name.and_then(|name| self.retired.get_mut(name));
        match retired {
            Some(retired) => retired[index] += 1,
            None => self.live.entry(ifindex).or_default().counts[index] += 1,
        }
    }

    /// Updates the set of watched interfaces. Returns the indexes of those that are no longer watched.
    pub fn update_watched(&mut self, watched: &WatchedInterfaces) -> Vec<u32> {
        let indexes = self.live.keys().copied();
        let removed: Vec<u32> = indexes.filter(|&index| !watched.contains(index)).collect();
        for &index in &removed {
            if let Some(LiveInterface {
                name: Some(name),
                counts,
            }) = self.live.remove(&index)
            {
                let retired = self
                    .retired
                    .get_or_insert_mut(name.clone(), Default::default);
                for (sum, count) in retired.iter_mut().zip(counts) {
                    *sum += count;
                }
                self.removed.put(index, name);
            }
        }
        for interface in watched.iter() {
            self.removed.pop(&interface.ifindex);
            let live = self.live.entry(interface.ifindex).or_default();
            live.name = Some(interface.name.clone());
        }
        removed
    }

    /// The counts of the watched interfaces.
    pub fn counts(&self) -> DirectionCounts {
        let mut counts = DirectionCounts::new();
        for (&index, live) in &self.live {
            let retired = live.name.as_ref().and_then(|name| self.retired.peek(name));
            for &direction in Direction::ALL {
                let number = usize::from(direction.number());
                let retired = retired.map_or(0, |retired| retired[number]);
                counts.insert((index, direction), retired + live.counts[number]);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use probe_model::watched::{WatchState, WatchedInterface};

    use super::*;

    fn watched(interfaces: &[(u32, &str)]) -> WatchedInterfaces {
        let interfaces = interfaces.iter().map(|&(ifindex, name)| WatchedInterface {
            ifindex,
            name: name.to_owned(),
            state: WatchState::Failed {
                reason: String::new(),
            },
        });
        interfaces.collect()
    }

    #[test]
    fn the_counters_of_a_recreated_interface_continue() {
        let mut received = FrameCounters::default();
        received.update_watched(&watched(&[(1, "eth0"), (2, "eth1")]));
        received.count(2, Direction::Ingress);
        assert_eq!(received.update_watched(&watched(&[(1, "eth0")])), [2]);
        assert!(!received.counts().contains_key(&(2, Direction::Ingress)));
        // A late event of the removed interface.
        received.count(2, Direction::Ingress);
        received.update_watched(&watched(&[(1, "eth0"), (3, "eth1")]));
        received.count(3, Direction::Ingress);
        let counts = received.counts();
        assert_eq!(counts[&(3, Direction::Ingress)], 3);
        assert_eq!(counts[&(3, Direction::Egress)], 0);
        assert_eq!(counts[&(1, Direction::Ingress)], 0);
    }
}
