//! What is worth telling.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use probe_cluster::drift::{Drift, DriftKey};
use probe_common::{label_enum, wire::Vlan};
use probe_kubernetes::Digest;
use probe_model::{FindingKind, FindingRecord, NamespacedName, Severity};

/// Conflicts whose end is waited for: as many as detection remembers addresses by default.
const MAX_OPEN: usize = 65_536;

label_enum! {
    /// What is told.
    pub enum NotificationKind {
        /// A conflict has opened, or another owner has joined it.
        Conflict = "conflict",
        /// No new evidence for a while: the conflict stays open.
        ConflictQuiet = "conflict_quiet",
        /// The conflict is over.
        ConflictResolved = "conflict_resolved",
        /// The conflict is no longer kept open.
        ConflictExpired = "conflict_expired",
        /// A host announced the address and does not reply for it, while its owner does.
        StaleAnnouncement = "stale_announcement",
        /// A cluster and the wire have drifted apart.
        Drift = "drift",
        /// They have not any more.
        DriftGone = "drift_resolved",
        /// Nobody knows: findings came faster than they could be heard. Told as a number only.
        Missed = "missed",
    }
}

impl NotificationKind {
    /// The notification of a finding: the one with the label of its kind. Most findings have none.
    fn of(kind: FindingKind) -> Option<Self> {
        if kind.is_logged() {
            Self::from_label(kind.label())
        } else {
            None
        }
    }
}

/// What notification are about. Later notification about the same say more than earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotificationSubject {
    /// An address on a segment.
    Address {
        /// The interface.
        interface: String,
        /// The VLAN.
        vlan: Vlan,
        /// The address.
        ip: IpAddr,
        /// Whether it is an exercise.
        drill: bool,
    },
    /// What has drifted apart.
    Drift(DriftKey),
}

impl NotificationSubject {
    /// What a finding is about.
    fn of(record: &FindingRecord) -> Self {
        Self::Address {
            interface: record.interface.clone(),
            vlan: record.vlan,
            ip: record.ip,
            drill: record.drill,
        }
    }
}

/// One piece of notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// About what.
    pub subject: NotificationSubject,
    /// What has happened.
    pub kind: NotificationKind,
    /// How much it matters.
    pub severity: Severity,
    /// The whole of it.
    pub cause: NotificationCause,
}

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotificationCause {
    /// A finding.
    Finding(Arc<FindingRecord>),
    /// A drift.
    Drift {
        /// As it was last.
        drift: Arc<Drift>,
        /// When it came or went.
        time: Timestamp,
    },
}

impl Notification {
    /// The finding, if they are about one.
    pub fn finding(&self) -> Option<&FindingRecord> {
        match &self.cause {
            NotificationCause::Finding(record) => Some(record),
            NotificationCause::Drift { .. } => None,
        }
    }

    /// The drift, if they are about one.
    pub fn drift(&self) -> Option<&Drift> {
        match &self.cause {
            NotificationCause::Finding(_) => None,
            NotificationCause::Drift { drift, .. } => Some(drift),
        }
    }

    /// What they are about, as every node calls it.
    pub fn digest(&self) -> Digest {
        match &self.cause {
            NotificationCause::Finding(record) => digest_of_address(record),
            NotificationCause::Drift { drift, .. } => digest_of_drift(drift),
        }
    }

    /// Whether something is so that should not be, and no longer is when its end is told.
    pub const fn is_open(&self) -> bool {
        match self.kind {
            NotificationKind::Conflict
            | NotificationKind::ConflictQuiet
            | NotificationKind::Drift => true,
            // Its end is not notified: caches are corrected by the next announcement.
            NotificationKind::StaleAnnouncement
            | NotificationKind::ConflictResolved
            | NotificationKind::ConflictExpired
            | NotificationKind::DriftGone
            | NotificationKind::Missed => false,
        }
    }

    /// When it happened.
    pub fn time(&self) -> Timestamp {
        match &self.cause {
            NotificationCause::Finding(record) => record.time,
            NotificationCause::Drift { time, .. } => *time,
        }
    }
}

