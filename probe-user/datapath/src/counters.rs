//! The kernel's counters, read when somebody wants them.

use std::sync::{Arc, PoisonError, RwLock};

use aya::{
    maps::{MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use lru::LruCache;
use probe_common::counter::{Counters, Direction, counters_key, counters_places};

use super::KernelError;
use crate::frame_counters::MAX_RETIRED;

/// The map's value without a type, because only plain arrays are `aya::Pod` here.
type Raw = [u64; size_of::<Counters>() / size_of::<u64>()];

const MAP: &str = "COUNTERS";

/// Reads and registers the counters of interfaces.
#[derive(Clone)]
pub struct CounterReader {
    map: Arc<RwLock<Map>>,
    /// Of interfaces that are gone, by name: one that is made anew goes on where it left off.
    retired: Arc<RwLock<LruCache<String, Retired>>>,
}

type Retired = [Counters; Direction::COUNT];

type Map = PerCpuArray<MapData, Raw>;

impl CounterReader {
    pub(super) fn new(map: Map) -> Self {
        Self {
            map: Arc::new(RwLock::new(map)),
            retired: Arc::new(RwLock::new(LruCache::new(MAX_RETIRED))),
        }
    }

    /// The counts of an interface and direction, summed over all CPUs. `None` where it is not watched.
    pub fn read(
        &self,
        ifindex: u32,
        direction: Direction,
    ) -> Result<Option<Counters>, KernelError> {
        let key = counters_key(ifindex, direction);
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        find(&map, key, |counters| counters.belong_to(key)).map(|found| found.map(|(_, sum)| sum))
    }

    /// The same, with what was counted on earlier interfaces of this name.
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

    /// Starts to count for an interface and direction. Goes on where it left off if it was counted before,
    /// so that reattaching turns no counter back.
    ///
    /// # Errors
    ///
    /// [`KernelError::CountersFull`] where other interfaces have all the places that it may have.
    pub(super) fn register(&self, ifindex: u32, direction: Direction) -> Result<(), KernelError> {
        let key = counters_key(ifindex, direction);
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if find(&map, key, |counters| counters.belong_to(key))?.is_some() {
            return Ok(());
        }
        let (place, _) =
            find(&map, key, Counters::are_free)?.ok_or(KernelError::CountersFull { ifindex })?;
        add_entry(&mut map, place, &Counters::of(key))
    }

    /// Gives the place of an interface that is gone to others, and keeps its counts for the next of its name.
    pub fn retire(&self, ifindex: u32, name: &str) {
        let counts = Direction::ALL.iter().map(|&direction| {
            // Whatever keeps it from being read keeps the next one from counting as well.
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
            // Not there is as good.
            if let Ok(Some((place, _))) = find(&map, key, |counters| counters.belong_to(key)) {
                let _ = add_entry(&mut map, place, &Counters::default());
            }
        }
    }
}

/// The first place of a key whose counters are as wanted, and their sum.
fn find(
    map: &Map,
    key: u32,
    wanted: impl Fn(&Counters) -> bool,
) -> Result<Option<(u32, Counters)>, KernelError> {
    for place in counters_places(key) {
        let per_cpu = map.get(&place, 0).map_err(map_error)?;
        let mut sum = Counters::default();
        let mut as_wanted = true;
        for raw in per_cpu.iter() {
            let counters: &Counters = bytemuck::cast_ref(raw);
            as_wanted &= wanted(counters);
            sum.add(counters);
        }
        if as_wanted {
            return Ok(Some((place, sum)));
        }
    }
    Ok(None)
}

fn add_entry(map: &mut Map, place: u32, counters: &Counters) -> Result<(), KernelError> {
    let cpus = nr_cpus().map_err(|(path, source)| KernelError::Cpus {
        path: path.to_owned(),
        problem: source.to_string(),
    })?;
    let raw: Raw = bytemuck::cast(*counters);
    let values =
        PerCpuValues::try_from(vec![raw; cpus]).map_err(|error| map_error(error.into()))?;
    map.set(place, values, 0).map_err(map_error)
}

const fn map_error(source: MapError) -> KernelError {
    KernelError::Map { name: MAP, source }
}
