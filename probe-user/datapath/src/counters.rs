//! Reads the counters of the BPF programs on demand.

use std::sync::{Arc, PoisonError, RwLock};

use aya::{
    maps::{MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use lru::LruCache;
use probe_common::counter::{Counters, Direction, counters_indexes, counters_key};

use super::KernelError;
use crate::frame_counters::MAX_RETIRED;

/// The value of the map as an array of numbers, because `Counters` does not implement `aya::Pod`.
type RawCounters = [u64; size_of::<Counters>() / size_of::<u64>()];

const MAP: &str = "COUNTERS";

/// Reads and registers the counters of interfaces.
#[derive(Clone)]
pub struct CounterReader {
    map: Arc<RwLock<CountersMap>>,
    /// The counters of removed interfaces, by name: if one is recreated, its counters continue.
    retired: Arc<RwLock<LruCache<String, RetiredCounters>>>,
}

/// The counters of a removed interface, by direction.
type RetiredCounters = [Counters; Direction::COUNT];

type CountersMap = PerCpuArray<MapData, RawCounters>;

impl CounterReader {
    pub(super) fn new(map: CountersMap) -> Self {
        Self {
            map: Arc::new(RwLock::new(map)),
            retired: Arc::new(RwLock::new(LruCache::new(MAX_RETIRED))),
        }
    }

    /// Reads the counters of an interface and direction, summed over all CPUs. `None` if they are not registered.
    pub fn read(
        &self,
        ifindex: u32,
        direction: Direction,
    ) -> Result<Option<Counters>, KernelError> {
        let key = counters_key(ifindex, direction);
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        find(&map, key, |counters| counters.has_key(key)).map(|found| found.map(|(_, sum)| sum))
    }

    /// Reads the counters like [`Self::read`] and adds those of removed interfaces with this name.
    pub fn read_named(
        &self,
        ifindex: u32,
        name: &str,
        direction: Direction,
    ) -> Result<Counters, KernelError> {
        let mut counters = self.read(ifindex, direction)?.unwrap_or_default();
        let retired = self.retired.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(retired) = retired.peek(name) {
            counters.add(&retired[usize::from(direction.number())]);
        }
        Ok(counters)
    }

    /// Registers the counters of an interface and direction. Registered counters keep their values, so that reattaching
    /// resets none.
    ///
    /// # Errors
    ///
    /// [`KernelError::CountersFull`] if other interfaces use all entries at which these counters may be stored.
    pub(super) fn register(&self, ifindex: u32, direction: Direction) -> Result<(), KernelError> {
        let key = counters_key(ifindex, direction);
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if find(&map, key, |counters| counters.has_key(key))?.is_some() {
            return Ok(());
        }
        let (index, _) =
            find(&map, key, Counters::is_unused)?.ok_or(KernelError::CountersFull { ifindex })?;
        set_counters(&mut map, index, &Counters::with_key(key))
    }

    /// Frees the counters of a removed interface, and keeps their values for the next interface with its name.
    pub fn retire(&self, ifindex: u32, name: &str) {
        let counts = Direction::ALL.iter().map(|&direction| {
            // If the counters cannot be read, those of the next interface cannot be registered either.
            self.read(ifindex, direction).ok().flatten()
        });
        let counts: Vec<_> = counts.map(Option::unwrap_or_default).collect();
        let mut retired = self.retired.write().unwrap_or_else(PoisonError::into_inner);
        let sums = retired.get_or_insert_mut(name.to_owned(), Default::default);
        for (sum, count) in sums.iter_mut().zip(&counts) {
            sum.add(count);
        }
        drop(retired);
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        for &direction in Direction::ALL {
            let key = counters_key(ifindex, direction);
            // Counters that are not registered need not be freed.
            if let Ok(Some((index, _))) = find(&map, key, |counters| counters.has_key(key)) {
                let _ = set_counters(&mut map, index, &Counters::default());
            }
        }
    }
}

/// Finds the first entry for a key whose counters match on all CPUs. Returns its index and the sum over the CPUs.
fn find(
    map: &CountersMap,
    key: u32,
    matches: impl Fn(&Counters) -> bool,
) -> Result<Option<(u32, Counters)>, KernelError> {
    for index in counters_indexes(key) {
        let per_cpu = map.get(&index, 0).map_err(map_error)?;
        let mut sum = Counters::default();
        let mut all_match = true;
        for raw in per_cpu.iter() {
            let counters: &Counters = bytemuck::cast_ref(raw);
            all_match &= matches(counters);
            sum.add(counters);
        }
        if all_match {
            return Ok(Some((index, sum)));
        }
    }
    Ok(None)
}

fn set_counters(map: &mut CountersMap, index: u32, counters: &Counters) -> Result<(), KernelError> {
    let cpus = nr_cpus().map_err(|(path, source)| KernelError::Cpus {
        path: path.to_owned(),
        problem: source.to_string(),
    })?;
    let raw: RawCounters = bytemuck::cast(*counters);
    let values =
        PerCpuValues::try_from(vec![raw; cpus]).map_err(|error| map_error(error.into()))?;
    map.set(index, values, 0).map_err(map_error)
}

const fn map_error(source: MapError) -> KernelError {
    KernelError::Map { name: MAP, source }
}
