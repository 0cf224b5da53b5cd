//! The rings: made here, drained here.

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

/// How long what is no news may wait, so that many are taken at a time: waking up for each of them would cost
/// more than all else that is done for it.
const FAIRNESS_DELAY: Duration = Duration::from_millis(100);

/// All rings of the loaded programs.
pub struct EventRings {
    change_events: Vec<AsyncFd<RingBuf<MapData>>>,
    refresh_events: AsyncFd<RingBuf<MapData>>,
    /// While there are refreshes: until they are to be taken, unless news come first.
    wait_timer: Option<Pin<Box<Sleep>>>,
    /// Keeps the kernel's array of rings alive and filled.
    _slots: ArrayOfMaps<MapData>,
    undecodable: u64,
}

impl EventRings {
    /// Makes the rings of `layout` for news and puts each into the slots of its CPUs.
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
            wait_timer: None,
            _slots: slots,
            undecodable: 0,
        })
    }

    /// Waits until there are news that [`Self::drain`] has not seen, or refreshes that have waited long enough.
    ///
    /// Safe to drop at any point: readiness is only consumed together with its return.
    pub async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_readable(context)).await
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut any = false;
        // Every ring is polled, so that each of them will wake the task.
        for ring in &mut self.change_events {
            any |= take_readiness(ring, context)?;
        }
        if take_readiness(&mut self.refresh_events, context)? && self.wait_timer.is_none() {
            self.wait_timer = Some(Box::pin(sleep(FAIRNESS_DELAY)));
        }
        if let Some(wait_timer) = &mut self.wait_timer {
            any |= wait_timer.as_mut().poll(context).is_ready();
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
        for ring in self
            .change_events
            .iter_mut()
            .chain([&mut self.refresh_events])
        {
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
        self.wait_timer = None;
        emptied
    }

    /// Entries of a wrong size: always 0 unless something else writes into the rings.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

/// Registers a ring, to wait until it is readable.
fn readable(ring: RingBuf<MapData>) -> Result<AsyncFd<RingBuf<MapData>>, KernelError> {
    // SAFETY: a ring has the descriptor of its `MapData`, which never changes.
    unsafe { readiness::readable_owner(ring) }.map_err(KernelError::Poll)
}

/// Whether a ring has become readable. It is cleared before it is drained: what comes later wakes again.
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
