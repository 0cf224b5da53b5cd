//! Events received, by interface and direction. An interface that is gone and made anew goes on where it left off:
//! no counter falls.

use std::{collections::HashMap, num::NonZeroUsize};

use lru::LruCache;
use probe_common::counter::Direction;
use probe_model::watched::WatchedInterfaces;

/// Interfaces that are gone and remembered, by name and by index. Cards and bonds are few; who watches what comes
/// and goes under ever new names gets new counters.
pub const MAX_RETIRED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Counts by interface index and direction.
pub type DirectionCounts = HashMap<(u32, Direction), u64>;

/// The counts, with those of interfaces that are gone.
#[derive(Debug)]
pub struct FrameCounters {
    live: HashMap<u32, LiveInterface>,
    /// By name.
    retired: LruCache<String, [u64; Direction::COUNT]>,
    /// Names of indexes that are gone: their last events may still be on their way.
    gone: LruCache<u32, String>,
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
            gone: LruCache::new(MAX_RETIRED),
        }
    }
}

impl FrameCounters {
    /// Counts an event.
    pub fn count(&mut self, ifindex: u32, direction: Direction) {
        let place = usize::from(direction.number());
        let gone = self.gone.get(&ifindex);
        let retired = gone.and_then(|name| self.retired.get_mut(name));
        match retired {
            Some(retired) => retired[place] += 1,
            None => self.live.entry(ifindex).or_default().counts[place] += 1,
        }
    }

    /// Takes note of what is watched now; gives the indexes of what no longer is.
    pub fn learn(&mut self, watched: &WatchedInterfaces) -> Vec<u32> {
        let indexes = self.live.keys().copied();
        let lost: Vec<u32> = indexes.filter(|&index| !watched.contains(index)).collect();
        for &index in &lost {
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
                self.gone.put(index, name);
            }
        }
        for interface in watched.iter() {
            self.gone.pop(&interface.ifindex);
            let live = self.live.entry(interface.ifindex).or_default();
            live.name = Some(interface.name.clone());
        }
        lost
    }

    /// The counts of what is watched.
    pub fn counts(&self) -> DirectionCounts {
        let mut counts = DirectionCounts::new();
        for (&index, live) in &self.live {
            let retired = live.name.as_ref().and_then(|name| self.retired.peek(name));
            for &direction in Direction::ALL {
                let place = usize::from(direction.number());
                let before = retired.map_or(0, |retired| retired[place]);
                counts.insert((index, direction), before + live.counts[place]);
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
    fn an_interface_that_is_made_anew_goes_on_where_it_left_off() {
        let mut received = FrameCounters::default();
        received.learn(&watched(&[(1, "eth0"), (2, "eth1")]));
        received.count(2, Direction::Ingress);
        assert_eq!(received.learn(&watched(&[(1, "eth0")])), [2]);
        assert!(!received.counts().contains_key(&(2, Direction::Ingress)));
        // One that was on its way.
        received.count(2, Direction::Ingress);
        received.learn(&watched(&[(1, "eth0"), (3, "eth1")]));
        received.count(3, Direction::Ingress);
        let counts = received.counts();
        assert_eq!(counts[&(3, Direction::Ingress)], 3);
        assert_eq!(counts[&(3, Direction::Egress)], 0);
        assert_eq!(counts[&(1, Direction::Ingress)], 0);
    }
}
