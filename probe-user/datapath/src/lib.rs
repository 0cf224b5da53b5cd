//! Loads and attaches the BPF programs, drains their rings and reads their counters. No other crate uses bpf(2).
//!
//! The public API has plain values and no maps. Must not depend on `detect` or on any crate above `network`.

pub mod attach;
pub mod capabilities;
mod cgroup;
pub mod clock;
mod clsact;
mod counters;
mod cpus;
pub mod descriptors;
mod device;
mod error;
mod filter;
pub mod frame_counters;
pub mod interfaces;
pub mod load_test;
pub mod memory;
pub mod preflight;
pub mod program_list;
pub mod readiness;
pub mod reorder;
mod rings;

use std::collections::HashMap;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, MapData, PerCpuArray},
};
use ipnet::Ipv4Net;
use probe_common::{event::ABI_VERSION, event_filter::FilterSettings};

use self::filter::AddressFilter;
pub use self::{
    attach::Attachment,
    clsact::ClsactFilters,
    counters::CounterReader,
    descriptors::DescriptorReserve,
    device::{AttachmentStatus, DisplacedProgram},
    error::KernelError,
    rings::EventRings,
};

/// The object with the programs, built from `probe-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe-ebpf.o"));

/// The section of the object that contains the version of its ABI.
const ABI_SECTION: &str = "probe_abi";

/// The options that cannot change after the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// The memory for all rings together, in bytes.
    pub ring_memory: usize,
    /// The number of addresses whose claims and requests the BPF programs store.
    pub addresses: u32,
    /// The capacity of the watch filter, in CIDRs.
    pub filter_entries: u32,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            ring_memory: 16 << 20,
            addresses: 65_536,
            filter_entries: 16_384,
        }
    }
}

/// The loaded programs. Dropping it unloads them, except those of existing attachments.
pub struct Kernel {
    ebpf: Ebpf,
    settings_map: Array<MapData, [u8; size_of::<FilterSettings>()]>,
    counters: CounterReader,
    filter: AddressFilter,
    current_settings: FilterSettings,
    /// Reserved when the first clsact filter is attached; never with TCX.
    filter_handle: Option<clsact::FilterHandleReservation>,
    /// The IDs of the loaded programs, by name.
    program_ids: HashMap<&'static str, u32>,
}

impl Kernel {
    /// Loads the programs and creates their rings.
    ///
    /// # Errors
    ///
    /// [`KernelError::Permission`] if capabilities are missing, [`KernelError::Abi`] if the object has another version of
    /// the ABI, and another [`KernelError`] otherwise.
    pub fn load(
        options: &LoadOptions,
        settings: &FilterSettings,
    ) -> Result<(Self, EventRings), KernelError> {
        preflight::check()?;
        check_abi(OBJECT)?;
        preflight::raise_memlock_limit();
        cgroup::check_memory(options)?;

        let layout = cpus::RingLayout::for_this_host(options.ring_memory)?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("RINGS", layout.slots())
            .map_max_entries("REFRESH_EVENTS", memory::REFRESH_RING_BYTES)
            .map_max_entries("CLAIMS", options.addresses)
            .map_max_entries("REQUESTS", options.addresses)
            .map_max_entries("FILTER", filter::entries(options.filter_entries))
            .load(OBJECT)
            .map_err(KernelError::load)?;

        let slots: ArrayOfMaps<MapData> = take_map(&mut ebpf, "RINGS")?;
        let rings = EventRings::create(&layout, slots, take_map(&mut ebpf, "REFRESH_EVENTS")?)?;
        let counters: PerCpuArray<MapData, _> = take_map(&mut ebpf, "COUNTERS")?;
        let filter = take_map(&mut ebpf, "FILTER")?;
        let mut kernel = Self {
            settings_map: take_map(&mut ebpf, "SETTINGS")?,
            ebpf,
            counters: CounterReader::new(counters),
            filter: AddressFilter::new(filter, options.filter_entries),
            current_settings: *settings,
            filter_handle: None,
            program_ids: HashMap::new(),
        };
        kernel.set_filter_settings(settings)?;
        Ok((kernel, rings))
    }

    /// Replaces the filter settings; the programs use them from their next frame on.
    pub fn set_filter_settings(&mut self, settings: &FilterSettings) -> Result<(), KernelError> {
        let bytes: [u8; size_of::<FilterSettings>()] = bytemuck::cast(*settings);
        self.settings_map
            .set(0, bytes, 0)
            .map_err(|source| KernelError::Map {
                name: "SETTINGS",
                source,
            })?;
        self.current_settings = *settings;
        Ok(())
    }

    /// Replaces the watch filter: only addresses of `networks` are watched, or all if there are none. During the change,
    /// addresses in both the old and the new networks are always watched.
    ///
    /// # Errors
    ///
    /// [`KernelError::FilterTooLarge`] if there are more than [`LoadOptions::filter_entries`]; nothing changes then.
    pub fn set_watch_filter(&mut self, networks: &[Ipv4Net]) -> Result<(), KernelError> {
        let settings = FilterSettings {
            filter: u64::from(!networks.is_empty()),
            ..self.current_settings
        };
        if networks.is_empty() {
            self.set_filter_settings(&settings)?;
            self.filter.replace(networks)
        } else {
            self.filter.replace(networks)?;
            self.set_filter_settings(&settings)
        }
    }

    /// Returns a reader of the counters, which can be used in any thread.
    pub fn counters(&self) -> CounterReader {
        self.counters.clone()
    }

    /// Returns the task that forwards log messages of the programs to the log; `None` if they cannot be read. The task
    /// ends when the programs are unloaded.
    pub fn forward_log(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        match aya_log::EbpfLogger::init(&mut self.ebpf) {
            Ok(logger) => Some(forward_log(logger)),
            Err(error) => {
                tracing::warn!(%error, "cannot read the log of the BPF programs");
                None
            }
        }
    }
}

async fn forward_log<T: log::Log>(logger: aya_log::EbpfLogger<T>) {
    // SAFETY: a logger has the descriptor of its ring, which never changes.
    let mut logger = match unsafe { readiness::readable_owner(logger) } {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "cannot read the log of the BPF programs");
            return;
        }
    };
    while let Ok(mut guard) = logger.readable_mut().await {
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}

fn take_map<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, KernelError> {
    let map = ebpf
        .take_map(name)
        .ok_or(KernelError::MissingMap { name })?;
    M::try_from(map).map_err(|source| KernelError::Map { name, source })
}

/// Returns an error if the object has another version of the ABI.
fn check_abi(object: &[u8]) -> Result<(), KernelError> {
    use object::{Object as _, ObjectSection as _};
    let found = object::File::parse(object)
        .ok()
        .and_then(|file| {
            file.section_by_name(ABI_SECTION)?
                .data()
                .ok()
                .map(<[u8]>::to_vec)
        })
        .and_then(|data| data.first_chunk().copied())
        .map(u32::from_le_bytes);
    if found == Some(ABI_VERSION) {
        Ok(())
    } else {
        Err(KernelError::Abi { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_object_has_this_version_of_the_abi() {
        check_abi(OBJECT).unwrap();
    }

    #[test]
    fn an_object_without_an_abi_version_is_rejected() {
        let error = check_abi(b"no object").unwrap_err();
        assert!(matches!(error, KernelError::Abi { found: None }), "{error}");
    }
}
