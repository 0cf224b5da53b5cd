//! Statistics of the monitor for the metrics, in addition to those of detection.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use probe_common::{label_enum, wire::Vlan};
use probe_model::{FindingKind, Timestamp};

/// Maximum number of addresses with counts of their own: tracked addresses with at least one finding.
const MAX_ADDRESSES: usize = 65_536;

label_enum! {
    /// The findings that are counted per tracked address, with the labels of their kinds.
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

/// The number of findings of each [`CountedKind`].
pub type AddressCounts = [u64; CountedKind::COUNT];

/// Findings by tracked address. The key is the name of the interface, not its index: a recreated interface has another
/// index, and its counters must not restart at zero.
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
        let counts = tallies.entry((vlan, ip)).or_default();
        counts[usize::from(counted.number())] += 1;
    }

    /// The counts of an address.
    pub fn for_address(&self, interface: &str, vlan: Vlan, ip: IpAddr) -> AddressCounts {
        if self.addresses == 0 {
            return AddressCounts::default();
        }
        let tallies = self.counts.get(interface);
        let counts = tallies.and_then(|tallies| tallies.get(&(vlan, ip)));
        counts.copied().unwrap_or_default()
    }
}

/// A histogram of the detection latency: from the kernel's time stamp of an event to its evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectionLatency {
    buckets: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
}

impl DetectionLatency {
    /// The upper bounds of the buckets. Events wait at least the 200 µs of the reorder window.
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
    pub fn record(&mut self, stamped: Timestamp, evaluated: Timestamp) {
        let delay = evaluated.since(stamped);
        let bucket = Self::BOUNDS.partition_point(|&bound| bound < delay);
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(delay);
    }

    /// The cumulative counts by bound, with the total at the end.
    pub fn cumulative(&self) -> [u64; Self::BOUNDS.len() + 1] {
        let mut sum = 0;
        self.buckets.map(|count| {
            sum += count;
            sum
        })
    }

    /// The sum of all latencies.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_is_counted_in_its_bucket_and_all_larger_buckets() {
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
    fn equal_timestamps_are_a_delay_of_zero() {
        let mut delays = DetectionLatency::default();
        delays.record(Timestamp(9), Timestamp(5));
        assert_eq!((delays.cumulative()[0], delays.sum()), (1, Duration::ZERO));
    }

    #[test]
    fn findings_are_counted_by_interface_name() {
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
