//! The maps, and the only code that accesses their memory.
//!
//! Other CPUs write the values of the shared maps while a program runs, user space writes the settings, and an LRU map
//! may reuse an element for another key. So there are no references to values: [`MapValue`] copies them in and out.
//!
//! Sizes here are defaults; the loader sets them from its options.

use core::ptr;

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    helpers::bpf_get_smp_processor_id,
    macros::btf_map,
};
use bytemuck::Pod;
use probe_common::{
    counter::{COUNTERS_CAPACITY, Counter, Counters, Direction, counters_indexes, counters_key},
    event::{ArpEvent, ClaimObservation},
    event_filter::{
        AddressKey, ChangeClass, ClaimState, CpuBuckets, FilterSettings, RequestState, TokenBucket,
    },
};

/// A ring buffer of events.
pub type Ring = RingBuf<ArpEvent, 65_536>;

/// Change events: one ring per CPU. The loader sets as many slots as the highest CPU number requires and puts a
/// ring into each.
#[btf_map]
static RINGS: ArrayOfMaps<Ring, 64> = ArrayOfMaps::new();

/// Refresh events: unchanged claims, each address once per refresh interval. In a quiet network they are nearly
/// all events, and user space reads them in batches. In a ring of their own they neither delay change events
/// nor take their room.
#[btf_map]
static REFRESH_EVENTS: Ring = RingBuf::new();

/// The counters of each watched interface and direction. Frames of an interface without counters are ignored.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, { COUNTERS_CAPACITY as usize }> = PerCpuArray::new();

/// The claims on each address.
#[btf_map]
static CLAIMS: LruHashMap<AddressKey, ClaimState, 65_536> = LruHashMap::new();

/// The requests for each address without claims.
#[btf_map]
static REQUESTS: LruHashMap<AddressKey, RequestState, 65_536> = LruHashMap::new();

/// The addresses to watch, if [`FilterSettings::filter`] is set.
#[btf_map]
static FILTER: LpmTrie<[u8; 4], u32, 16_384> = LpmTrie::new();

/// The settings, which user space may change while the programs run.
#[btf_map]
static SETTINGS: Array<FilterSettings, 1> = Array::new();

/// The token buckets of each CPU.
#[btf_map]
static BUCKETS: PerCpuArray<CpuBuckets, 1> = PerCpuArray::new();

/// A value in a map.
///
/// Accesses are not synchronized, as those of any program on a shared map: if two CPUs write one value at the same
/// time, each of its words is from one of them. All bits are a valid value, and such a mixture causes one extra event at
/// most, or delays an event until the next claim.
///
/// The pointer is from a lookup by this program run, so the kernel keeps the memory allocated until the program
/// returns, also if an LRU map gives the element to another key.
pub struct MapValue<T>(*mut T);

impl<T> Clone for MapValue<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MapValue<T> {}

impl<T: Pod> MapValue<T> {
    /// Copies the value. The compiler loads only the fields that the caller uses.
    #[inline(always)]
    pub fn get(self) -> T {
        // SAFETY: the memory is allocated until the program returns, see above, and all bits are a valid value.
        unsafe { self.0.read() }
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(self, value: T) {
        // SAFETY: as for `get`.
        unsafe { self.0.write(value) };
    }

    /// Changes a copy of the value and writes it back. The compiler writes only the fields that `change` changes, as
    /// long as `change` calls no helper.
    #[inline(always)]
    pub fn update<R>(self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.get();
        let result = change(&mut value);
        self.set(value);
        result
    }
}

impl MapValue<ClaimState> {
    /// The last request for the address.
    #[inline(always)]
    pub fn request(self) -> MapValue<RequestState> {
        // SAFETY: the pointer is to a `ClaimState`, which has the field; nothing is read.
        MapValue(unsafe { ptr::addr_of_mut!((*self.0).request) })
    }

    /// [`ClaimState::previous`] in place.
    #[inline(always)]
    pub fn previous(self, is_duplicate_reply: bool) -> MapValue<ClaimObservation> {
        // SAFETY: as for `request`.
        let last_reply = unsafe { ptr::addr_of_mut!((*self.0).last_reply) };
        // SAFETY: as for `request`.
        let last_claim = unsafe { ptr::addr_of_mut!((*self.0).last_claim) };
        MapValue(if is_duplicate_reply {
            last_reply
        } else {
            last_claim
        })
    }

