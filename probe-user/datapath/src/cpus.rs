//! Lists the CPUs and assigns rings to them.

use std::fs;

use super::KernelError;

/// The minimum size of a ring, in bytes: smaller rings overflow in a burst that one switch can cause.
const MIN_RING_BYTES: usize = 64 << 10;
/// The maximum size of a ring, in bytes: the events of half a second at 20 000 new addresses a second. Larger rings only
/// delay a loss.
const MAX_RING_BYTES: usize = 1 << 20;

/// The number of rings, their size, and the ring of each slot (CPU number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingLayout {
    ring_bytes: usize,
    rings: usize,
    ring_of_slot: Vec<usize>,
}

impl RingLayout {
    /// The layout for this host within `memory` bytes.
    pub fn for_this_host(memory: usize) -> Result<Self, KernelError> {
        Ok(Self::new(&read("online")?, &read("possible")?, memory))
    }

    /// One ring for each online CPU if they fit into `memory` bytes, else fewer. CPUs that are possible but offline share
    /// rings, so that each CPU has one when it comes online.
    pub fn new(online: &[usize], possible: &[usize], memory: usize) -> Self {
        let slots = possible
            .iter()
            .chain(online)
            .max()
            .map_or(1, |highest| highest + 1);
        let online_count = online.len().max(1);
        let rings = online_count.min(memory / MIN_RING_BYTES).max(1);
        let share = (memory / rings).clamp(MIN_RING_BYTES, MAX_RING_BYTES);
        // The kernel requires a power of two.
        let ring_bytes = 1 << share.ilog2();

        let mut ring_of_slot: Vec<_> = (0..slots).map(|slot| slot % rings).collect();
        for (index, &cpu) in online.iter().enumerate() {
            ring_of_slot[cpu] = index % rings;
        }
        Self {
            ring_bytes,
            rings,
            ring_of_slot,
        }
    }

    /// The size of each ring, in bytes.
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes
    }

    /// The number of rings.
    pub fn rings(&self) -> usize {
        self.rings
    }

    /// The number of slots: the highest possible CPU number + 1.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.ring_of_slot.len()).unwrap_or(u32::MAX)
    }

    /// All slots, each with the index of its ring.
    pub fn assignments(&self) -> impl Iterator<Item = (u32, usize)> {
        (0..).zip(self.ring_of_slot.iter().copied())
    }
}

/// The number of possible CPUs, for each of which per-CPU maps have a value.
pub fn possible() -> Result<u32, KernelError> {
    let possible = read("possible")?;
    Ok(u32::try_from(possible.len()).unwrap_or(u32::MAX))
}

fn read(which: &'static str) -> Result<Vec<usize>, KernelError> {
    let path = format!("/sys/devices/system/cpu/{which}");
    let text = fs::read_to_string(&path).map_err(|source| KernelError::Cpus {
        path: path.clone(),
        problem: source.to_string(),
    })?;
    parse(&text).ok_or(KernelError::Cpus {
        path,
        problem: format!("unexpected content {text:?}"),
    })
}

/// Parses a CPU list like `0-3,8` (`Documentation/admin-guide/cputopology.rst`).
fn parse(text: &str) -> Option<Vec<usize>> {
    /// The maximum of `CONFIG_NR_CPUS`.
    const MAX_CPUS: usize = 8192;
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MAX_CPUS || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn range(n: usize) -> Vec<usize> {
        (0..n).collect()
    }

    #[test]
    fn cpu_lists_are_parsed_with_gaps() {
        assert_eq!(parse("0\n"), Some(vec![0]));
        assert_eq!(parse("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        for bad in ["", "a", "3-1", "0-", "0-99999999999", "0-1000000"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_online_cpu_has_its_own_ring_within_the_memory_budget() {
        let layout = RingLayout::new(&range(2), &range(2), 16 * MIB);
        assert_eq!((layout.rings(), layout.ring_bytes()), (2, MIB));
        let layout = RingLayout::new(&range(64), &range(64), 16 * MIB);
        assert_eq!((layout.rings(), layout.ring_bytes()), (64, MIB / 4));
    }

    #[test]
    fn above_the_memory_budget_cpus_share_rings() {
        let layout = RingLayout::new(&range(512), &range(512), 16 * MIB);
        assert_eq!((layout.rings(), layout.ring_bytes()), (256, MIB / 16));
        let users = layout.assignments().filter(|&(_, ring)| ring == 7).count();
        assert_eq!(users, 2);
    }

    #[test]
    fn every_slot_up_to_the_highest_possible_cpu_has_a_ring() {
        let layout = RingLayout::new(&[0, 2, 130], &range(256), MIB);
        assert_eq!(layout.slots(), 256);
        assert_eq!(layout.rings(), 3);
        let rings: Vec<_> = layout.assignments().map(|(_, ring)| ring).collect();
        assert_eq!((rings[0], rings[2], rings[130]), (0, 1, 2));
        assert!(rings.iter().all(|&ring| ring < 3));
    }

    #[test]
    fn sizes_are_powers_of_two_and_a_tiny_budget_still_gives_one_ring() {
        for memory in [0, 1, MIN_RING_BYTES, 3 * MIB, 5 * MIB + 17] {
            let layout = RingLayout::new(&range(3), &range(4), memory);
            assert!(layout.ring_bytes().is_power_of_two() && layout.rings() >= 1);
        }
    }
}
