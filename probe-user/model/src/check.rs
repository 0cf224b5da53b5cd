//! What a check found out about one address, with the names and times that the world outside knows.

use std::{borrow::Cow, net::Ipv4Addr};

use jiff::Timestamp;
use probe_common::{
    label_enum,
    wire::{MacAddr, Vlan},
};
use serde::{Deserialize, Serialize};

use crate::{AddressContext, Hint};

label_enum! {
    /// What is known of an address after it was checked.
    pub enum CheckVerdict {
        /// Exactly one machine has it.
        OneOwner = "one_owner",
        /// Two machines or more have it at once.
        Conflict = "conflict",
        /// It passed from one machine to another while it was watched.
        Moved = "moved",
        /// Nobody answers for it.
        NoReply = "nobody",
        /// It could not be asked about, or not to the end.
        NotProbed = "not_probed",
    }
}

/// One address that was checked: a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// When the verdict was reached.
    pub time: Timestamp,
    /// Which address.
    pub ip: Ipv4Addr,
    /// On which interface.
    pub interface: String,
    /// In which VLAN, by tags of this program's own: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// What is known.
    pub verdict: CheckVerdict,
    /// How often it was asked about.
    pub asked: u32,
    /// Whether it was not asked about because somebody asked by ARP probe whether it is free, as a booting machine
    /// does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub probed: bool,
    /// Who has it: those who answered first, of these the one heard last first.
    pub owners: Vec<CheckOwnerRecord>,
    /// Frames of stations beyond those that were told apart.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u32,
    /// What may be the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// Whom this host believes to have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<NeighbourRecord>,
    /// Whether that is what was expected; only if something was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<bool>,
    /// Whose address it is, where a cluster was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<AddressContext>>,
}

/// One machine that has to do with an address that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOwnerRecord {
    /// Its MACs, the one heard last first.
    pub macs: Vec<MacAddr>,
    /// The registered maker of the first MAC that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'static, str>>,
    /// The node of the cluster that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether it is the host that checks.
    pub local: bool,
    /// Whether it is, and holds the address.
    pub holds: bool,
    /// How many questions it answered.
    pub answered: u32,
    /// How many answers it sent.
    pub answers: u32,
    /// Its announcements, and its answers to everybody.
    pub announcements: u32,
    /// Its own questions in which it named the address as its own.
    pub requests: u32,
    /// When it was first heard; the host that checks does not hear itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
    /// When it was last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// How long the quickest answer took, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rtt_us: Option<u64>,
    /// How long the slowest answer took, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rtt_us: Option<u64>,
}

/// An entry of this host's neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourRecord {
    /// Whom packets go to.
    pub mac: MacAddr,
    /// Whether that is one of those who have the address.
    pub agrees: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde wants"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde wants"
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

    /// A record of every verdict, with every field and every word that it can have.
    fn every_record() -> Vec<CheckRecord> {
        let number = CheckVerdict::ALL.len().max(Hint::ALL.len());
        (0..number)
            .map(|number| {
                let at: Timestamp = "2026-11-20T02:13:07.5Z".parse().unwrap();
                let owner = |local| CheckOwnerRecord {
                    macs: vec![MacAddr([0, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 1])],
                    vendor: vendor(MacAddr([0, 0, 0, 0, 0, 1])),
                    node: Some("node-1".to_owned()),
                    local,
                    holds: local,
                    answered: 3,
                    answers: 4,
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
                    verdict: CheckVerdict::ALL[number % CheckVerdict::COUNT],
                    asked: 3,
                    probed: number % 2 == 0,
                    owners: vec![owner(false), owner(true)],
                    more: u32::from(number % 2 == 0),
                    hint: (number > 0).then(|| Hint::ALL[number % Hint::COUNT]),
                    neighbour: (number > 0).then_some(NeighbourRecord {
                        mac: MacAddr([2, 0, 0, 0, 0, 1]),
                        agrees: true,
                    }),
                    expected: (number > 0).then_some(number > 1),
                    cluster: (number > 0).then(|| Box::new(context(number))),
                }
            })
            .collect()
    }

    fn written() -> Vec<Value> {
        let records = every_record().into_iter();
        records
            .map(|record| serde_json::to_value(record).unwrap())
            .collect()
    }

    #[test]
    fn what_is_written_is_what_the_schema_says_and_reads_back() {
        Schema::new(SCHEMA).assert_valid(&written());
        for record in every_record() {
            let read: CheckRecord = serde_json::from_str(&to_json(&record)).unwrap();
            assert_eq!(read, record);
        }
    }

    #[test]
    fn the_schema_describes_every_field_and_word_and_no_other() {
        let (schema, written) = (Schema::new(SCHEMA), written());
        assert_eq!(schema.fields("/properties"), fields(&written));
        assert_eq!(
            schema.fields("/$defs/owner/properties"),
            fields(written.iter().map(|line| &line["owners"][0]))
        );
        assert_eq!(
            schema.fields("/properties/neighbour/properties"),
            fields(written.iter().map(|line| &line["neighbour"]))
        );
        assert_eq!(
            schema.fields("/$defs/cluster/properties"),
            fields(written.iter().map(|line| &line["cluster"]))
        );
        assert_eq!(
            schema.words("/properties/verdict/enum"),
            CheckVerdict::LABELS
        );
        assert_eq!(schema.words("/properties/hint/enum"), Hint::LABELS);
    }
}
