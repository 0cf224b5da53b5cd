//! How long hosts have contested an address: once is normal during a rollout of speakers, repeated contests are not.

use std::{collections::HashMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use probe_common::wire::Vlan;
use probe_model::FindingRecord;

/// Contests up to this far apart count as one: detection reports each episode once.
const MAX_GAP: SignedDuration = SignedDuration::from_mins(15);
/// A contest of this length persists, and gets a cause.
const PERSISTS_AFTER: SignedDuration = SignedDuration::from_mins(9);
/// Maximum number of remembered addresses.
const MAX_ADDRESSES: usize = 4_096;

/// The classification of how long an address has been contested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContestDuration {
    /// No longer than a rollout takes.
    Brief,
    /// For longer, or repeatedly.
    Persistent,
}

/// The recently contested addresses.
#[derive(Debug, Default)]
pub struct ContestHistory {
    by_address: HashMap<(String, Vlan, IpAddr), ContestSpan>,
}

#[derive(Clone, Copy, Debug)]
struct ContestSpan {
    first: Timestamp,
    last: Timestamp,
}

impl ContestHistory {
    /// Records that an address is contested, and returns for how long it has been.
    pub fn record(&mut self, finding: &FindingRecord) -> ContestDuration {
        let now = finding.time;
        let is_recent = |span: &ContestSpan| now.duration_since(span.last) <= MAX_GAP;
        let address = (finding.interface.clone(), finding.vlan, finding.ip);
        if self.by_address.len() >= MAX_ADDRESSES && !self.by_address.contains_key(&address) {
            self.by_address.retain(|_, span| is_recent(span));
            if self.by_address.len() >= MAX_ADDRESSES {
                return ContestDuration::Brief;
            }
        }
        let new = ContestSpan {
            first: now,
            last: now,
        };
        let span = self.by_address.entry(address).or_insert(new);
        if !is_recent(span) {
            *span = new;
        }
        span.last = span.last.max(now);
        if now.duration_since(span.first) >= PERSISTS_AFTER {
            ContestDuration::Persistent
        } else {
            ContestDuration::Brief
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, contested};

    #[test]
    fn contests_within_a_rollout_are_brief_and_those_that_go_on_persist() {
        let mut history = ContestHistory::default();
        let mut record = |time, ip| history.record(&contested(ip, at(time)));
        for (time, expected) in [
            ("12:00:00", ContestDuration::Brief),
            ("12:03:00", ContestDuration::Brief),
            ("12:10:00", ContestDuration::Persistent),
            ("12:20:00", ContestDuration::Persistent),
            ("12:36:00", ContestDuration::Brief),
            ("12:46:00", ContestDuration::Persistent),
        ] {
            assert_eq!(record(time, "192.0.2.1"), expected, "{time}");
        }
        assert_eq!(record("12:46:00", "192.0.2.2"), ContestDuration::Brief);
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let mut history = ContestHistory::default();
        for number in 0..MAX_ADDRESSES + 10 {
            let ip = format!("10.0.{}.{}", number / 256, number % 256);
            history.record(&contested(&ip, at("12:00:00")));
        }
        assert_eq!(history.by_address.len(), MAX_ADDRESSES);
        history.record(&contested("192.0.2.1", at("13:00:00")));
        assert_eq!(history.by_address.len(), 1, "other entries have expired");
    }
}