/// As alerts have it: an interface may have another name on another node.
fn digest_of_address(record: &FindingRecord) -> Digest {
    let segment = record.segment.as_deref().unwrap_or(&record.interface);
    let (vlan, ip, drill) = (record.vlan, record.ip, record.drill);
    crc32fast::hash(format!("address\n{segment}\n{vlan}\n{ip}\n{drill}").as_bytes())
}

/// Of a drift, without what may change while it lasts.
pub fn digest_of_drift(drift: &Drift) -> Digest {
    let named = |named: &Option<NamespacedName>| {
        named
            .as_ref()
            .map(NamespacedName::to_string)
            .unwrap_or_default()
    };
    let parts = [
        drift.drift.label().to_owned(),
        named(&drift.service),
        drift.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        named(&drift.pool),
        drift.object.clone().unwrap_or_default(),
    ];
    crc32fast::hash(format!("drift\n{}", parts.join("\n")).as_bytes())
}

/// Chooses what is told: what matters enough, and the end of what did.
#[derive(Debug)]
pub struct FindingSelection {
    min_severity: Severity,
    /// Conflicts that mattered enough when they opened.
    open: BTreeMap<NotificationSubject, Digest>,
}

impl FindingSelection {
    /// Chooses what matters at least so much.
    pub fn new(min_severity: Severity) -> Self {
        Self {
            min_severity,
            open: BTreeMap::new(),
        }
    }

    /// What matters at least so much is told.
    pub const fn least(&self) -> Severity {
        self.min_severity
    }

    /// The conflicts that are open and mattered enough.
    pub fn open(&self) -> impl Iterator<Item = (&NotificationSubject, Digest)> {
        self.open.iter().map(|(subject, digest)| (subject, *digest))
    }

    /// Whether a conflict on the address of a finding is open and mattered enough.
    pub fn has(&self, record: &FindingRecord) -> bool {
        self.open.contains_key(&NotificationSubject::of(record))
    }

