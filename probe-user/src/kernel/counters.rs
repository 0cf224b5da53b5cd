//! The kernel's counters, read when somebody wants them.

use std::sync::{Arc, PoisonError, RwLock};

use aya::{
    maps::{MapData, MapError, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use probe_common::counter::{Counters, Direction, counters_key};

use super::KernelError;

/// The map's value without a type, because only plain arrays are `aya::Pod` here.
type Raw = [u64; size_of::<Counters>() / size_of::<u64>()];

const MAP: &str = "COUNTERS";

/// Reads and registers the counters of interfaces.
#[derive(Clone)]
pub struct CounterReader {
    map: Arc<RwLock<PerCpuHashMap<MapData, u32, Raw>>>,
}

impl CounterReader {
    pub(super) fn new(map: PerCpuHashMap<MapData, u32, Raw>) -> Self {
        Self {
            map: Arc::new(RwLock::new(map)),
        }
    }

    /// The counts of an interface and direction, summed over all CPUs. `None` where it is not watched.
    pub fn read(
        &self,
        ifindex: u32,
        direction: Direction,
    ) -> Result<Option<Counters>, KernelError> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        match map.get(&counters_key(ifindex, direction), 0) {
            Ok(per_cpu) => {
                let mut sum = Counters::default();
                for raw in per_cpu.iter() {
                    sum.add(bytemuck::cast_ref(raw));
                }
                Ok(Some(sum))
            }
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(KernelError::Map { name: MAP, source }),
        }
    }

    /// Starts to count for an interface and direction. Goes on where it left off if it was counted before,
    /// so that reattaching turns no counter back.
    pub(super) fn register(&self, ifindex: u32, direction: Direction) -> Result<(), KernelError> {
        /// `BPF_NOEXIST`
        const NOT_EXISTING: u64 = 1;
        let error = |source| KernelError::Map { name: MAP, source };
        let cpus = nr_cpus().map_err(|(path, source)| KernelError::Cpus {
            path: path.to_owned(),
            problem: source.to_string(),
        })?;
        let zeros = PerCpuValues::try_from(vec![bytemuck::cast(Counters::default()); cpus])
            .map_err(|source| error(source.into()))?;
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        match map.insert(counters_key(ifindex, direction), zeros, NOT_EXISTING) {
            Err(MapError::SyscallError(syscall))
                if syscall.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            result => result.map_err(error),
        }
    }

    /// Forgets an interface that is gone.
    pub fn forget(&self, ifindex: u32) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        for &direction in Direction::ALL {
            // Not there is as good.
            let _ = map.remove(&counters_key(ifindex, direction));
        }
    }
}
