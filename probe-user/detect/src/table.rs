//! The bounded table of bindings, and when each is due.
//!
//! A hash table of numbers over a slab keeps each key once and gives a binding a number that stays; the
//! order of use and the deadlines are kept by number. The hash is `SipHash` with random keys, because any
//! host on the network can choose the keys.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;
use probe_model::{BindingKey, Timestamp};
use slab::Slab;

use super::{
    binding::Binding,
    page::{AddressGroup, TableCursor},
    recency::LruOrder,
};

/// A binding's number while it is in the table.
pub(super) type BindingSlot = u32;

/// As many as there are numbers: the last one is the list's mark for "none".
const MAX_BINDINGS: usize = BindingSlot::MAX as usize - 1;

/// A binding in the table.
#[derive(Debug)]
pub(super) struct BindingEntry {
    pub key: BindingKey,
    /// The address is tracked; such a binding is never evicted.
    pub tracked: bool,
    pub binding: Binding,
    groups: GroupMembership,
    /// When to process it: at or before its deadline, so that a later deadline costs nothing.
    due_at: Option<Timestamp>,
}

/// The groups of a binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct GroupMembership {
    conflicts: bool,
    contested: bool,
    tracked: bool,
}

/// The bindings.
#[derive(Debug)]
pub(super) struct BindingTable {
    max: usize,
    entries: Slab<BindingEntry>,
    index: HashTable<BindingSlot>,
    hasher: RandomState,
    /// What may be evicted, in the order of use.
    recency: LruOrder,
    deadlines: BTreeSet<(Timestamp, BindingSlot)>,
    conflicts: BTreeSet<BindingSlot>,
    contested: BTreeSet<BindingSlot>,
    tracked: BTreeSet<BindingSlot>,
    /// How often what is tracked has changed.
    tracked_changes: u64,
}

impl BindingTable {
    /// A table of at most `max` bindings.
    pub fn new(max: usize) -> Self {
        Self {
            max: max.min(MAX_BINDINGS),
            entries: Slab::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            recency: LruOrder::default(),
            deadlines: BTreeSet::new(),
            conflicts: BTreeSet::new(),
            contested: BTreeSet::new(),
            tracked: BTreeSet::new(),
            tracked_changes: 0,
        }
    }

    /// Sets the bound. What is beyond it stays until [`Self::evict_surplus`].
    pub fn set_max(&mut self, max: usize) {
        self.max = max.min(MAX_BINDINGS);
    }

