//! What the monitor counts for the metrics beside what detection counts itself.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use probe_common::{label_enum, wire::Vlan};
use probe_model::{FindingKind, Timestamp};

/// Addresses that are counted on their own. Only tracked ones are, and only once there was something to count.
const MAX_ADDRESSES: usize = 65_536;

label_enum! {
    /// The findings that are counted for each tracked address, under the labels of their kinds.
    pub enum CountedKind {
        /// [`FindingKind::Moved`].
        Moved = "moved",
        /// [`FindingKind::Contested`].
        Contested = "contested",
        /// [`FindingKind::Conflict`].
        Conflict = "conflict",
        /// [`FindingKind::StaleAnnouncement`].
        StaleAnnouncement = "stale_announcement",
    }
}

impl CountedKind {
    fn for_address(kind: FindingKind) -> Option<Self> {
        Self::from_label(kind.label())
    }
}

/// How often each of [`CountedKind`] was found.
pub type AddressCounts = [u64; CountedKind::COUNT];

/// Findings by tracked address. By the interface's name, not its index: an interface that is made anew has
/// another index, and no counter shall fall back to zero for that.
#[derive(Debug, Default)]
pub struct AddressStatistics {
    counts: HashMap<String, HashMap<(Vlan, IpAddr), AddressCounts>>,
    addresses: usize,
}

impl AddressStatistics {
    /// Counts a finding about a tracked address.
    pub fn count(&mut self, interface: &str, vlan: Vlan, ip: IpAddr, kind: FindingKind) {
        let Some(counted) = CountedKind::for_address(kind) else {
            return;
        };
        if !self.counts.contains_key(interface) {
            let interface = interface.to_owned();
            self.counts.insert(interface, HashMap::new());
        }
        let Some(tallies) = self.counts.get_mut(interface) else {
            return;
        };
        if !tallies.contains_key(&(vlan, ip)) {
            if self.addresses == MAX_ADDRESSES {
                return;
            }
            self.addresses += 1;
        }
        let tally = tallies.entry((vlan, ip)).or_default();
        tally[usize::from(counted.number())] += 1;
    }

    /// How often there was something about an address.
    pub fn for_address(&self, interface: &str, vlan: Vlan, ip: IpAddr) -> AddressCounts {
        if self.addresses == 0 {
            return AddressCounts::default();
        }
        let tallies = self.counts.get(interface);
        let tally = tallies.and_then(|tallies| tallies.get(&(vlan, ip)));
        tally.copied().unwrap_or_default()
    }
}

/// How long news took from the kernel's time stamp until they were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectionLatency {
    buckets: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
}

impl DetectionLatency {
    /// The upper bounds of the buckets. Events wait at least the 200 µs in which those of several CPUs are put
    /// in order.
    pub const BOUNDS: [Duration; 12] = [
        Duration::from_micros(250),
        Duration::from_micros(300),
        Duration::from_micros(400),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_secs(1),
    ];

    /// Counts an event.
    pub fn record(&mut self, stamped: Timestamp, judged: Timestamp) {
        let delay = judged.since(stamped);
        let bucket = Self::BOUNDS.partition_point(|&bound| bound < delay);
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(delay);
    }

    /// Events that took no longer than each of the bounds, and all of them at the end.
    pub fn cumulative(&self) -> [u64; Self::BOUNDS.len() + 1] {
        let mut sum = 0;
        self.buckets.map(|count| {
            sum += count;
            sum
        })
    }

    /// All delays together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_counted_in_every_bucket_from_its_own_on() {
        let mut delays = DetectionLatency::default();
        for micros in [1, 250, 251, 2_000_000] {
            let stamped = Timestamp(5);
            delays.record(stamped, stamped + Duration::from_micros(micros));
        }
        let cumulated = delays.cumulative();
        assert_eq!(cumulated[..3], [2, 3, 3]);
        assert_eq!(cumulated[DetectionLatency::BOUNDS.len() - 1..], [3, 4]);
        assert_eq!(delays.sum(), Duration::from_micros(2_000_502));
        assert!(DetectionLatency::BOUNDS.is_sorted());
    }

    #[test]
    fn a_clock_that_stands_still_is_no_delay() {
        let mut delays = DetectionLatency::default();
        delays.record(Timestamp(9), Timestamp(5));
        assert_eq!((delays.cumulative()[0], delays.sum()), (1, Duration::ZERO));
    }

    #[test]
    fn findings_of_an_address_are_counted_under_the_name_of_its_interface() {
        let mut tallies = AddressStatistics::default();
        let ip = "192.0.2.10".parse().unwrap();
        for kind in [
            FindingKind::Moved,
            FindingKind::Conflict,
            FindingKind::Conflict,
        ] {
            tallies.count("eth0", Vlan::UNTAGGED, ip, kind);
        }
        tallies.count("eth0", Vlan::UNTAGGED, ip, FindingKind::Silent);
        assert_eq!(
            tallies.for_address("eth0", Vlan::UNTAGGED, ip),
            [1, 0, 2, 0]
        );
        assert_eq!(tallies.for_address("eth1", Vlan::UNTAGGED, ip), [0; 4]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut tallies = AddressStatistics::default();
        for number in 0..=u32::try_from(MAX_ADDRESSES).unwrap() {
            let ip = IpAddr::V4(number.into());
            tallies.count("eth0", Vlan::UNTAGGED, ip, FindingKind::Moved);
        }
        assert_eq!(tallies.counts["eth0"].len(), MAX_ADDRESSES);
    }
}
