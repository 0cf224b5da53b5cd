//! What a speaker (MetalLB, kube-vip) on this host announces, as the daemon on this host observed it. Probes of this host
//! do not show it: a speaker that replies from user space does not receive frames that its own host sends.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};
use probe_common::wire::MacAddr;
use probe_model::{BindingRecord, OwnerRecord};

/// The age up to which a claim by the speaker counts: hosts request every address more often.
const CLAIM_VALIDITY: SignedDuration = SignedDuration::from_mins(30);
/// The same, once another host has taken the address over without a conflict.
const CLAIM_VALIDITY_CONTESTED: SignedDuration = SignedDuration::from_mins(1);
/// A takeover by a host that was first observed this long ago may be an attack on the speaker's address; one by a host
/// that had the address before is a failback.
const NEW_OWNER_AGE: SignedDuration = SignedDuration::from_mins(2);
/// In a handover both hosts may claim the address for this long.
const HANDOVER_WINDOW: SignedDuration = SignedDuration::from_secs(1);

/// The addresses that the speaker on this host announces, as far as known.
#[derive(Clone, Debug, Default)]
pub struct LocalAnnouncements {
    /// Whether this host is a node of the cluster: other hosts have no speaker.
    is_node: bool,
    /// The addresses that this host was observed to announce or reply for, and the MAC.
    announces: HashMap<IpAddr, MacAddr>,
    /// The addresses that another host owns, or none, as the daemon observed.
    remote: HashSet<IpAddr>,
}

impl LocalAnnouncements {
    /// The announcements of this host, given whether it is a node of the cluster and the bindings of its daemon.
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
            if is_owner(owner, binding, now) {
                let mac = owner.macs.first().map(|&mac| (binding.ip, mac));
                speaker.announces.extend(mac);
            } else if binding.owners.first().is_some_and(|first| !first.local) {
                speaker.remote.insert(binding.ip);
            }
        }
        speaker
    }

    /// The MAC that this host announces the address with.
    pub fn announces(&self, ip: IpAddr) -> Option<MacAddr> {
        self.announces.get(&ip).copied()
    }

    /// Whether this host may announce the address of a service without the daemon knowing: no reply proves nothing
    /// then. The cluster's status does not help: it may name the previous node.
    pub fn may_announce(&self, ip: IpAddr) -> bool {
        self.is_node && !self.announces.contains_key(&ip) && !self.remote.contains(&ip)
    }
}

/// Whether this host, which takes part in a binding, owns the address now.
fn is_owner(local: &OwnerRecord, binding: &BindingRecord, now: Timestamp) -> bool {
    let is_within = |at, validity| now.duration_since(at) <= validity;
    if binding.silent_since.is_some() {
        return false;
    }
    if binding.conflict.is_some() {
        // It takes part until the daemon ends the conflict: that this host's probes get no reply proves nothing.
        return true;
    }
    match binding.owners.first() {
        Some(current) if !current.local => {
            let continues = local.last_seen.duration_since(current.first_seen) > HANDOVER_WINDOW;
            continues
                && is_within(current.first_seen, NEW_OWNER_AGE)
                && is_within(local.last_seen, CLAIM_VALIDITY_CONTESTED)
        }
        _ => is_within(local.last_seen, CLAIM_VALIDITY),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::at;

    const IP: &str = "192.0.2.240";

    fn binding(owners: &[(bool, &str)], more: &Value) -> BindingRecord {
        let owners = owners.iter().enumerate().map(|(number, (local, visited))| {
            json!({"macs": [format!("02:00:00:00:00:0{number}")], "role": "current", "local": local,
                "first_seen": at("10:00:00"), "last_seen": at(visited), "claims": 1})
        });
        let mut binding = json!({"interface": "eth0", "vlan": "0", "ip": IP, "tracked": true,
            "ignored": false, "owners": owners.collect::<Vec<_>>()});
        let more = more.as_object().unwrap().clone();
        binding.as_object_mut().unwrap().extend(more);
        serde_json::from_value(binding).unwrap()
    }

    /// A binding whose current owner was first observed at one time, and this host last at another.
    fn new_rival(rival_since: &str, local_last: &str) -> BindingRecord {
        let mut binding = binding(&[(false, "11:59:50"), (true, local_last)], &json!({}));
        binding.owners[0].first_seen = at(rival_since);
        binding
    }

    #[test]
    fn local_announcements_are_recent_egress_claims() {
        let conflict = json!({"conflict": {"evidence": "duplicate_reply", "since": at("11:00:00"),
            "last_evidence": at("11:59:00"), "quiet": false,
            "counts": {"duplicate_replies": 1, "returns": 0, "local": 0, "confirmed": 0, "suppressed": 0}}});
        let silent = json!({"silent_since": at("11:50:00")});
        for (what, bindings, announces, may) in [
            ("no daemon", vec![], false, true),
            ("no binding", vec![binding(&[], &json!({}))], false, true),
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
                "taken over by a new host, and this host continues",
                vec![new_rival("11:58:30", "11:59:30")],
                true,
                false,
            ),
            (
                "handed over to a new host",
                vec![new_rival("11:59:30", "11:59:30")],
                false,
                false,
            ),
            (
                "in conflict, and no request since",
                vec![binding(
                    &[(false, "11:59:00"), (true, "11:00:30")],
                    &conflict,
                )],
                true,
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
    fn agent_outside_the_cluster_has_no_local_announcements() {
        let speaker = LocalAnnouncements::new(false, &[], at("12:00:00"));
        assert!(!speaker.may_announce(IP.parse().unwrap()));
    }
}
