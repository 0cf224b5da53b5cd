//! Computes the memory of the BPF maps. Maps are allocated when they are created, so this is also their maximum.
//! `docs/installation.md` has the results.

use std::mem::size_of;

use probe_common::{
    counter::{COUNTERS_CAPACITY, Counters},
    event_filter::{AddressKey, ClaimState, CpuBuckets, FilterSettings, RequestState},
};

use super::{LoadOptions, cpus::RingLayout};

/// The size of a page, in bytes.
const PAGE: u64 = 4_096;
/// The size of `struct htab_elem` before key and value, in bytes (`kernel/bpf/hashtab.c`).
const HASH_ELEMENT: u64 = 48;
/// The size of `struct bucket` there, in bytes.
const HASH_BUCKET: u64 = 16;
/// The pages of a ring besides its data: consumer position, producer position and `struct bpf_ringbuf`
/// (`kernel/bpf/ringbuf.c`).
const RING_META_PAGES: u64 = 3;
/// The size of a pointer, in bytes.
const POINTER: u64 = 8;
/// The allocated size of a trie node with key and value, in bytes (`struct lpm_trie_node`, `kernel/bpf/lpm_trie.c`).
const FILTER_NODE: u64 = 64;

/// The size of the ring for refresh events, in bytes. With the default of 65 536 addresses, 6 554 events arrive in the
/// 100 ms between two drains; the ring holds half as many again. An event for which the ring is full is counted, and the
/// next claim on its address is emitted instead.
pub(super) const REFRESH_RING_BYTES: u32 = 1 << 20;

/// The memory of one BPF map, or of several small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// The name of the map.
    pub map: &'static str,
    /// The purpose of the map.
    pub purpose: &'static str,
    /// The memory of the map, in bytes.
    pub bytes: u64,
}

/// Computes the memory of the maps on a host with `cpus` CPUs, all of them online. Fixed parts of one or two pages per map
/// are not included.
pub fn map_memory(options: &LoadOptions, cpus: u32) -> Vec<MapMemory> {
    let all: Vec<_> = (0..cpus as usize).collect();
    let layout = RingLayout::new(&all, &all, options.ring_memory);
    let (rings, ring_bytes) = (layout.rings() as u64, layout.ring_bytes() as u64);
    let memory_of = |map, purpose, bytes| MapMemory {
        map,
        purpose,
        bytes,
    };
    vec![
        memory_of(
            "RINGS",
            "change events for user space",
            rings * ring(ring_bytes),
        ),
        memory_of(
            "REFRESH_EVENTS",
            "refresh events for user space",
            ring(u64::from(REFRESH_RING_BYTES)),
        ),
        memory_of(
            "CLAIMS",
            "the last claims of each address",
            lru_hash::<AddressKey, ClaimState>(options.addresses),
        ),
        memory_of(
            "REQUESTS",
            "requests for addresses without a claim",
            lru_hash::<AddressKey, RequestState>(options.addresses),
        ),
        memory_of(
            "COUNTERS",
            "counters of each interface",
            per_cpu_array::<Counters>(COUNTERS_CAPACITY, cpus),
        ),
        memory_of(
            "BUCKETS, SETTINGS",
            "token buckets of each CPU, settings",
            per_cpu_array::<CpuBuckets>(1, cpus) + size_of::<FilterSettings>() as u64,
        ),
    ]
}

/// Computes the memory of a full watch filter, in bytes. It is not included in [`map_memory`], because it grows with the
/// number of networks.
pub fn full_filter_memory(options: &LoadOptions) -> u64 {
    // Every network except the first may require an intermediate node.
    2 * u64::from(options.filter_entries) * FILTER_NODE
}

/// The memory of a ring with `bytes` of data, in bytes.
const fn ring(bytes: u64) -> u64 {
    let pages = bytes / PAGE;
    // The data pages are mapped twice in a row, so that each event is contiguous.
    (RING_META_PAGES + pages) * PAGE + (RING_META_PAGES + 2 * pages) * POINTER
}

fn lru_hash<K, V>(entries: u32) -> u64 {
    let element = HASH_ELEMENT + rounded::<K>() + rounded::<V>();
    u64::from(entries) * element + u64::from(entries.next_power_of_two()) * HASH_BUCKET
}

fn per_cpu_array<V>(entries: u32, cpus: u32) -> u64 {
    u64::from(entries) * (rounded::<V>() * u64::from(cpus) + POINTER)
}

/// The size of a key or value in a map, which is a multiple of eight bytes.
const fn rounded<T>() -> u64 {
    (size_of::<T>() as u64).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use probe_common::event::ArpEvent;

    use super::*;

    #[test]
    fn the_refresh_ring_holds_the_events_of_all_addresses_between_two_drains() {
        // A record has a header of eight bytes (`BPF_RINGBUF_HDR_SZ`).
        let record = u32::try_from(size_of::<ArpEvent>()).unwrap() + 8;
        let events = LoadOptions::default().addresses / 10;
        assert!(REFRESH_RING_BYTES / record > events * 3 / 2);
    }

    fn mebibytes(bytes: u64) -> String {
        // In tenths, rounded up, so that the documented limit holds.
        let tenths = (bytes * 10).div_ceil(1 << 20);
        format!("{}.{}", tenths / 10, tenths % 10)
    }

    /// The table in `docs/installation.md`.
    fn table() -> String {
        use std::fmt::Write as _;
        let options = LoadOptions::default();
        let [few, many] = [2, 512].map(|cpus| map_memory(&options, cpus));
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
        let [few, many] = [few, many].map(|maps| mebibytes(maps.iter().map(|map| map.bytes).sum()));
        let _ = writeln!(text, "| all | | **{few}** | **{many}** |");
        text
    }

    #[test]
    fn the_documentation_contains_the_computed_table() {
        let documentation = include_str!("../../../docs/installation.md");
        let table = table();
        assert!(
            documentation.contains(&table),
            "docs/installation.md should have:\n{table}\nand a full filter of {} MiB",
            mebibytes(full_filter_memory(&LoadOptions::default()))
        );
    }

    #[test]
    fn rings_stay_within_their_budget_however_many_cpus_there_are() {
        let options = LoadOptions::default();
        for cpus in [1, 2, 7, 64, 512, 4096] {
            let rings = map_memory(&options, cpus)[0].bytes;
            // Position pages and page tables are added to the data.
            assert!(
                rings <= options.ring_memory as u64 * 6 / 5,
                "{cpus} CPUs: {rings}"
            );
        }
    }
}
