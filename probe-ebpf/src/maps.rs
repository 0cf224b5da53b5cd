//! The maps, and the only places where their memory becomes a reference.
//!
//! Sizes here are what a plain load would give; the loader sets them from its options.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    helpers::bpf_get_smp_processor_id,
    macros::btf_map,
};
use probe_common::{
    counter::{COUNTERS_PLACES, Counters, Direction, counters_key, counters_places},
    economy::{AddressKey, AskedState, ClaimState, CpuBuckets, Settings},
    event::ArpEvent,
};

/// Events on their way to user space.
pub type Ring = RingBuf<ArpEvent, 65_536>;

/// One ring per CPU, for news. The loader sets as many slots as the highest CPU number needs and puts a ring
/// in each.
#[btf_map]
static RINGS: ArrayOfMaps<Ring, 64> = ArrayOfMaps::new();

/// One ring for what is no news: unchanged claims, each address once per refresh interval. They are nearly all
/// that there is to tell in a quiet network, and user space takes them many at a time; in a ring of their own
/// they keep it from nothing, and cannot crowd out what is urgent.
#[btf_map]
static REFRESH_EVENTS: Ring = RingBuf::new();

/// What each watched interface and direction has seen; interfaces without counters are not ours.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, { COUNTERS_PLACES as usize }> = PerCpuArray::new();

/// The claims on each address.
#[btf_map]
static CLAIMS: LruHashMap<AddressKey, ClaimState, 65_536> = LruHashMap::new();

/// The requests for each address.
#[btf_map]
static ASKED: LruHashMap<AddressKey, AskedState, 65_536> = LruHashMap::new();

/// The addresses to watch, if [`Settings::filter`] says so.
#[btf_map]
static FILTER: LpmTrie<[u8; 4], u32, 16_384> = LpmTrie::new();

/// What user space may set while the programs run.
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

/// The budgets of each CPU.
#[btf_map]
static BUCKETS: PerCpuArray<CpuBuckets, 1> = PerCpuArray::new();

/// The ring for news of the CPU that runs the program.
#[inline(always)]
pub fn news() -> Option<&'static Ring> {
    // SAFETY: the helper only reads which CPU it is on.
    RINGS.get(unsafe { bpf_get_smp_processor_id() })
}

/// The ring for what is no news.
#[inline(always)]
pub fn refreshes() -> &'static Ring {
    &REFRESH_EVENTS
}

/// This CPU's counters of an interface and direction.
#[inline(always)]
pub fn counters(ifindex: u32, direction: Direction) -> Option<&'static mut Counters> {
    let key = counters_key(ifindex, direction);
    for place in counters_places(key) {
        let counters = COUNTERS.get_ptr_mut(place)?;
        // SAFETY: the slot is this CPU's own, and a hook does not interrupt itself on one CPU.
        let counters = unsafe { &mut *counters };
        if counters.belong_to(key) {
            return Some(counters);
        }
    }
    None
}

/// The settings in force.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// This CPU's budgets.
#[inline(always)]
pub fn buckets() -> Option<&'static mut CpuBuckets> {
    let buckets = BUCKETS.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own. Ingress may interrupt egress; at worst one token is taken twice.
    Some(unsafe { &mut *buckets })
}

/// What is remembered of the claims on an address.
#[inline(always)]
pub fn claim(key: &AddressKey) -> Option<&'static mut ClaimState> {
    let state = CLAIMS.get_ptr_mut(key)?;
    // SAFETY: the kernel keeps the element's memory valid while the program runs. Two CPUs may write it
    // at once, as every program on a shared map does; whatever mix they leave is a valid `ClaimState`,
    // and costs at most one event too many or one that the next claim makes up for.
    Some(unsafe { &mut *state })
}

/// Remembers the first claim on an address. Where two CPUs have it at once, the second one wins.
#[inline(always)]
pub fn insert_claim(key: &AddressKey, state: &ClaimState) {
    // An LRU map makes room, so this fails only when every node is in flight; the claim was counted and
    // goes out all the same.
    let _ = CLAIMS.insert(key, state, 0);
}

/// What is remembered of the requests for an address.
#[inline(always)]
pub fn asked(key: &AddressKey) -> Option<&'static mut AskedState> {
    let state = ASKED.get_ptr_mut(key)?;
    // SAFETY: as for `claim`.
    Some(unsafe { &mut *state })
}

/// Remembers the first request for an address.
#[inline(always)]
pub fn insert_asked(key: &AddressKey, state: &AskedState) {
    // As for `insert_claim`: what is not remembered is only not tied to its answers.
    let _ = ASKED.insert(key, state, 0);
}

/// Whether the filter lists an address.
#[inline(always)]
pub fn filter_lists(address: [u8; 4]) -> bool {
    FILTER.get(&Key::new(32, address)).is_some()
}
