//! Compares the schema in the documentation with the JSON form of findings.

use probe_common::wire::{BogusFrameReason, MacAddr};
use serde_json::Value;

use super::{
    FindingRecord, OwnerRecord,
    schema::{Schema, fields},
    to_json,
};
use crate::{
    AddressContext, AnnouncementKind, AnnouncementMode, BogusReason, CauseKind, CauseScope, Clock,
    ClusterCause, Evidence, EvidenceCounts, Finding, FindingKind, Hint, NamespacedName, OwnerRole,
    OwnerView, Segment, Severity, Timestamp,
};

const SCHEMA: &str = include_str!("../../../docs/finding.schema.json");

fn json_values() -> Vec<Value> {
    let records = every_record();
    records
        .map(|record| serde_json::from_str(&record.to_json()).unwrap())
        .collect()
}

/// Findings that together have every kind and label.
fn every_finding() -> Vec<Finding> {
    let mut findings = Vec::new();
    let count = FindingKind::ALL.len().max(OwnerRole::ALL.len()) * 2;
    let reasons: Vec<_> = BogusFrameReason::ALL
        .iter()
        .map(|&reason| BogusReason::Frame(reason))
        .chain([BogusReason::SpaNetworkBroadcast])
        .collect();
    for number in 0..count {
        fn pick<T: Copy>(all: &[T], number: usize) -> T {
            all[number % all.len()]
        }
        let owner = |role, last| OwnerView {
            role,
            macs: vec![
                MacAddr([0, 0, 0, 0, 0, last]),
                MacAddr([2, 0, 0, 0, 0, last]),
            ],
            local: number % 2 == 0,
            announcement: pick(AnnouncementKind::ALL, number),
            first_seen: Timestamp(1_700_000_000_000_000_000),
            last_seen: Timestamp(1_700_000_001_000_000_000),
            claims: 3,
        };
        findings.push(Finding {
            kind: pick(FindingKind::ALL, number),
            severity: pick(Severity::ALL, number),
            at: Timestamp(1_700_000_002_123_456_789),
            segment: Segment::default(),
            ip: "192.0.2.10".parse().unwrap(),
            since: Timestamp(1_700_000_001_000_000_000),
            owners: vec![
                owner(pick(OwnerRole::ALL, number), 1),
                owner(OwnerRole::Earlier, 2),
            ],
            evidence: (number > 0).then(|| pick(Evidence::ALL, number)),
            counts: EvidenceCounts::default(),
            hint: (number > 0).then(|| pick(Hint::ALL, number)),
            bogus: (number > 0).then(|| pick(&reasons, number)),
        });
    }
    findings
}

fn every_record() -> impl Iterator<Item = FindingRecord> {
    let findings = every_finding().into_iter();
    let records =
        findings.map(|finding| FindingRecord::new(&finding, "eth0".to_owned(), Clock::Epoch));
    records.enumerate().map(|(number, record)| FindingRecord {
        drill: number > 0,
        cluster: (number > 0).then(|| Box::new(context(number))),
        owners: record
            .owners
            .into_iter()
            .map(|owner| OwnerRecord {
                node: (number > 0).then(|| "node-1".to_owned()),
                ..owner
            })
            .collect(),
        segment: (number > 0).then(|| "192.0.2.0/24".to_owned()),
        ..record
    })
}

/// A cluster context; those of all numbers have every field and label.
fn context(number: usize) -> AddressContext {
    let named = NamespacedName {
        namespace: "shop".to_owned(),
        name: "frontend".to_owned(),
    };
    let announced = [
        AnnouncementMode::Layer2,
        AnnouncementMode::Bgp,
        AnnouncementMode::NotAnnounced,
        AnnouncementMode::Unknown,
    ];
    AddressContext {
        services: vec![named.clone()],
        pool: Some(named),
        announced: announced[number % announced.len()],
        announcers: vec!["node-1".to_owned()],
        cause: (number > 1).then(|| ClusterCause {
            kind: CauseKind::ALL[number % CauseKind::COUNT],
            scope: CauseScope::ALL[number % CauseScope::COUNT],
            evidence: vec!["The nodes are unknown".to_owned()],
        }),
    }
}

#[test]
fn every_finding_is_valid_by_the_schema() {
    Schema::new(SCHEMA).assert_valid(&json_values());
}

#[test]
fn the_schema_has_exactly_the_labels() {
    let schema = Schema::new(SCHEMA);
    let labels = |pointer: &str| schema.labels(pointer);
    assert_eq!(labels("/properties/finding/enum"), FindingKind::LABELS);
    assert_eq!(labels("/properties/severity/enum"), Severity::LABELS);
    assert_eq!(labels("/properties/evidence/enum"), Evidence::LABELS);
    assert_eq!(labels("/properties/hint/enum"), Hint::LABELS);
    assert_eq!(
        labels("/$defs/owner/properties/role/enum"),
        OwnerRole::LABELS
    );
    let cause = "/properties/cluster/properties/cause/properties";
    assert_eq!(labels(&format!("{cause}/kind/enum")), CauseKind::LABELS);
    assert_eq!(labels(&format!("{cause}/scope/enum")), CauseScope::LABELS);
    let mut reasons = BogusFrameReason::LABELS.to_vec();
    reasons.push(BogusReason::SpaNetworkBroadcast.label());
    assert_eq!(labels("/properties/reason/enum"), reasons);
}

#[test]
fn the_schema_describes_exactly_the_fields() {
    let (schema, json) = (Schema::new(SCHEMA), json_values());
    let mut finding = fields(&json);
    // The daemon adds this field.
    finding.insert("sequence".to_owned());
    assert_eq!(schema.fields("/properties"), finding);
    assert_eq!(
        schema.fields("/$defs/owner/properties"),
        fields(json.iter().map(|line| &line["owners"][0]))
    );
    let contexts = || json.iter().map(|line| &line["cluster"]);
    let described = |pointer: &str| schema.fields(&format!("/properties/cluster/{pointer}"));
    assert_eq!(described("properties"), fields(contexts()));
    assert_eq!(
        described("properties/cause/properties"),
        fields(contexts().map(|context| &context["cause"]))
    );
    assert_eq!(
        schema.fields("/$defs/counts/properties"),
        fields(json.iter().map(|line| &line["counts"]))
    );
}

#[test]
fn a_finding_deserializes_from_its_json() {
    for record in every_record() {
        let deserialized: FindingRecord = serde_json::from_str(&to_json(&record)).unwrap();
        assert_eq!(deserialized, record);
    }
}
