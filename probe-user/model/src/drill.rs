//! The findings of a drill: a simulated conflict, to test the notifications of a real one.
//!
//! Each record is marked as a drill, and its interface and segment have that name.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use probe_common::wire::{MacAddr, Vlan};

use crate::{
    AnnouncementKind, CountsRecord, Evidence, FindingKind, FindingRecord, OwnerRecord, OwnerRole,
    Severity,
};

/// The address of every drill (TEST-NET-1, RFC 5737), which no host has.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The name of the interface and the segment of every drill.
pub const INTERFACE: &str = "drill";
/// The owners in every drill: locally administered MACs that contain "drill" in ASCII.
pub const MACS: [MacAddr; 2] = [
    MacAddr([0x02, b'd', b'r', b'i', b'l', 1]),
    MacAddr([0x02, b'd', b'r', b'i', b'l', 2]),
];

/// The finding that starts a drill.
pub fn conflict(now: Timestamp) -> FindingRecord {
    let owner = |mac, role| OwnerRecord {
        node: None,
        macs: vec![mac],
        vendor: None,
        role,
        local: false,
        announcement: AnnouncementKind::None,
        first_seen: now,
        last_seen: now,
        claims: 0,
    };
    FindingRecord {
        cluster: None,
        time: now,
        finding: FindingKind::Conflict,
        severity: Severity::Critical,
        interface: INTERFACE.to_owned(),
        vlan: Vlan::UNTAGGED,
        segment: Some(INTERFACE.to_owned()),
        ip: ADDRESS,
        drill: true,
        since: now,
        owners: vec![
            owner(MACS[0], OwnerRole::Current),
            owner(MACS[1], OwnerRole::Earlier),
        ],
        evidence: Some(Evidence::DuplicateReply),
        counts: CountsRecord::default(),
        hint: None,
        reason: None,
    }
}

/// The finding that ends a drill.
pub fn resolved(conflict: &FindingRecord, now: Timestamp) -> FindingRecord {
    FindingRecord {
        time: now,
        finding: FindingKind::ConflictResolved,
        severity: Severity::Notice,
        evidence: None,
        owners: conflict.owners.iter().take(1).cloned().collect(),
        ..conflict.clone()
    }
}
