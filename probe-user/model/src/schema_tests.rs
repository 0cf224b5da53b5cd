//! The schema in the documentation, held against what the program writes.

use probe_common::wire::{Bogus, MacAddr};
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

fn written() -> Vec<Value> {
    let records = every_record();
    records
        .map(|record| serde_json::from_str(&record.to_json()).unwrap())
        .collect()
}

/// A finding of every kind, with every word that it can have.
fn every_finding() -> Vec<Finding> {
    let mut findings = Vec::new();
    let words = FindingKind::ALL.len().max(OwnerRole::ALL.len()) * 2;
    let reasons: Vec<_> = Bogus::ALL
        .iter()
        .map(|&reason| BogusReason::Frame(reason))
        .chain([BogusReason::SpaNetworkBroadcast])
        .collect();
    for number in 0..words {
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

/// With every field and word that it can have.
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
            evidence: vec!["The nodes are not known".to_owned()],
        }),
    }
}

#[test]
fn every_finding_is_valid_by_the_schema() {
    Schema::new(SCHEMA).assert_valid(&written());
}

#[test]
fn the_schema_knows_every_word_and_no_other() {
    let schema = Schema::new(SCHEMA);
    let words = |pointer: &str| schema.words(pointer);
    assert_eq!(words("/properties/finding/enum"), FindingKind::LABELS);
    assert_eq!(words("/properties/severity/enum"), Severity::LABELS);
    assert_eq!(words("/properties/evidence/enum"), Evidence::LABELS);
    assert_eq!(words("/properties/hint/enum"), Hint::LABELS);
    assert_eq!(
        words("/$defs/owner/properties/role/enum"),
        OwnerRole::LABELS
    );
    let cause = "/properties/cluster/properties/cause/properties";
    assert_eq!(words(&format!("{cause}/kind/enum")), CauseKind::LABELS);
    assert_eq!(words(&format!("{cause}/scope/enum")), CauseScope::LABELS);
    let mut reasons = Bogus::LABELS.to_vec();
    reasons.push(BogusReason::SpaNetworkBroadcast.label());
    assert_eq!(words("/properties/reason/enum"), reasons);
}

#[test]
fn the_schema_describes_every_field_and_no_other() {
    let (schema, written) = (Schema::new(SCHEMA), written());
    let mut finding = fields(&written);
    // The daemon adds it.
    finding.insert("sequence".to_owned());
    assert_eq!(schema.fields("/properties"), finding);
    assert_eq!(
        schema.fields("/$defs/owner/properties"),
        fields(written.iter().map(|line| &line["owners"][0]))
    );
    let known = || written.iter().map(|line| &line["cluster"]);
    let described = |pointer: &str| schema.fields(&format!("/properties/cluster/{pointer}"));
    assert_eq!(described("properties"), fields(known()));
    assert_eq!(
        described("properties/cause/properties"),
        fields(known().map(|known| &known["cause"]))
    );
    assert_eq!(
        schema.fields("/$defs/counts/properties"),
        fields(written.iter().map(|line| &line["counts"]))
    );
}

#[test]
fn a_finding_reads_back_from_its_line() {
    for record in every_record() {
        let read: FindingRecord = serde_json::from_str(&to_json(&record)).unwrap();
        assert_eq!(read, record);
    }
}
