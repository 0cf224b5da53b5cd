//! A bounded map with the time of each entry.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use probe_model::Timestamp;

/// Remembers a value and a time for each of at most `CAPACITY` keys; over that, what was put in first is
/// evicted first. Nothing is evicted because of its age: callers compare the time.
#[derive(Debug)]
pub(super) struct RecentMap<K, V, const CAPACITY: usize> {
    entries: HashMap<K, (Timestamp, V)>,
    order: VecDeque<(Timestamp, K)>,
}

impl<K, V, const CAPACITY: usize> Default for RecentMap<K, V, CAPACITY> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, V, const CAPACITY: usize> RecentMap<K, V, CAPACITY> {
    /// Remembers; a key's later value replaces its earlier one.
    pub fn insert(&mut self, key: K, at: Timestamp, value: V) {
        self.entries.insert(key, (at, value));
        self.order.push_back((at, key));
        while self.order.len() > CAPACITY {
            let Some((at, oldest)) = self.order.pop_front() else {
                return;
            };
            // Put in again since then: that is remembered further behind in the order.
            if self.entries.get(&oldest).is_some_and(|entry| entry.0 == at) {
                self.entries.remove(&oldest);
            }
        }
    }

    /// What is remembered of a key.
    pub fn get(&self, key: &K) -> Option<&(Timestamp, V)> {
        self.entries.get(key)
    }

    /// What is remembered of a key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut (Timestamp, V)> {
        self.entries.get_mut(key)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_put_in_is_forgotten_first_and_a_renewed_one_is_not() {
        let mut recent = RecentMap::<u32, &str, 3>::default();
        recent.insert(1, Timestamp(10), "one");
        recent.insert(2, Timestamp(20), "two");
        recent.insert(1, Timestamp(30), "one again");
        recent.insert(3, Timestamp(40), "three");
        recent.insert(4, Timestamp(50), "four");
        assert_eq!(recent.get(&1), Some(&(Timestamp(30), "one again")));
        assert_eq!(recent.get(&2), None);
        assert_eq!(recent.get(&4), Some(&(Timestamp(50), "four")));
        assert!(recent.order.len() <= 3 && recent.entries.len() <= 3);
    }

    #[test]
    fn memory_is_bounded_whatever_is_put_in() {
        let mut recent = RecentMap::<u32, (), 16>::default();
        for number in 0..10_000 {
            recent.insert(number % 40, Timestamp(7), ());
            assert!(recent.entries.len() <= 16 && recent.order.len() <= 16);
        }
    }
}
