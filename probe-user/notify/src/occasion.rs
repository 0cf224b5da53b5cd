//! What is said on a Service as an Event of Kubernetes. Pure.

use probe_cluster::{Cluster, drift::DriftKind};
use probe_model::{Named, Severity};

use super::{
    message,
    news::{Kind, Story},
    queue::Waiting,
};

/// The API server takes no longer notes.
const LONGEST: usize = 1024;

/// An Event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// On which Service.
    pub service: Named,
    /// What Kubernetes calls it in references.
    pub uid: String,
    /// In a word.
    pub reason: &'static str,
    /// Whether something is wrong.
    pub is_warning: bool,
    /// In sentences.
    pub note: String,
}

/// What news say on which Services. Those that are no longer there are told nothing.
pub fn occasions(waiting: &Waiting, cluster: &Cluster) -> Vec<Occasion> {
    let news = &waiting.last;
    let services: Vec<&Named> = match &news.story {
        Story::Finding(record) => match &record.cluster {
            Some(context) => context.services.iter().collect(),
            None => Vec::new(),
        },
        Story::Drift { drift, .. } => drift.service.iter().collect(),
    };
    let Some(reason) = reason(waiting) else {
        return Vec::new();
    };
    let note = bounded(message::note(waiting));
    let known = cluster.services().iter();
    let concerned = known.filter(|service| services.contains(&&service.named));
    concerned
        .map(|service| Occasion {
            service: service.named.clone(),
            uid: service.uid.clone(),
            reason,
            is_warning: news.severity >= Severity::Warning,
            note: note.clone(),
        })
        .collect()
}

/// Words that people and alerts select by: they do not change.
fn reason(waiting: &Waiting) -> Option<&'static str> {
    let news = &waiting.last;
    let drift = news.drift().map(|drift| drift.drift);
    Some(match (news.kind, drift) {
        (Kind::Conflict, _) => "AddressConflict",
        (Kind::ConflictResolved, _) => "AddressConflictResolved",
        (Kind::ConflictExpired, _) => "AddressConflictExpired",
        // Still open, and so said already.
        (Kind::ConflictQuiet | Kind::Missed, _) | (Kind::Drift | Kind::DriftGone, None) => {
            return None;
        }
        (Kind::Drift, Some(kind)) => drift_reasons(kind)?.0,
        (Kind::DriftGone, Some(kind)) => drift_reasons(kind)?.1,
    })
}

/// That it is so, and that it is no longer so. Only some are about a Service.
const fn drift_reasons(kind: DriftKind) -> Option<(&'static str, &'static str)> {
    match kind {
        DriftKind::AddressOutsidePools => Some(("AddressOutsidePools", "AddressInPool")),
        DriftKind::NotAnnounced => Some(("AddressNotAnnounced", "AddressAnnounced")),
        DriftKind::ServicePending => Some(("AddressPending", "AddressAssigned")),
        DriftKind::AnnouncedUnassigned
        | DriftKind::ClaimedUnassigned
        | DriftKind::PoolUnadvertised
        | DriftKind::AdvertisementWithoutPool
        | DriftKind::AdvertisementWithoutNode
        | DriftKind::PoolsOverlap => None,
    }
}

