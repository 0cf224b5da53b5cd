//! Puts the events of several rings into the order in which the frames were seen.
//!
//! Each ring is in order by itself. An event is stamped before it is committed, so after all rings have
//! been drained at a time T, whatever was stamped before T − [`WINDOW`] is here: nothing earlier can
//! come any more.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use probe_common::event::ArpEvent;

/// The longest time from an event's time stamp to its commit that is waited for. The programs take
/// about a microsecond; an interrupt between the two may take a hundred.
pub const WINDOW: Duration = Duration::from_micros(200);

/// Events that wait until nothing earlier can come.
#[derive(Default)]
pub struct ReorderBuffer {
    waiting: BinaryHeap<Reverse<BufferedEvent>>,
    arrivals: u64,
}

/// An event with its place. Equal time stamps keep the order of arrival.
struct BufferedEvent {
    ktime_ns: u64,
    arrival: u64,
    event: ArpEvent,
}

impl BufferedEvent {
    fn place(&self) -> (u64, u64) {
        (self.ktime_ns, self.arrival)
    }
}

impl PartialEq for BufferedEvent {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
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
        self.place().cmp(&other.place())
    }
}

impl ReorderBuffer {
    /// Takes an event from a ring.
    pub fn push(&mut self, event: ArpEvent) {
        self.waiting.push(Reverse(BufferedEvent {
            ktime_ns: event.ktime_ns,
            arrival: self.arrivals,
            event,
        }));
        self.arrivals += 1;
    }

    /// The next event in order, if all rings have been drained at `drained_at_ns` and nothing earlier
    /// can come.
    pub fn pop(&mut self, drained_at_ns: u64) -> Option<ArpEvent> {
        let horizon = drained_at_ns.saturating_sub(window_ns());
        if self.next_ktime_ns()? > horizon {
            return None;
        }
        self.waiting.pop().map(|Reverse(waiting)| waiting.event)
    }

    /// When the rings have to be drained again so that the next event can leave; `None` if none waits.
    pub fn next_drain_ns(&self) -> Option<u64> {
        Some(self.next_ktime_ns()?.saturating_add(window_ns()))
    }

    fn next_ktime_ns(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.ktime_ns)
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

    fn drain(order: &mut ReorderBuffer, at: u64) -> Vec<u64> {
        std::iter::from_fn(|| order.pop(at))
            .map(|event| event.ktime_ns)
            .collect()
    }

    #[test]
    fn nothing_leaves_before_the_window_has_passed() {
        let mut order = ReorderBuffer::default();
        order.push(event(1_000_000, 1));
        assert_eq!(order.next_drain_ns(), Some(1_200_000));
        assert_eq!(drain(&mut order, 1_199_999), Vec::<u64>::new());
        assert_eq!(drain(&mut order, 1_200_000), [1_000_000]);
        assert_eq!(order.next_drain_ns(), None);
    }

    #[test]
    fn equal_time_stamps_keep_the_order_of_arrival() {
        let mut order = ReorderBuffer::default();
        for ifindex in 0..100 {
            order.push(event(5, ifindex));
        }
        let order: Vec<_> = std::iter::from_fn(|| order.pop(u64::MAX))
            .map(|event| event.ifindex)
            .collect();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    /// An event in a ring: stamped, and visible from its commit on.
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
        /// Detection gets the same sequence of events whenever the rings are drained and whichever is drained first.
        #[test]
        fn drains_at_any_time_in_any_order_of_rings_give_the_events_in_the_order_of_their_time_stamps(
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
