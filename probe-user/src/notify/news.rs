//! What is worth telling.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use probe_common::{label_enum, wire::Vlan};

use crate::{
    cluster::drift::{Drift, Key},
    detect::{FindingKind, Severity},
    report::FindingRecord,
};

/// Conflicts whose end is waited for: as many as detection remembers addresses by default.
const OPEN: usize = 65_536;

label_enum! {
    /// What is told.
    pub enum Kind {
        /// A conflict has opened, or another owner has joined it.
        Conflict = "conflict",
        /// No new evidence for a while: the conflict stays open.
        ConflictQuiet = "conflict_quiet",
        /// The conflict is over.
        ConflictResolved = "conflict_resolved",
        /// The conflict is no longer kept open.
        ConflictExpired = "conflict_expired",
        /// A cluster and the wire have drifted apart.
        Drift = "drift",
        /// They have not any more.
        DriftGone = "drift_gone",
        /// Nobody knows: findings came faster than they could be heard. Told as a number only.
        Missed = "missed",
    }
}

impl Kind {
    /// What a finding is told as; most are not told.
    const fn of(kind: FindingKind) -> Option<Self> {
        match kind {
            FindingKind::Conflict => Some(Self::Conflict),
            FindingKind::ConflictQuiet => Some(Self::ConflictQuiet),
            FindingKind::ConflictResolved => Some(Self::ConflictResolved),
            FindingKind::ConflictExpired => Some(Self::ConflictExpired),
            FindingKind::NewBinding
            | FindingKind::Moved
            | FindingKind::Contested
            | FindingKind::ProbeDenied
            | FindingKind::BogusClaim
            | FindingKind::SourceMismatch
            | FindingKind::Silent => None,
        }
    }
}

/// What news are about. Later news about the same say more than earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
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
    Drift(Key),
}

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// About what.
    pub subject: Subject,
    /// What has happened.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// The whole of it.
    pub story: Story,
}

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Story {
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

impl News {
    /// The finding, if they are about one.
    pub fn finding(&self) -> Option<&FindingRecord> {
        match &self.story {
            Story::Finding(record) => Some(record),
            Story::Drift { .. } => None,
        }
    }

    /// The drift, if they are about one.
    pub fn drift(&self) -> Option<&Drift> {
        match &self.story {
            Story::Finding(_) => None,
            Story::Drift { drift, .. } => Some(drift),
        }
    }

    /// When it happened.
    pub fn time(&self) -> Timestamp {
        match &self.story {
            Story::Finding(record) => record.time,
            Story::Drift { time, .. } => *time,
        }
    }
}

/// Chooses what is told: what matters enough, and the end of what did.
#[derive(Debug)]
pub struct Selection {
    least: Severity,
    /// Conflicts that mattered enough when they opened.
    open: BTreeSet<Subject>,
}

impl Selection {
    /// Chooses what matters at least so much.
    pub fn new(least: Severity) -> Self {
        Self {
            least,
            open: BTreeSet::new(),
        }
    }

    /// What matters at least so much is told.
    pub const fn least(&self) -> Severity {
        self.least
    }

    /// Whether a finding is told.
    pub fn choose(&mut self, record: Arc<FindingRecord>) -> Option<News> {
        let kind = Kind::of(record.finding)?;
        let subject = Subject::Address {
            interface: record.interface.clone(),
            vlan: record.vlan,
            ip: record.ip,
            drill: record.drill,
        };
        let is_told = match kind {
            Kind::Conflict if record.severity < self.least => false,
            Kind::Conflict => {
                if self.open.len() < OPEN {
                    self.open.insert(subject.clone());
                }
                true
            }
            // How much an end matters is what its conflict did.
            Kind::ConflictQuiet => self.open.contains(&subject),
            Kind::ConflictResolved | Kind::ConflictExpired => self.open.remove(&subject),
            Kind::Drift | Kind::DriftGone | Kind::Missed => false,
        };
        is_told.then_some(News {
            subject,
            kind,
            severity: record.severity,
            story: Story::Finding(record),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::drill;

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

    /// The same as news.
    pub fn news(last: u8, kind: Kind) -> News {
        let (finding, severity) = match kind {
            Kind::Conflict => (FindingKind::Conflict, Severity::Critical),
            Kind::ConflictQuiet => (FindingKind::ConflictQuiet, Severity::Notice),
            Kind::ConflictResolved => (FindingKind::ConflictResolved, Severity::Notice),
            Kind::ConflictExpired => (FindingKind::ConflictExpired, Severity::Notice),
            Kind::Drift | Kind::DriftGone | Kind::Missed => panic!("no finding"),
        };
        let mut selection = Selection::new(Severity::Info);
        let _ = selection.choose(record(last, FindingKind::Conflict, Severity::Critical));
        selection.choose(record(last, finding, severity)).unwrap()
    }

    fn kind(selection: &mut Selection, finding: FindingKind, severity: Severity) -> Option<Kind> {
        let told = selection.choose(record(1, finding, severity));
        told.map(|news| news.kind)
    }

    #[test]
    fn the_end_of_a_conflict_is_told_if_its_beginning_was() {
        let mut selection = Selection::new(Severity::Critical);
        let (critical, warning, notice) = (Severity::Critical, Severity::Warning, Severity::Notice);
        for (finding, severity, told) in [
            (FindingKind::Conflict, warning, None),
            (FindingKind::ConflictQuiet, notice, None),
            (FindingKind::ConflictResolved, notice, None),
            (FindingKind::Conflict, warning, None),
            // It matters more from now on.
            (FindingKind::Conflict, critical, Some(Kind::Conflict)),
            (
                FindingKind::ConflictQuiet,
                notice,
                Some(Kind::ConflictQuiet),
            ),
            (FindingKind::Conflict, critical, Some(Kind::Conflict)),
            (
                FindingKind::ConflictExpired,
                notice,
                Some(Kind::ConflictExpired),
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
    fn only_conflicts_are_told() {
        let mut selection = Selection::new(Severity::Info);
        for &finding in FindingKind::ALL {
            if Kind::of(finding).is_none() {
                assert_eq!(kind(&mut selection, finding, Severity::Critical), None);
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_what_opens_beyond_it_is_told_all_the_same() {
        let mut selection = Selection::new(Severity::Info);
        let at = |number: u32| {
            let mut record = (*record(1, FindingKind::Conflict, Severity::Warning)).clone();
            record.ip = IpAddr::V4(number.into());
            Arc::new(record)
        };
        for number in 0..u32::try_from(OPEN).unwrap() + 5 {
            assert!(selection.choose(at(number)).is_some());
        }
        assert_eq!(selection.open.len(), OPEN);
    }
}