    /// Evicts a binding if there are more than the bound: the one not used for the longest time.
    pub fn evict_surplus(&mut self) -> Option<BindingEntry> {
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
    pub fn find(&self, key: &BindingKey) -> Option<BindingSlot> {
        let hash = self.hasher.hash_one(key);
        let entries = &self.entries;
        let same = |&slot: &BindingSlot| {
            entries
                .get(slot as usize)
                .is_some_and(|entry| entry.key == *key)
        };
        self.index.find(hash, same).copied()
    }

    /// Inserts a new binding. If the table is full, the one not used for the longest time is evicted and returned; if
    /// none may be evicted, the new one is not inserted.
    pub fn insert(
        &mut self,
        key: BindingKey,
        tracked: bool,
        binding: Binding,
    ) -> Option<(BindingSlot, Option<BindingEntry>)> {
        let evicted = if self.entries.len() < self.max {
            None
        } else {
            Some(self.remove(self.recency.oldest()?)?)
        };
        let place = self.entries.insert(BindingEntry {
            key,
            tracked,
            binding,
            groups: GroupMembership::default(),
            due_at: None,
        });
        let slot = BindingSlot::try_from(place).ok()?;
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index
            .insert_unique(hasher.hash_one(key), slot, |&slot| {
                entries
                    .get(slot as usize)
                    .map_or(0, |entry| hasher.hash_one(entry.key))
            });
        Some((slot, evicted))
    }

    /// Removes a binding.
    pub fn remove(&mut self, slot: BindingSlot) -> Option<BindingEntry> {
        let entry = self.entries.try_remove(slot as usize)?;
        let hash = self.hasher.hash_one(entry.key);
        if let Ok(found) = self.index.find_entry(hash, |&other| other == slot) {
            found.remove();
        }
        self.recency.remove(slot);
        self.conflicts.remove(&slot);
        self.contested.remove(&slot);
        self.tracked_changes += u64::from(self.tracked.remove(&slot));
        if let Some(at) = entry.due_at {
            self.deadlines.remove(&(at, slot));
        }
        Some(entry)
    }

    /// A binding.
    pub fn get(&self, slot: BindingSlot) -> Option<&BindingEntry> {
        self.entries.get(slot as usize)
    }

    /// A binding; [`Self::update`] is to be called after a change.
    pub fn get_mut(&mut self, slot: BindingSlot) -> Option<&mut BindingEntry> {
        self.entries.get_mut(slot as usize)
    }

    /// Updates the groups and the deadline of a binding.
    pub fn update(&mut self, slot: BindingSlot, due: Option<Timestamp>) {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        let groups = GroupMembership {
            conflicts: entry.binding.conflict().is_some(),
            contested: entry.binding.has_contested_episode(),
            tracked: entry.tracked,
        };
        let soon_enough = entry
            .due_at
            .is_some_and(|at| due.is_some_and(|due| at <= due));
        if !soon_enough {
            if let Some(at) = entry.due_at {
                self.deadlines.remove(&(at, slot));
            }
            if let Some(due) = due {
                self.deadlines.insert((due, slot));
            }
            entry.due_at = due;
        }
        if groups != entry.groups {
            self.tracked_changes += u64::from(groups.tracked != entry.groups.tracked);
            entry.groups = groups;
            set(&mut self.conflicts, slot, groups.conflicts);
            set(&mut self.contested, slot, groups.contested);
            set(&mut self.tracked, slot, groups.tracked);
        }
        if groups.conflicts || groups.tracked {
            self.recency.remove(slot);
        } else {
            self.recency.touch(slot);
        }
    }

    /// The next binding with a deadline until `now`.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, BindingSlot)> {
        let &(at, slot) = self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.deadlines.pop_first();
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.due_at = None;
        }
        Some((at, slot))
    }

    /// The next deadline.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// The numbers of all bindings, in their order.
    pub fn slots(&self) -> Vec<BindingSlot> {
        let places = self.entries.iter().map(|(place, _)| place);
        places
            .filter_map(|place| BindingSlot::try_from(place).ok())
            .collect()
    }

    /// All bindings, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &BindingEntry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// All bindings from a cursor on, in the order of their numbers.
    pub fn rest(&self, cursor: TableCursor) -> impl Iterator<Item = (BindingSlot, &BindingEntry)> {
        // No entry has a number beyond the capacity.
        (cursor.first()..self.entries.capacity()).filter_map(|number| {
            Some((
                BindingSlot::try_from(number).ok()?,
                self.entries.get(number)?,
            ))
        })
    }

    /// The bindings with an open conflict, in the order of their numbers.
    pub fn conflicts(&self) -> impl Iterator<Item = &BindingEntry> {
        self.conflicts.iter().filter_map(|&slot| self.get(slot))
    }

    /// How many conflicts are open.
    pub fn open_conflicts(&self) -> usize {
        self.conflicts.len()
    }

    /// How often the set of tracked addresses has changed.
    pub const fn tracked_changes(&self) -> u64 {
        self.tracked_changes
    }

    /// How many bindings are in a group.
    pub fn count(&self, group: AddressGroup) -> usize {
        self.members(group).len()
    }

    /// The bindings of a group after a place, in the order of their numbers.
    pub fn group(
        &self,
        group: AddressGroup,
        cursor: TableCursor,
    ) -> impl Iterator<Item = (BindingSlot, &BindingEntry)> {
        let rest = self.members(group).range(cursor.rest());
        rest.filter_map(|&slot| Some((slot, self.get(slot)?)))
    }
}

impl BindingTable {
    fn members(&self, group: AddressGroup) -> &BTreeSet<BindingSlot> {
        match group {
            AddressGroup::Conflicts => &self.conflicts,
            AddressGroup::Contested => &self.contested,
            AddressGroup::Tracked => &self.tracked,
        }
    }
}

/// Inserts or removes a slot.
fn set(slots: &mut BTreeSet<BindingSlot>, slot: BindingSlot, is_in: bool) {
    if is_in {
        slots.insert(slot);
    } else {
        slots.remove(&slot);
    }
}
