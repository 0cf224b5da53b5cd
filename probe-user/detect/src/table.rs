//! The bounded table of bindings, and when each is due.
//!
//! A hash table of numbers over a slab keeps each key once and gives a binding a number that stays; the
//! order of use and the deadlines are kept by number. The hash is `SipHash` with random keys, because whoever
//! is on the network chooses what is put in.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;
use probe_model::{BindingKey, Timestamp};
use slab::Slab;

use super::{
    binding::Binding,
    page::{Cursor, Group},
    recency::Recency,
};

/// A binding's number while it is in the table.
pub(super) type Slot = u32;

/// As many as there are numbers: the last one is the list's mark for "none".
const MOST: usize = Slot::MAX as usize - 1;

/// A binding in the table.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: BindingKey,
    /// The address matters; such a binding is never evicted.
    pub tracked: bool,
    pub binding: Binding,
    listed: Listed,
    /// When to look at it: at or before the time when something is due, so that putting a deadline off
    /// costs nothing.
    look_at: Option<Timestamp>,
}

/// Among which it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Listed {
    conflicts: bool,
    contested: bool,
    tracked: bool,
}

/// The bindings.
#[derive(Debug)]
pub(super) struct Table {
    max: usize,
    entries: Slab<Entry>,
    index: HashTable<Slot>,
    hasher: RandomState,
    /// What may be evicted, in the order of use.
    recency: Recency,
    deadlines: BTreeSet<(Timestamp, Slot)>,
    conflicts: BTreeSet<Slot>,
    contested: BTreeSet<Slot>,
    tracked: BTreeSet<Slot>,
    /// How often what is tracked has changed.
    tracked_changes: u64,
}

impl Table {
    /// A table of at most `max` bindings.
    pub fn new(max: usize) -> Self {
        Self {
            max: max.min(MOST),
            entries: Slab::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            recency: Recency::default(),
            deadlines: BTreeSet::new(),
            conflicts: BTreeSet::new(),
            contested: BTreeSet::new(),
            tracked: BTreeSet::new(),
            tracked_changes: 0,
        }
    }

    /// Another bound. What is beyond it stays until [`Self::evict_surplus`].
    pub fn set_max(&mut self, max: usize) {
        self.max = max.min(MOST);
    }

    /// Takes out a binding that is beyond the bound and may go: the one not used for the longest time.
    pub fn evict_surplus(&mut self) -> Option<Entry> {
        if self.entries.len() <= self.max {
            return None;
        }
        self.remove(self.recency.oldest()?)
    }

    /// How many bindings there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of a binding.
    pub fn find(&self, key: &BindingKey) -> Option<Slot> {
        let hash = self.hasher.hash_one(key);
        let entries = &self.entries;
        let same = |&slot: &Slot| {
            entries
                .get(slot as usize)
                .is_some_and(|entry| entry.key == *key)
        };
        self.index.find(hash, same).copied()
    }

    /// Puts in a binding that is not there. If the table is full, the one not used for the longest time
    /// makes room for it, and is returned; if there is none that may, the new one stays out.
    pub fn insert(
        &mut self,
        key: BindingKey,
        tracked: bool,
        binding: Binding,
    ) -> Option<(Slot, Option<Entry>)> {
        let evicted = if self.entries.len() < self.max {
            None
        } else {
            Some(self.remove(self.recency.oldest()?)?)
        };
        let place = self.entries.insert(Entry {
            key,
            tracked,
            binding,
            listed: Listed::default(),
            look_at: None,
        });
        let slot = Slot::try_from(place).ok()?;
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index
            .insert_unique(hasher.hash_one(key), slot, |&slot| {
                entries
                    .get(slot as usize)
                    .map_or(0, |entry| hasher.hash_one(entry.key))
            });
        Some((slot, evicted))
    }