    /// The token bucket for changes of a class.
    #[inline(always)]
    pub fn change_bucket(self, class: ChangeClass) -> MapValue<TokenBucket> {
        // SAFETY: as for `request`.
        let announcement = unsafe { ptr::addr_of_mut!((*self.0).buckets.announcement) };
        // SAFETY: as for `request`.
        let reply = unsafe { ptr::addr_of_mut!((*self.0).buckets.reply) };
        // SAFETY: as for `request`.
        let duplicate_reply = unsafe { ptr::addr_of_mut!((*self.0).buckets.duplicate_reply) };
        MapValue(match class {
            ChangeClass::Announcement => announcement,
            ChangeClass::Reply => reply,
            ChangeClass::DuplicateReply => duplicate_reply,
        })
    }
}

impl MapValue<Counters> {
    /// Adds one to a counter.
    #[inline(always)]
    pub fn increment(self, counter: Counter) {
        // SAFETY: `Counters` is an array of `u64`, and the slot is within it.
        let slot = unsafe { self.0.cast::<u64>().add(Counters::slot(counter)) };
        MapValue(slot).update(|count| *count = count.wrapping_add(1));
    }

    /// Whether these are the counters of this key.
    #[inline(always)]
    fn has_key(self, key: u32) -> bool {
        // SAFETY: as for `increment`.
        let stored_key = unsafe { self.0.cast::<u64>().add(Counters::KEY_SLOT) };
        MapValue(stored_key).get() == u64::from(key)
    }
}

/// The ring for change events of the CPU that runs the program.
#[inline(always)]
pub fn change_ring() -> Option<&'static Ring> {
    // SAFETY: the helper only returns the number of the CPU.
    RINGS.get(unsafe { bpf_get_smp_processor_id() })
}

/// The ring for refresh events.
#[inline(always)]
pub fn refresh_ring() -> &'static Ring {
    &REFRESH_EVENTS
}

/// This CPU's counters of an interface and direction.
#[inline(always)]
pub fn counters(ifindex: u32, direction: Direction) -> Option<MapValue<Counters>> {
    let key = counters_key(ifindex, direction);
    for index in counters_indexes(key) {
        let counters = MapValue(COUNTERS.get_ptr_mut(index)?);
        if counters.has_key(key) {
            return Some(counters);
        }
    }
    None
}

/// The settings.
#[inline(always)]
pub fn settings() -> Option<MapValue<FilterSettings>> {
    SETTINGS.get_ptr_mut(0).map(MapValue)
}

/// This CPU's token buckets. Ingress may interrupt egress; at most one token is taken twice then.
#[inline(always)]
pub fn buckets() -> Option<MapValue<CpuBuckets>> {
    BUCKETS.get_ptr_mut(0).map(MapValue)
}

/// The state of the claims on an address.
#[inline(always)]
pub fn claim(key: &AddressKey) -> Option<MapValue<ClaimState>> {
    CLAIMS.get_ptr_mut(key).map(MapValue)
}

/// The state of an address without claims. It is in read-only data, because it does not fit on the stack.
static NO_CLAIMS: ClaimState = ClaimState::EMPTY;

/// Inserts an empty state for an address, to be filled in. If two CPUs do so at the same time, the second one
/// overwrites the first.
#[inline(always)]
pub fn insert_claim(key: &AddressKey) -> Option<MapValue<ClaimState>> {
    // An LRU map evicts an element where it is full, so this fails only if every node is in flight. The
    // claim was counted and emitted before.
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value it would be copied to the stack"
    )]
    let _ = CLAIMS.insert(key, &NO_CLAIMS, 0);
    claim(key)
}

/// The state of the requests for an address without claims.
#[inline(always)]
pub fn request(key: &AddressKey) -> Option<MapValue<RequestState>> {
    REQUESTS.get_ptr_mut(key).map(MapValue)
}

/// Stores the first request for an address.
#[inline(always)]
pub fn insert_request(key: &AddressKey, state: &RequestState) {
    // As for `insert_claim`: a request that is not stored is only not matched with its replies.
    let _ = REQUESTS.insert(key, state, 0);
}

/// Whether the filter contains an address.
#[inline(always)]
pub fn filter_contains(address: [u8; 4]) -> bool {
    FILTER.get(&Key::new(32, address)).is_some()
}
