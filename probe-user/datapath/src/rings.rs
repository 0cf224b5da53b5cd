//! Creates the event rings and drains them.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use aya::maps::{ArrayOfMaps, Map, MapData, RingBuf};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use probe_common::event::ArpEvent;
use tokio::{
    io::unix::AsyncFd,
    time::{Sleep, sleep},
};

use super::{KernelError, cpus::RingLayout};
use crate::readiness;

const SLOTS_MAP: &str = "RINGS";

/// The maximum delay of refresh events, so that they are drained in batches: a wakeup for each of them would cost more than
/// its processing.
const REFRESH_DELAY: Duration = Duration::from_millis(100);

/// The event rings of the loaded programs.
pub struct EventRings {
    change_events: Vec<AsyncFd<RingBuf<MapData>>>,
    refresh_events: AsyncFd<RingBuf<MapData>>,
    /// While refresh events wait: the time until they are drained, unless change events come first.
    refresh_timer: Option<Pin<Box<Sleep>>>,
    /// Keeps the kernel's array of rings allocated.
    _slots: ArrayOfMaps<MapData>,
    undecodable: u64,
}

impl EventRings {
    /// Creates the rings for change events and stores each in the slots of its CPUs.
    pub(super) fn create(
        layout: &RingLayout,
        mut slots: ArrayOfMaps<MapData>,
        refresh_events: RingBuf<MapData>,
    ) -> Result<Self, KernelError> {
        let map_error = |source| KernelError::map(SLOTS_MAP, source);
        let ring_bytes = u32::try_from(layout.ring_bytes()).unwrap_or(u32::MAX);
        let mut change_events = Vec::with_capacity(layout.rings());
        for index in 0..layout.rings() {
            let ring =
                aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, ring_bytes, 0);
            let ring = MapData::create(ring, "RING", None).map_err(map_error)?;
            for (slot, _) in layout.assignments().filter(|&(_, ring)| ring == index) {
                slots.set(slot, &ring, 0).map_err(map_error)?;
            }
            let ring = RingBuf::try_from(Map::RingBuf(ring)).map_err(map_error)?;
            change_events.push(readable(ring)?);
        }
        Ok(Self {
            change_events,
            refresh_events: readable(refresh_events)?,
            refresh_timer: None,
            _slots: slots,
            undecodable: 0,
        })
    }

    /// Waits for change events that [`Self::drain`] has not read, or until refresh events have waited for their maximum
    /// delay.
    ///
    /// Cancel-safe: readiness is only cleared when the future completes.
    pub async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_readable(context)).await
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut is_ready = false;
        // Every ring is polled, so that each of them wakes the task.
        for ring in &mut self.change_events {
            is_ready |= take_readiness(ring, context)?;
        }
        if take_readiness(&mut self.refresh_events, context)? && self.refresh_timer.is_none() {
            self.refresh_timer = Some(Box::pin(sleep(REFRESH_DELAY)));
        }
        if let Some(refresh_timer) = &mut self.refresh_timer {
            is_ready |= refresh_timer.as_mut().poll(context).is_ready();
        }
        if is_ready {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Drains the rings, up to `max_per_ring` events each, and passes each event to `process`. Returns whether all rings
    /// were emptied.
    pub fn drain(&mut self, max_per_ring: usize, mut process: impl FnMut(ArpEvent)) -> bool {
        let mut emptied = true;
        for ring in self
            .change_events
            .iter_mut()
            .chain([&mut self.refresh_events])
        {
            let mut left = max_per_ring;
            while left > 0 {
                let Some(item) = ring.get_mut().next() else {
                    break;
                };
                match bytemuck::try_pod_read_unaligned(&item) {
                    Ok(event) => process(event),
                    Err(_) => self.undecodable += 1,
                }
                left -= 1;
            }
            emptied &= left > 0;
        }
        self.refresh_timer = None;
        emptied
    }

    /// The number of entries with a wrong size: 0 unless another program writes into the rings.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

/// Registers a ring to wait until it is readable.
fn readable(ring: RingBuf<MapData>) -> Result<AsyncFd<RingBuf<MapData>>, KernelError> {
    // SAFETY: a ring has the descriptor of its `MapData`, which never changes.
    unsafe { readiness::readable_owner(ring) }.map_err(KernelError::Poll)
}

/// Whether a ring has become readable; clears its readiness. This happens before the ring is drained, so later events wake
/// the task again.
fn take_readiness(
    ring: &mut AsyncFd<RingBuf<MapData>>,
    context: &mut Context<'_>,
) -> io::Result<bool> {
    match ring.poll_read_ready_mut(context) {
        Poll::Ready(guard) => {
            guard?.clear_ready();
            Ok(true)
        }
        Poll::Pending => Ok(false),
    }
}