    /// Takes a binding out.
    pub fn remove(&mut self, slot: Slot) -> Option<Entry> {
        let entry = self.entries.try_remove(slot as usize)?;
        let hash = self.hasher.hash_one(entry.key);
        if let Ok(found) = self.index.find_entry(hash, |&other| other == slot) {
            found.remove();
        }
        self.recency.remove(slot);
        self.conflicts.remove(&slot);
        self.contested.remove(&slot);
        self.tracked_changes += u64::from(self.tracked.remove(&slot));
        if let Some(at) = entry.look_at {
            self.deadlines.remove(&(at, slot));
        }
        Some(entry)
    }

    /// A binding.
    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot as usize)
    }

    /// A binding; [`Self::update`] is to be called after a change.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)
    }

    /// Takes note of what has become of a binding, and when something will be due.
    pub fn update(&mut self, slot: Slot, due: Option<Timestamp>) {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        let listed = Listed {
            conflicts: entry.binding.conflict().is_some(),
            contested: entry.binding.has_contested_episode(),
            tracked: entry.tracked,
        };
        let soon_enough = entry
            .look_at
            .is_some_and(|at| due.is_some_and(|due| at <= due));
        if !soon_enough {
            if let Some(at) = entry.look_at {
                self.deadlines.remove(&(at, slot));
            }
            if let Some(due) = due {
                self.deadlines.insert((due, slot));
            }
            entry.look_at = due;
        }
        if listed != entry.listed {
            self.tracked_changes += u64::from(listed.tracked != entry.listed.tracked);
            entry.listed = listed;
            set(&mut self.conflicts, slot, listed.conflicts);
            set(&mut self.contested, slot, listed.contested);
            set(&mut self.tracked, slot, listed.tracked);
        }
        if listed.conflicts || listed.tracked {
            self.recency.remove(slot);
        } else {
            self.recency.touch(slot);
        }
    }

    /// The next binding to look at, if its time has come.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, Slot)> {
        let &(at, slot) = self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.deadlines.pop_first();
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.look_at = None;
        }
        Some((at, slot))
    }

    /// When to look next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// The numbers of all bindings, in their order.
    pub fn slots(&self) -> Vec<Slot> {
        let places = self.entries.iter().map(|(place, _)| place);
        places
            .filter_map(|place| Slot::try_from(place).ok())
            .collect()
    }

    /// All bindings, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// All bindings from a cursor on, in the order of their numbers.
    pub fn rest(&self, cursor: Cursor) -> impl Iterator<Item = (Slot, &Entry)> {
        // No entry has a number beyond the capacity.
        (cursor.first()..self.entries.capacity())
            .filter_map(|number| Some((Slot::try_from(number).ok()?, self.entries.get(number)?)))
    }

    /// The bindings with an open conflict, in the order of their numbers.
    pub fn conflicts(&self) -> impl Iterator<Item = &Entry> {
        self.conflicts.iter().filter_map(|&slot| self.get(slot))
    }

    /// How many conflicts are open.
    pub fn open_conflicts(&self) -> usize {
        self.conflicts.len()
    }

    /// How often what is tracked has changed: while it has not, those who look need not look again.
    pub const fn tracked_changes(&self) -> u64 {
        self.tracked_changes
    }

    /// How many bindings are in a group.
    pub fn count(&self, group: Group) -> usize {
        self.members(group).len()
    }

    /// The bindings of a group after a place, in the order of their numbers.
    pub fn group(&self, group: Group, cursor: Cursor) -> impl Iterator<Item = (Slot, &Entry)> {
        let rest = self.members(group).range(cursor.rest());
        rest.filter_map(|&slot| Some((slot, self.get(slot)?)))
    }
}

impl Table {
    fn members(&self, group: Group) -> &BTreeSet<Slot> {
        match group {
            Group::Conflicts => &self.conflicts,
            Group::Contested => &self.contested,
            Group::Tracked => &self.tracked,
        }
    }
}

/// Puts a number in or out.
fn set(slots: &mut BTreeSet<Slot>, slot: Slot, is_in: bool) {
    if is_in {
        slots.insert(slot);
    } else {
        slots.remove(&slot);
    }
}
