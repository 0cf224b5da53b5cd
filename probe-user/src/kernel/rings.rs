//! The rings: made here, drained here.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use aya::maps::{ArrayOfMaps, Map, MapData, RingBuf};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use probe_common::event::ArpEvent;
use tokio::io::unix::AsyncFd;

use super::{KernelError, cpus::RingLayout};
use crate::poll;

const SLOTS_MAP: &str = "RINGS";

/// All rings of the loaded programs.
pub struct Rings {
    buffers: Vec<AsyncFd<RingBuf<MapData>>>,
    /// Keeps the kernel's array of rings alive and filled.
    _slots: ArrayOfMaps<MapData>,
    undecodable: u64,
}

impl Rings {
    /// Makes the rings of `layout` and puts each into the slots of its CPUs.
    pub(super) fn create(
        layout: &RingLayout,
        mut slots: ArrayOfMaps<MapData>,
    ) -> Result<Self, KernelError> {
        let map_error = |source| KernelError::Map {
            name: SLOTS_MAP,
            source,
        };
        let ring_bytes = u32::try_from(layout.ring_bytes()).unwrap_or(u32::MAX);
        let mut buffers = Vec::with_capacity(layout.rings());
        for index in 0..layout.rings() {
            let ring =
                aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, ring_bytes, 0);
            let ring = MapData::create(ring, "RING", None).map_err(map_error)?;
            for (slot, _) in layout.assignments().filter(|&(_, ring)| ring == index) {
                slots.set(slot, &ring, 0).map_err(map_error)?;
            }
            let ring = RingBuf::try_from(Map::RingBuf(ring)).map_err(map_error)?;
            buffers.push(poll::readable(ring).map_err(KernelError::Poll)?);
        }
        Ok(Self {
            buffers,
            _slots: slots,
            undecodable: 0,
        })
    }

    /// Waits until a ring has something that [`Self::drain`] has not seen.
    ///
    /// Safe to drop at any point: readiness is only consumed together with its return.
    pub async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_readable(context)).await
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut any = false;
        for ring in &mut self.buffers {
            // Every ring is polled, so that each of them will wake the task, and the ready ones are
            // cleared before they are drained: what comes later wakes again.
            if let Poll::Ready(guard) = ring.poll_read_ready_mut(context) {
                guard?.clear_ready();
                any = true;
            }
        }
        if any {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Takes what is in the rings, up to `most` events of each, and hands it to `take`. Returns whether
    /// all rings were emptied.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(ArpEvent)) -> bool {
        let mut emptied = true;
        for ring in &mut self.buffers {
            let mut left = most;
            while left > 0 {
                let Some(item) = ring.get_mut().next() else {
                    break;
                };
                match bytemuck::try_pod_read_unaligned(&item) {
                    Ok(event) => take(event),
                    Err(_) => self.undecodable += 1,
                }
                left -= 1;
            }
            emptied &= left > 0;
        }
        emptied
    }

    /// Entries of a wrong size: always 0 unless something else writes into the rings.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }
}
