//! What a load balancer on this very host announces. No question of this host's finds that out: whoever answers from
//! user space does not hear what his own host sends.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};
use probe_common::wire::MacAddr;
use probe_model::BindingRecord;

/// An announcement that was heard this long ago is believed: every address is asked for more often by some node…
const CLAIM_VALIDITY: SignedDuration = SignedDuration::from_mins(30);
/// …but not while somebody else has the address as well: whoever gave way is heard no more.
const CLAIM_VALIDITY_IN_CONFLICT: SignedDuration = SignedDuration::from_mins(1);

/// The speaker on this host, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct LocalAnnouncements {
    /// Whether this host is a node of the cluster: no other has one.
    is_node: bool,
    /// What the daemon heard this host announce or answer for lately, and with which MAC.
    announces: HashMap<IpAddr, MacAddr>,
    /// What is another host's, or nobody's, as the daemon knows.
    remote: HashSet<IpAddr>,
}

impl LocalAnnouncements {
    /// On this host, which is a node of the cluster or not, by what its daemon knows.
    pub fn new(is_node: bool, bindings: &[BindingRecord], now: Timestamp) -> Self {
        let mut speaker = Self {
            is_node,
            ..Self::default()
        };
        for binding in bindings {
            let Some(owner) = binding.owners.iter().find(|owner| owner.local) else {
                let is_known = !binding.owners.is_empty() || binding.silent_since.is_some();
                speaker.remote.extend(is_known.then_some(binding.ip));
                continue;
            };
            // Of a settled address only the first has it now.
            let has_it = binding.conflict.is_some()
                || binding.owners.first().is_some_and(|first| first.local);
            let holds = match binding.conflict {
                Some(_) => CLAIM_VALIDITY_IN_CONFLICT,
                None => CLAIM_VALIDITY,
            };
            let is_fresh = now.duration_since(owner.last_seen) <= holds;
            if has_it && is_fresh && binding.silent_since.is_none() {
                let macs = owner.macs.first().map(|&mac| (binding.ip, mac));
                speaker.announces.extend(macs);
            } else if !has_it {
                speaker.remote.insert(binding.ip);
            }
        }
        speaker
    }

    /// The MAC with which this host was heard to announce the address lately.
    pub fn announces(&self, ip: IpAddr) -> Option<MacAddr> {
        self.announces.get(&ip).copied()
    }

    /// Whether this host may announce the address of a service, and nothing is known that says so or not: then nobody's
    /// answer means nothing here. The cluster's status is no help: it may name the node before.
    pub fn may_announce(&self, ip: IpAddr) -> bool {
        self.is_node && !self.announces.contains_key(&ip) && !self.remote.contains(&ip)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::at;

    const IP: &str = "192.0.2.240";

    fn binding(owners: &[(bool, &str)], more: &Value) -> BindingRecord {
        let owners = owners.iter().enumerate().map(|(number, (local, seen))| {
            json!({"macs": [format!("02:00:00:00:00:0{number}")], "role": "current", "local": local,
                "first_seen": at("10:00:00"), "last_seen": at(seen), "claims": 1})
        });
        let mut binding = json!({"interface": "eth0", "vlan": "0", "ip": IP, "tracked": true,
            "ignored": false, "owners": owners.collect::<Vec<_>>()});
        let more = more.as_object().unwrap().clone();
        binding.as_object_mut().unwrap().extend(more);
        serde_json::from_value(binding).unwrap()
    }

    #[test]
    fn what_this_host_announces_is_what_its_daemon_heard_lately() {
        let conflict = json!({"conflict": {"evidence": "duplicate_reply", "since": at("11:00:00"),
            "last_evidence": at("11:59:00"), "quiet": false,
            "counts": {"duplicate_replies": 1, "returns": 0, "local": 0, "confirmed": 0, "suppressed": 0}}});
        let silent = json!({"silent_since": at("11:50:00")});
        for (what, bindings, announces, may) in [
            ("no daemon", vec![], false, true),
            ("not heard of", vec![binding(&[], &json!({}))], false, true),
            (
                "ours",
                vec![binding(&[(true, "11:59:00")], &json!({}))],
                true,
                false,
            ),
            (
                "ours, long ago",
                vec![binding(&[(true, "11:00:00")], &json!({}))],
                false,
                true,
            ),
            (
                "another's",
                vec![binding(&[(false, "11:00:00")], &json!({}))],
                false,
                false,
            ),
            (
                "ours before",
                vec![binding(
                    &[(false, "11:59:00"), (true, "11:58:00")],
                    &json!({}),
                )],
                false,
                false,
            ),
            (
                "disputed",
                vec![binding(
                    &[(false, "11:59:00"), (true, "11:59:30")],
                    &conflict,
                )],
                true,
                false,
            ),
            ("silent", vec![binding(&[], &silent)], false, false),
        ] {
            let speaker = LocalAnnouncements::new(true, &bindings, at("12:00:00"));
            let ip = IP.parse().unwrap();
            assert_eq!(speaker.announces(ip).is_some(), announces, "{what}");
            assert_eq!(speaker.may_announce(ip), may, "{what}");
        }
    }

    #[test]
    fn who_is_no_node_announces_nothing() {
        let speaker = LocalAnnouncements::new(false, &[], at("12:00:00"));
        assert!(!speaker.may_announce(IP.parse().unwrap()));
    }
}
