//! What is said on a Service as an Event of Kubernetes. Pure.

use probe_cluster::{ClusterSnapshot, drift::DriftKind};
use probe_model::{NamespacedName, Severity};

use super::{
    message,
    notification::{NotificationCause, NotificationKind},
    queue::QueuedNotification,
};

/// The API server takes no longer notes.
const MAX_NOTE_BYTES: usize = 1024;

/// An Event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesEvent {
    /// On which Service.
    pub service: NamespacedName,
    /// What Kubernetes calls it in references.
    pub uid: String,
    /// In a word.
    pub reason: &'static str,
    /// Whether something is wrong.
    pub is_warning: bool,
    /// In sentences.
    pub note: String,
}

/// What notification say on which Services. Those that are no longer there are told nothing.
pub fn kubernetes_events(
    waiting: &QueuedNotification,
    cluster: &ClusterSnapshot,
) -> Vec<KubernetesEvent> {
    let notification = &waiting.last;
    let services: Vec<&NamespacedName> = match &notification.cause {
        NotificationCause::Finding(record) => match &record.cluster {
            Some(context) => context.services.iter().collect(),
            None => Vec::new(),
        },
        NotificationCause::Drift { drift, .. } => drift.service.iter().collect(),
    };
    let Some(reason) = reason(waiting) else {
        return Vec::new();
    };
    let note = truncate_note(message::repetition_note(waiting));
    let known = cluster.services().iter();
    let concerned = known.filter(|service| services.contains(&&service.named));
    concerned
        .map(|service| KubernetesEvent {
            service: service.named.clone(),
            uid: service.uid.clone(),
            reason,
            is_warning: notification.severity >= Severity::Warning,
            note: note.clone(),
        })
        .collect()
}

/// Words that people and alerts select by: they do not change.
fn reason(waiting: &QueuedNotification) -> Option<&'static str> {
    let notification = &waiting.last;
    let drift = notification.drift().map(|drift| drift.drift);
    Some(match (notification.kind, drift) {
        (NotificationKind::Conflict, _) => "AddressConflict",
        (NotificationKind::ConflictResolved, _) => "AddressConflictResolved",
        (NotificationKind::ConflictExpired, _) => "AddressConflictExpired",
        (NotificationKind::StaleAnnouncement, _) => "AddressStaleAnnouncement",
        // Still open, and so said already.
        (NotificationKind::ConflictQuiet | NotificationKind::Missed, _)
        | (NotificationKind::Drift | NotificationKind::DriftGone, None) => {
            return None;
        }
        (NotificationKind::Drift, Some(kind)) => drift_reasons(kind)?.0,
        (NotificationKind::DriftGone, Some(kind)) => drift_reasons(kind)?.1,
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

fn truncate_note(mut note: String) -> String {
    if note.len() > MAX_NOTE_BYTES {
        note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES - '…'.len_utf8()));
        note.push('…');
    }
    note
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use probe_cluster::{
        ClusterObjects, Service,
        drift::{Drift, PendingReason},
    };
    use probe_model::{AddressContext, AnnouncementMode};

    use super::{
        super::{
            notification::{Notification, NotificationSubject, tests::notification},
            queue::NotificationQueue,
        },
        *,
    };

    /// A cluster with these services.
    pub fn cluster(names: &[&str]) -> ClusterSnapshot {
        let service = |name: &&str| Service {
            named: named(name),
            uid: format!("uid-of-{name}"),
            created: None,
            assigned: None,
            addresses: Vec::new(),
            ..Service::default()
        };
        ClusterSnapshot::from(ClusterObjects {
            services: names.iter().map(service).collect(),
            ..ClusterObjects::default()
        })
    }

    /// In the namespace `shop`, unless another is said.
    fn named(name: &str) -> NamespacedName {
        let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
        NamespacedName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// News about an address of these services.
    pub fn about(names: &[&str], kind: NotificationKind) -> QueuedNotification {
        let mut notification = notification(10, kind);
        let NotificationCause::Finding(record) = &mut notification.cause else {
            panic!("{notification:?}")
        };
        Arc::make_mut(record).cluster = Some(Box::new(AddressContext {
            services: names.iter().map(|name| named(name)).collect(),
            pool: None,
            announced: AnnouncementMode::Layer2,
            announcers: Vec::new(),
            cause: None,
        }));
        waiting(notification)
    }

    /// Changes what was found.
    #[cfg(feature = "kubernetes")]
    pub fn change(
        notification: &mut Notification,
        change: impl FnOnce(&mut probe_model::FindingRecord),
    ) {
        let NotificationCause::Finding(record) = &mut notification.cause else {
            panic!("{notification:?}")
        };
        change(Arc::make_mut(record));
        if let NotificationSubject::Address { ip, .. } = &mut notification.subject {
            *ip = record.ip;
        }
    }

    fn waiting(notification: Notification) -> QueuedNotification {
        let mut queue = NotificationQueue::default();
        queue.push(notification);
        queue.batch(1).listed.remove(0)
    }

    #[test]
    fn a_conflict_is_told_on_each_service_that_has_the_address() {
        let told = kubernetes_events(
            &about(&["frontend", "backend", "gone"], NotificationKind::Conflict),
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
        let told = kubernetes_events(
            &about(&["frontend"], NotificationKind::ConflictResolved),
            &cluster,
        );
        assert_eq!(
            (told[0].reason, told[0].is_warning),
            ("AddressConflictResolved", false)
        );
        assert!(
            kubernetes_events(
                &about(&["frontend"], NotificationKind::ConflictQuiet),
                &cluster
            )
            .is_empty()
        );
        assert!(
            kubernetes_events(
                &waiting(notification(10, NotificationKind::Conflict)),
                &cluster
            )
            .is_empty()
        );
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
            reason: Some(PendingReason::Exhausted),
            macs: Vec::new(),
            nodes: Vec::new(),
            says: "shop/frontend waits for an address".to_owned(),
            evidence: vec!["ä".repeat(2_000)],
        };
        let notification = |kind| Notification {
            subject: NotificationSubject::Drift(drift.key()),
            kind,
            severity: drift.severity,
            cause: NotificationCause::Drift {
                drift: Arc::new(drift.clone()),
                time: drift.since,
            },
        };
        let cluster = cluster(&["frontend"]);
        let told =
            kubernetes_events(&waiting(notification(NotificationKind::Drift)), &cluster).remove(0);
        assert_eq!(told.reason, "AddressPending");
        assert!(told.note.contains("exhausted"), "{}", told.note);
        assert!(told.note.len() <= MAX_NOTE_BYTES && told.note.ends_with('…'));
        let over = kubernetes_events(
            &waiting(notification(NotificationKind::DriftGone)),
            &cluster,
        )
        .remove(0);
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
