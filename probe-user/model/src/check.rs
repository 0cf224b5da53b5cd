//! The result of checking one address, as `probe check -o json` writes it.

use std::{borrow::Cow, net::Ipv4Addr};

use jiff::Timestamp;
use probe_common::{
    label_enum,
    wire::{MacAddr, Vlan},
};
use serde::{Deserialize, Serialize};

use crate::{AddressContext, Hint};

label_enum! {
    /// The result of a check of one address.
    pub enum CheckStatus {
        /// Exactly one host owns it.
        OneOwner = "one_owner",
        /// Two hosts or more own it at once.
        Conflict = "conflict",
        /// Two hosts reply with the MACs of one virtual router: two masters, or a master and a host.
        Contested = "contested",
        /// It moved from one host to another while it was watched.
        Moved = "moved",
        /// No host replied for it.
        NoReply = "no_reply",
        /// It was not probed, or not completely.
        NotProbed = "not_probed",
    }
}

/// The result of checking one address: a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// When the check ended.
    pub time: Timestamp,
    /// The address.
    pub ip: Ipv4Addr,
    /// The interface that it was probed on.
    pub interface: String,
    /// The VLAN, by tags that this program adds: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// The result of the check.
    pub status: CheckStatus,
    /// How many frames were sent for it, of either form.
    pub probes_sent: u32,
    /// Of these, how many were ARP requests with an address of this host as sender; the others were ARP probes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests_sent: u32,
    /// The host that sent ARP probes for it, as a booting host does: the check waited for that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_by: Option<MacAddr>,
    /// The owners, the one observed last first, and behind them hosts that only claimed it.
    pub owners: Vec<CheckOwnerRecord>,
    /// Frames of MACs beyond those that are recorded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub frames_dropped: u32,
    /// The likely cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// The entry of this host's neighbour table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbor: Option<NeighborRecord>,
    /// Whether the result is as expected; absent without an expectation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<bool>,
    /// The service and pool of the address, with `--kubernetes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<AddressContext>>,
}

/// One host that owns or claims a checked address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOwnerRecord {
    /// Its MACs, the one observed last first.
    pub macs: Vec<MacAddr>,
    /// The vendor of the first MAC that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'static, str>>,
    /// Its node of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether it is the checking host.
    pub local: bool,
    /// Whether it is the checking host and has the address, which its own probes do not show.
    pub holds: bool,
    /// Whether it has the address by a speaker (MetalLB, kube-vip) and not on an interface, as its daemon observed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub speaker: bool,
    /// How many probes it replied to.
    pub probes_answered: u32,
    /// How many replies it sent to them.
    pub replies: u32,
    /// Of the probes that it replied to, how many were ARP requests with a sender address.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests_answered: u32,
    /// Replies to other hosts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replies_to_others: u32,
    /// Its announcements (gratuitous ARP).
    pub announcements: u32,
    /// Its own requests with the address as sender.
    pub requests: u32,
    /// Ethernet sources of its frames other than its MACs: the hosts that really sent them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<MacAddr>,
    /// When it was first observed; absent for the checking host, which does not receive its own frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
    /// When it was last observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The time of the fastest reply, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rtt_us: Option<u64>,
    /// The time of the slowest reply, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rtt_us: Option<u64>,
}

impl CheckOwnerRecord {
    /// Whether it owns the address: it replied for it, to anyone, or is this host and has it.
    pub const fn is_owner(&self) -> bool {
        self.holds || self.replies > 0 || self.replies_to_others > 0
    }
}

