//! Merges the events of several rings in the order of their time stamps.
//!
//! The events of one ring are in order. An event gets its time stamp before it is committed, so after all rings have been
//! drained at a time T, all events with time stamps before T − [`WINDOW`] have been received.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use probe_common::event::ArpEvent;

/// The maximum time between the time stamp of an event and its commit for which order is guaranteed. The programs take
/// about 1 µs; an interrupt in between may take 100 µs.
pub const WINDOW: Duration = Duration::from_micros(200);

/// A buffer of events until no earlier event can be received.
#[derive(Default)]
pub struct ReorderBuffer {
    buffered: BinaryHeap<Reverse<BufferedEvent>>,
    arrivals: u64,
}

/// An event with its sort key. Events with equal time stamps stay in the order of arrival.
struct BufferedEvent {
    ktime_ns: u64,
    arrival: u64,
    event: ArpEvent,
}

impl BufferedEvent {
    fn sort_key(&self) -> (u64, u64) {
        (self.ktime_ns, self.arrival)
    }
}

impl PartialEq for BufferedEvent {
    fn eq(&self, other: &Self) -> bool {
        self.sort_key() == other.sort_key()
    }
}

impl Eq for BufferedEvent {}

impl PartialOrd for BufferedEvent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BufferedEvent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.sort_key().cmp(&other.sort_key())
    }
}

impl ReorderBuffer {
    /// Adds an event from a ring.
    pub fn push(&mut self, event: ArpEvent) {
        self.buffered.push(Reverse(BufferedEvent {
            ktime_ns: event.ktime_ns,
            arrival: self.arrivals,
            event,
        }));
        self.arrivals += 1;
    }

    /// Removes the next event in order; `None` if an earlier one may still be received. All rings were last drained at
    /// `drained_at_ns`.
    pub fn pop(&mut self, drained_at_ns: u64) -> Option<ArpEvent> {
        let horizon = drained_at_ns.saturating_sub(window_ns());
        if self.next_ktime_ns()? > horizon {
            return None;
        }
        self.buffered.pop().map(|Reverse(buffered)| buffered.event)
    }

    /// The time at which the rings must be drained so that the next event can be removed; `None` if the buffer is empty.
    pub fn next_drain_ns(&self) -> Option<u64> {
        Some(self.next_ktime_ns()?.saturating_add(window_ns()))
    }

    fn next_ktime_ns(&self) -> Option<u64> {
        self.buffered
            .peek()
            .map(|Reverse(buffered)| buffered.ktime_ns)
    }
}

fn window_ns() -> u64 {
    u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(ktime_ns: u64, ifindex: u32) -> ArpEvent {
        ArpEvent {
            ktime_ns,
            ifindex,
            ..ArpEvent::default()
        }
    }

    fn drain(buffer: &mut ReorderBuffer, at: u64) -> Vec<u64> {
        std::iter::from_fn(|| buffer.pop(at))
            .map(|event| event.ktime_ns)
            .collect()
    }

    #[test]
    fn no_event_is_removed_before_the_window_has_passed() {
        let mut buffer = ReorderBuffer::default();
        buffer.push(event(1_000_000, 1));
        assert_eq!(buffer.next_drain_ns(), Some(1_200_000));
        assert_eq!(drain(&mut buffer, 1_199_999), Vec::<u64>::new());
        assert_eq!(drain(&mut buffer, 1_200_000), [1_000_000]);
        assert_eq!(buffer.next_drain_ns(), None);
    }

    #[test]
    fn equal_time_stamps_keep_the_order_of_arrival() {
        let mut buffer = ReorderBuffer::default();
        for ifindex in 0..100 {
            buffer.push(event(5, ifindex));
        }
        let order: Vec<_> = std::iter::from_fn(|| buffer.pop(u64::MAX))
            .map(|event| event.ifindex)
            .collect();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    /// An event in a ring, which is visible from its commit on.
    #[derive(Clone, Copy, Debug)]
    struct RingEvent {
        ktime_ns: u64,
        commit_ns: u64,
        ring: u32,
    }

    /// Events of several CPUs within 5 ms. The programs of a CPU do not interrupt each other: a ring is in order by time
    /// stamp and by commit, which is at most [`WINDOW`] after the time stamp.
    fn rings() -> impl Strategy<Value = Vec<RingEvent>> {
        let ring = prop::collection::vec((0..5_000_000_u64, 0..=window_ns()), 0..30);
        prop::collection::vec(ring, 1..5).prop_map(|rings| {
            let mut events = Vec::new();
            for (ring, mut stamps) in (0..).zip(rings) {
                stamps.sort_unstable();
                let mut commit_ns = 0;
                for (ktime_ns, delay) in stamps {
                    commit_ns = (ktime_ns + delay).max(commit_ns);
                    events.push(RingEvent {
                        ktime_ns,
                        commit_ns,
                        ring,
                    });
                }
            }
            events
        })
    }

    proptest! {
        /// The detector gets the same sequence of events for any drain times and any order of rings.
        #[test]
        fn events_are_in_time_stamp_order_for_any_drain_times_and_any_order_of_rings(
            events in rings(),
            drains in prop::collection::vec((0..5_300_000_u64, any::<bool>()), 0..60),
        ) {
            let mut drains = drains;
            drains.sort_unstable();
            drains.push((6_000_000, false));
            let mut left = events.clone();
            let mut buffer = ReorderBuffer::default();
            let mut delivered = Vec::new();
            for (at, last_ring_first) in drains {
                let (mut committed, rest): (Vec<_>, Vec<_>) =
                    left.into_iter().partition(|event| event.commit_ns <= at);
                left = rest;
                if last_ring_first {
                    committed.sort_by_key(|event| Reverse(event.ring));
                }
                for found in committed {
                    buffer.push(event(found.ktime_ns, found.ring));
                }
                delivered.extend(drain(&mut buffer, at));
            }
            let mut expected: Vec<u64> = events.iter().map(|event| event.ktime_ns).collect();
            expected.sort_unstable();
            prop_assert_eq!(delivered, expected);
        }
    }
}