    /// Whether a finding is told.
    pub fn select(&mut self, record: Arc<FindingRecord>) -> Option<Notification> {
        let kind = NotificationKind::of(record.finding)?;
        let subject = NotificationSubject::of(&record);
        let is_told = match kind {
            NotificationKind::Conflict if record.severity < self.min_severity => false,
            NotificationKind::Conflict => {
                if self.open.len() < MAX_OPEN {
                    let digest = digest_of_address(&record);
                    self.open.insert(subject.clone(), digest);
                }
                true
            }
            NotificationKind::StaleAnnouncement => record.severity >= self.min_severity,
            // How much an end matters is what its conflict did.
            NotificationKind::ConflictQuiet => self.open.contains_key(&subject),
            NotificationKind::ConflictResolved | NotificationKind::ConflictExpired => {
                self.open.remove(&subject).is_some()
            }
            NotificationKind::Drift | NotificationKind::DriftGone | NotificationKind::Missed => {
                false
            }
        };
        is_told.then_some(Notification {
            subject,
            kind,
            severity: record.severity,
            cause: NotificationCause::Finding(record),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use probe_model::drill;

    use super::*;

    /// A finding about the address 192.0.2.N at second N of a day.
    pub fn record(last: u8, finding: FindingKind, severity: Severity) -> Arc<FindingRecord> {
        let time: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let mut record = drill::conflict(time);
        record.drill = false;
        record.interface = "eth0".to_owned();
        record.segment = Some("192.0.2.0/24".to_owned());
        record.ip = IpAddr::from([192, 0, 2, last]);
        if finding != FindingKind::Conflict {
            record = drill::resolved(&record, time);
        }
        Arc::new(FindingRecord {
            finding,
            severity,
            ..record
        })
    }

    /// The same as notification.
    pub fn notification(last: u8, kind: NotificationKind) -> Notification {
        let (finding, severity) = match kind {
            NotificationKind::Conflict => (FindingKind::Conflict, Severity::Critical),
            NotificationKind::ConflictQuiet => (FindingKind::ConflictQuiet, Severity::Notice),
            NotificationKind::ConflictResolved => (FindingKind::ConflictResolved, Severity::Notice),
            NotificationKind::ConflictExpired => (FindingKind::ConflictExpired, Severity::Notice),
            NotificationKind::StaleAnnouncement => {
                (FindingKind::StaleAnnouncement, Severity::Critical)
            }
            NotificationKind::Drift | NotificationKind::DriftGone | NotificationKind::Missed => {
                panic!("no finding")
            }
        };
        let mut selection = FindingSelection::new(Severity::Info);
        let _ = selection.select(record(last, FindingKind::Conflict, Severity::Critical));
        selection.select(record(last, finding, severity)).unwrap()
    }

    fn kind(
        selection: &mut FindingSelection,
        finding: FindingKind,
        severity: Severity,
    ) -> Option<NotificationKind> {
        let told = selection.select(record(1, finding, severity));
        told.map(|notification| notification.kind)
    }

    #[test]
    fn the_end_of_a_conflict_is_told_if_its_beginning_was() {
        let mut selection = FindingSelection::new(Severity::Critical);
        let (critical, warning, notice) = (Severity::Critical, Severity::Warning, Severity::Notice);
        for (finding, severity, told) in [
            (FindingKind::Conflict, warning, None),
            (FindingKind::ConflictQuiet, notice, None),
            (FindingKind::ConflictResolved, notice, None),
            (FindingKind::Conflict, warning, None),
            // It matters more from now on.
            (
                FindingKind::Conflict,
                critical,
                Some(NotificationKind::Conflict),
            ),
            (
                FindingKind::ConflictQuiet,
                notice,
                Some(NotificationKind::ConflictQuiet),
            ),
            (
                FindingKind::Conflict,
                critical,
                Some(NotificationKind::Conflict),
            ),
            (
                FindingKind::ConflictExpired,
                notice,
                Some(NotificationKind::ConflictExpired),
            ),
            (FindingKind::ConflictResolved, notice, None),
        ] {
            assert_eq!(
                kind(&mut selection, finding, severity),
                told,
                "{finding} {severity}"
            );
        }
    }

    #[test]
    fn an_address_has_the_same_short_name_on_every_node_and_every_address_its_own() {
        let conflict = notification(1, NotificationKind::Conflict);
        assert_eq!(
            conflict.digest(),
            notification(1, NotificationKind::ConflictResolved).digest()
        );
        assert_ne!(
            conflict.digest(),
            notification(2, NotificationKind::Conflict).digest()
        );
        let on = |change: &dyn Fn(&mut FindingRecord)| {
            let mut record = (*record(1, FindingKind::Conflict, Severity::Critical)).clone();
            change(&mut record);
            let mut selection = FindingSelection::new(Severity::Info);
            selection.select(Arc::new(record)).unwrap().digest()
        };
        let same = on(&|record| record.interface = "bond0".to_owned());
        assert_eq!(same, conflict.digest());
        for other in [
            on(&|record| record.drill = true),
            on(&|record| record.vlan = Vlan([7, 0])),
            on(&|record| record.segment = Some("198.51.100.0/24".to_owned())),
        ] {
            assert_ne!(other, conflict.digest());
        }
        // Versions that know no other have to understand each other.
        assert_eq!(conflict.digest(), 1_705_118_870);
    }

    #[test]
    fn only_conflicts_are_told() {
        let mut selection = FindingSelection::new(Severity::Info);
        for &finding in FindingKind::ALL {
            if NotificationKind::of(finding).is_none() {
                assert_eq!(kind(&mut selection, finding, Severity::Critical), None);
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_what_opens_beyond_it_is_told_all_the_same() {
        let mut selection = FindingSelection::new(Severity::Info);
        let at = |number: u32| {
            let mut record = (*record(1, FindingKind::Conflict, Severity::Warning)).clone();
            record.ip = IpAddr::V4(number.into());
            Arc::new(record)
        };
        for number in 0..u32::try_from(MAX_OPEN).unwrap() + 5 {
            assert!(selection.select(at(number)).is_some());
        }
        assert_eq!(selection.open.len(), MAX_OPEN);
    }
}
