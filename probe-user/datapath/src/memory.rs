//! The memory of the BPF maps. Every map is allocated when it is created, so this is also the most that they will ever
//! take. `docs/installation.md` shows it.

use std::mem::size_of;

use probe_common::{
    counter::{COUNTERS_PLACES, Counters},
    event_filter::{AddressKey, AskedState, ClaimState, CpuBuckets, Settings},
};

use super::{LoadOptions, cpus::RingLayout};

/// A page of the kernel.
const PAGE: u64 = 4_096;
/// `struct htab_elem` in front of key and value (`kernel/bpf/hashtab.c`).
const HASH_ELEMENT: u64 = 48;
/// `struct bucket` there.
const HASH_BUCKET: u64 = 16;
/// Pages of a ring besides its data: consumer and producer position, and the kernel's own
/// (`kernel/bpf/ringbuf.c`).
const RING_META_PAGES: u64 = 3;
/// A pointer.
const POINTER: u64 = 8;
/// A node of the watch filter's tree with its key and value, in the allocator's size
/// (`struct lpm_trie_node`, `kernel/bpf/lpm_trie.c`).
const FILTER_NODE: u64 = 64;

/// The ring for unchanged claims: room for the 6 554 that the 65 536 addresses of the default bring while they
/// wait for 100 ms, and for half as many again. What finds no room is counted, and told with the address's next
/// claim.
pub(super) const REFRESH_RING_BYTES: u32 = 1 << 20;

/// Memory of one part of the kernel side, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// The map.
    pub map: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// How much.
    pub bytes: u64,
}

/// What the kernel side takes on a machine with `cpus` CPUs, all of them online. Small fixed parts, a page
/// or two a map, are left out.
pub fn shares(options: &LoadOptions, cpus: u32) -> Vec<MapMemory> {
    let all: Vec<_> = (0..cpus as usize).collect();
    let layout = RingLayout::new(&all, &all, options.ring_memory);
    let (rings, ring_bytes) = (layout.rings() as u64, layout.ring_bytes() as u64);
    let share = |map, purpose, bytes| MapMemory {
        map,
        purpose,
        bytes,
    };
    vec![
        share(
            "RINGS",
            "change events for user space",
            rings * ring(ring_bytes),
        ),
        share(
            "REFRESH_EVENTS",
            "refresh events for user space",
            ring(u64::from(REFRESH_RING_BYTES)),
        ),
        share(
            "CLAIMS",
            "the last claims of each address",
            lru_hash::<AddressKey, ClaimState>(options.addresses),
        ),
        share(
            "REQUESTS",
            "requests for addresses that nobody claimed",
            lru_hash::<AddressKey, AskedState>(options.addresses),
        ),
        share(
            "COUNTERS",
            "counters of each interface",
            per_cpu_array::<Counters>(COUNTERS_PLACES, cpus),
        ),
        share(
            "BUCKETS, SETTINGS",
            "token buckets of each CPU, settings",
            per_cpu_array::<CpuBuckets>(1, cpus) + size_of::<Settings>() as u64,
        ),
    ]
}

/// What a full watch filter takes beyond that; it grows with its networks.
pub fn full_filter(options: &LoadOptions) -> u64 {
    // Every network but the first may bring an inner node along.
    2 * u64::from(options.filter_entries) * FILTER_NODE
}

/// A ring with room for so much.
const fn ring(bytes: u64) -> u64 {
    let pages = bytes / PAGE;
    // The data's pages are mapped twice in a row, so that no event is split.
    (RING_META_PAGES + pages) * PAGE + (RING_META_PAGES + 2 * pages) * POINTER
}

fn lru_hash<K, V>(entries: u32) -> u64 {
    let element = HASH_ELEMENT + rounded::<K>() + rounded::<V>();
    u64::from(entries) * element + u64::from(entries.next_power_of_two()) * HASH_BUCKET
}

fn per_cpu_array<V>(entries: u32, cpus: u32) -> u64 {
    u64::from(entries) * (rounded::<V>() * u64::from(cpus) + POINTER)
}

/// Keys and values take multiples of eight bytes.
const fn rounded<T>() -> u64 {
    (size_of::<T>() as u64).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use probe_common::event::ArpEvent;

    use super::*;

    #[test]
    fn the_unchanged_claims_of_all_addresses_find_room() {
        // A record has a header of eight bytes (`BPF_RINGBUF_HDR_SZ`).
        let record = u32::try_from(size_of::<ArpEvent>()).unwrap() + 8;
        let waiting = LoadOptions::default().addresses / 10;
        assert!(REFRESH_RING_BYTES / record > waiting * 3 / 2);
    }

    fn mebibytes(bytes: u64) -> String {
        // Tenths, rounded up: a promise is kept.
        let tenths = (bytes * 10).div_ceil(1 << 20);
        format!("{}.{}", tenths / 10, tenths % 10)
    }

    /// The table of the documentation.
    fn table() -> String {
        use std::fmt::Write as _;
        let options = LoadOptions::default();
        let [few, many] = [2, 512].map(|cpus| shares(&options, cpus));
        let mut text =
            String::from("| map | what for | 2 CPUs | 512 CPUs |\n|---|---|---:|---:|\n");
        for (few, many) in few.iter().zip(&many) {
            let (few_mib, many_mib) = (mebibytes(few.bytes), mebibytes(many.bytes));
            let _ = writeln!(
                text,
                "| {} | {} | {few_mib} | {many_mib} |",
                few.map, few.purpose
            );
        }
        let [few, many] =
            [few, many].map(|shares| mebibytes(shares.iter().map(|share| share.bytes).sum()));
        let _ = writeln!(text, "| all | | **{few}** | **{many}** |");
        text
    }

    #[test]
    fn the_documentation_says_what_is_computed() {
        let documentation = include_str!("../../../docs/installation.md");
        let table = table();
        assert!(
            documentation.contains(&table),
            "docs/installation.md should have:\n{table}\nand a full filter of {} MiB",
            mebibytes(full_filter(&LoadOptions::default()))
        );
    }

    #[test]
    fn rings_stay_within_their_budget_however_many_cpus_there_are() {
        let options = LoadOptions::default();
        for cpus in [1, 2, 7, 64, 512, 4096] {
            let rings = shares(&options, cpus)[0].bytes;
            // Positions and page tables come on top of the data.
            assert!(
                rings <= options.ring_memory as u64 * 6 / 5,
                "{cpus} CPUs: {rings}"
            );
        }
    }
}