fn bounded(mut note: String) -> String {
    if note.len() > LONGEST {
        note.truncate(note.floor_char_boundary(LONGEST - '…'.len_utf8()));
        note.push('…');
    }
    note
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use probe_cluster::{
        Objects, Service,
        drift::{Drift, Reason},
    };
    use probe_model::{Announced, Context};

    use super::{
        super::{
            news::{News, Subject, tests::news},
            queue::Queue,
        },
        *,
    };

    /// A cluster with these services.
    pub fn cluster(names: &[&str]) -> Cluster {
        let service = |name: &&str| Service {
            named: named(name),
            uid: format!("uid-of-{name}"),
            created: None,
            assigned: None,
            addresses: Vec::new(),
            ..Service::default()
        };
        Cluster::from(Objects {
            services: names.iter().map(service).collect(),
            ..Objects::default()
        })
    }

    /// In the namespace `shop`, unless another is said.
    fn named(name: &str) -> Named {
        let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
        Named {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// News about an address of these services.
    pub fn about(names: &[&str], kind: Kind) -> Waiting {
        let mut news = news(10, kind);
        let Story::Finding(record) = &mut news.story else {
            panic!("{news:?}")
        };
        Arc::make_mut(record).cluster = Some(Box::new(Context {
            services: names.iter().map(|name| named(name)).collect(),
            pool: None,
            announced: Announced::Layer2,
            announcers: Vec::new(),
            cause: None,
        }));
        waiting(news)
    }

    /// Changes what was found.
    #[cfg(feature = "kubernetes")]
    pub fn change(news: &mut News, change: impl FnOnce(&mut probe_model::FindingRecord)) {
        let Story::Finding(record) = &mut news.story else {
            panic!("{news:?}")
        };
        change(Arc::make_mut(record));
        if let Subject::Address { ip, .. } = &mut news.subject {
            *ip = record.ip;
        }
    }

    fn waiting(news: News) -> Waiting {
        let mut queue = Queue::default();
        queue.push(news);
        queue.batch(1).listed.remove(0)
    }

    #[test]
    fn a_conflict_is_told_on_each_service_that_has_the_address() {
        let told = occasions(
            &about(&["frontend", "backend", "gone"], Kind::Conflict),
            &cluster(&["backend", "frontend", "other"]),
        );
        let names: Vec<_> = told
            .iter()
            .map(|told| (told.service.to_string(), told.uid.as_str(), told.reason))
            .collect();
        assert_eq!(
            names,
            [
                (
                    "shop/backend".to_owned(),
                    "uid-of-backend",
                    "AddressConflict"
                ),
                (
                    "shop/frontend".to_owned(),
                    "uid-of-frontend",
                    "AddressConflict"
                )
            ]
        );
        assert!(told[0].is_warning);
        for part in [
            "192.0.2.10 has 2 owners",
            "02:64:72:69:6c:01",
            "02:64:72:69:6c:02",
            "probe ",
        ] {
            assert!(told[0].note.contains(part), "{}", told[0].note);
        }
    }

    #[test]
    fn its_end_is_normal_and_its_silence_is_nothing() {
        let cluster = cluster(&["frontend"]);
        let told = occasions(&about(&["frontend"], Kind::ConflictResolved), &cluster);
        assert_eq!(
            (told[0].reason, told[0].is_warning),
            ("AddressConflictResolved", false)
        );
        assert!(occasions(&about(&["frontend"], Kind::ConflictQuiet), &cluster).is_empty());
        assert!(occasions(&waiting(news(10, Kind::Conflict)), &cluster).is_empty());
    }

    #[test]
    fn a_drift_is_told_on_its_service() {
        let drift = Drift {
            drift: DriftKind::ServicePending,
            severity: Severity::Warning,
            since: "2026-11-21T02:00:00Z".parse().unwrap(),
            ip: None,
            service: Some(named("frontend")),
            pool: None,
            object: None,
            reason: Some(Reason::Exhausted),
            macs: Vec::new(),
            nodes: Vec::new(),
            says: "shop/frontend waits for an address".to_owned(),
            evidence: vec!["ä".repeat(2_000)],
        };
        let news = |kind| News {
            subject: Subject::Drift(drift.key()),
            kind,
            severity: drift.severity,
            story: Story::Drift {
                drift: Arc::new(drift.clone()),
                time: drift.since,
            },
        };
        let cluster = cluster(&["frontend"]);
        let told = occasions(&waiting(news(Kind::Drift)), &cluster).remove(0);
        assert_eq!(told.reason, "AddressPending");
        assert!(told.note.contains("exhausted"), "{}", told.note);
        assert!(told.note.len() <= LONGEST && told.note.ends_with('…'));
        let over = occasions(&waiting(news(Kind::DriftGone)), &cluster).remove(0);
        assert_eq!(over.reason, "AddressAssigned");
    }

    #[test]
    fn reasons_are_words_that_the_api_server_takes() {
        for &kind in DriftKind::ALL {
            let Some((so, no_longer)) = drift_reasons(kind) else {
                continue;
            };
            for reason in [so, no_longer] {
                assert!(reason.len() <= 128 && reason.chars().all(char::is_alphanumeric));
            }
        }
    }
}