/// An entry of this host's neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborRecord {
    /// The MAC that packets are sent to.
    pub mac: MacAddr,
    /// Whether it is a MAC of an owner.
    pub agrees: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde requires"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde requires"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{
        super::{
            schema::{Schema, fields},
            to_json,
        },
        *,
    };
    use crate::{AnnouncementMode, NamespacedName, vendor::vendor};

    const SCHEMA: &str = include_str!("../../../docs/check.schema.json");

    fn context(number: usize) -> AddressContext {
        let announced = [
            AnnouncementMode::Layer2,
            AnnouncementMode::Bgp,
            AnnouncementMode::NotAnnounced,
            AnnouncementMode::Unknown,
        ];
        let named = |namespace: &str, name: &str| NamespacedName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        AddressContext {
            services: vec![named("shop", "frontend")],
            pool: Some(named("metallb-system", "production")),
            announced: announced[number % announced.len()],
            announcers: vec!["node-1".to_owned()],
            cause: None,
        }
    }

    /// Records that together have every status, field and label.
    fn every_record() -> Vec<CheckRecord> {
        let number = CheckStatus::ALL.len().max(Hint::ALL.len());
        (0..number)
            .map(|number| {
                let at: Timestamp = "2026-11-20T02:13:07.5Z".parse().unwrap();
                let owner = |local| CheckOwnerRecord {
                    macs: vec![MacAddr([0, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 1])],
                    vendor: vendor(MacAddr([0, 0, 0, 0, 0, 1])),
                    node: Some("node-1".to_owned()),
                    local,
                    holds: local,
                    speaker: local && number % 2 == 0,
                    probes_answered: 3,
                    replies: 4,
                    requests_answered: u32::from(!local),
                    replies_to_others: u32::from(!local),
                    sources: vec![MacAddr([2, 0, 0, 0, 0, 2])],
                    announcements: 1,
                    requests: 2,
                    first_seen: (!local).then_some(at),
                    last_seen: (!local).then_some(at),
                    min_rtt_us: (!local).then_some(120),
                    max_rtt_us: (!local).then_some(300),
                };
                CheckRecord {
                    time: at,
                    ip: Ipv4Addr::new(192, 0, 2, 10),
                    interface: "eth0".to_owned(),
                    vlan: Vlan([100, 0]),
                    status: CheckStatus::ALL[number % CheckStatus::COUNT],
                    probes_sent: 3,
                    requests_sent: u32::from(number % 2 == 0),
                    probed_by: (number % 2 == 0).then_some(MacAddr([2, 0, 0, 0, 0, 3])),
                    owners: vec![owner(false), owner(true)],
                    frames_dropped: u32::from(number % 2 == 0),
                    hint: (number > 0).then(|| Hint::ALL[number % Hint::COUNT]),
                    neighbor: (number > 0).then_some(NeighborRecord {
                        mac: MacAddr([2, 0, 0, 0, 0, 1]),
                        agrees: true,
                    }),
                    expected: (number > 0).then_some(number > 1),
                    cluster: (number > 0).then(|| Box::new(context(number))),
                }
            })
            .collect()
    }

    fn json_values() -> Vec<Value> {
        let records = every_record().into_iter();
        records
            .map(|record| serde_json::to_value(record).unwrap())
            .collect()
    }

    #[test]
    fn records_are_valid_by_the_schema_and_deserialize() {
        Schema::new(SCHEMA).assert_valid(&json_values());
        for record in every_record() {
            let deserialized: CheckRecord = serde_json::from_str(&to_json(&record)).unwrap();
            assert_eq!(deserialized, record);
        }
    }

    #[test]
    fn the_schema_describes_exactly_the_fields_and_labels() {
        let (schema, json) = (Schema::new(SCHEMA), json_values());
        assert_eq!(schema.fields("/properties"), fields(&json));
        assert_eq!(
            schema.fields("/$defs/owner/properties"),
            fields(
                json.iter()
                    .flat_map(|line| line["owners"].as_array().unwrap())
            )
        );
        assert_eq!(
            schema.fields("/properties/neighbor/properties"),
            fields(json.iter().map(|line| &line["neighbor"]))
        );
        assert_eq!(
            schema.fields("/$defs/cluster/properties"),
            fields(json.iter().map(|line| &line["cluster"]))
        );
        assert_eq!(
            schema.labels("/properties/status/enum"),
            CheckStatus::LABELS
        );
        assert_eq!(schema.labels("/properties/hint/enum"), Hint::LABELS);
    }
}
