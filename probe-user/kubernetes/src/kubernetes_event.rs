//! The Events for a notification. Pure.

use probe_cluster::{ClusterSnapshot, drift::DriftKind};
use probe_common::label_enum;
use probe_model::{NamespacedName, Severity, truncate};
use probe_notify::{NotificationCause, NotificationKind, QueuedNotification, message::event_note};

/// The API server's limit for a note.
const MAX_NOTE_BYTES: usize = 1024;

label_enum! {
    /// The types of Events.
    pub enum KubernetesEventType {
        /// A normal condition.
        Normal = "Normal",
        /// A problem.
        Warning = "Warning",
    }
}

/// An Event on a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesEvent {
    /// The Service.
    pub service: NamespacedName,
    /// The Service's UID.
    pub uid: String,
    /// The reason, one word.
    pub reason: &'static str,
    /// The type.
    pub event_type: KubernetesEventType,
    /// The note, sentences.
    pub note: String,
}

/// The Events for a notification, one for each of its Services that still exists.
pub fn kubernetes_events(
    queued: &QueuedNotification,
    cluster: &ClusterSnapshot,
) -> Vec<KubernetesEvent> {
    let notification = &queued.last;
    let services: Vec<&NamespacedName> = match &notification.cause {
        NotificationCause::Finding(record) => match &record.cluster {
            Some(context) => context.services.iter().collect(),
            None => Vec::new(),
        },
        NotificationCause::Drift { drift, .. } => drift.service.iter().collect(),
    };
    let Some(reason) = reason(queued) else {
        return Vec::new();
    };
    let event_type = if notification.severity >= Severity::Warning {
        KubernetesEventType::Warning
    } else {
        KubernetesEventType::Normal
    };
    let note = truncate(event_note(queued), MAX_NOTE_BYTES);
    let all = cluster.services().iter();
    let concerned = all.filter(|service| services.contains(&&service.named));
    concerned
        .map(|service| KubernetesEvent {
            service: service.named.clone(),
            uid: service.uid.clone(),
            reason,
            event_type,
            note: note.clone(),
        })
        .collect()
}

/// The reason of the Event, a stable identifier that people and alerts select by.
fn reason(queued: &QueuedNotification) -> Option<&'static str> {
    let notification = &queued.last;
    let drift = notification.drift().map(|drift| drift.drift);
    Some(match (notification.kind, drift) {
        (NotificationKind::Conflict, _) => "AddressConflict",
        (NotificationKind::ConflictResolved, _) => "AddressConflictResolved",
        (NotificationKind::ConflictExpired, _) => "AddressConflictExpired",
        (NotificationKind::StaleAnnouncement, _) => "AddressStaleAnnouncement",
        // A quiet conflict is still open, and its Event exists.
        (NotificationKind::ConflictQuiet | NotificationKind::Missed, _)
        | (NotificationKind::Drift | NotificationKind::DriftGone, None) => {
            return None;
        }
        (NotificationKind::Drift, Some(kind)) => drift_reasons(kind)?.0,
        (NotificationKind::DriftGone, Some(kind)) => drift_reasons(kind)?.1,
    })
}

/// The reasons for the start and the end of a drift; `None` for drifts that are not about a Service.
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

#[cfg(test)]
pub(super) mod tests {
    use probe_cluster::{
        ClusterObjects, Service,
        drift::{Drift, PendingReason},
    };
    use probe_model::{AddressContext, AnnouncementMode};
    use probe_notify::{
        Notification, NotificationQueue,
        testing::{change_finding, drift_notification, notification},
    };

    use super::*;

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

    /// A name in the namespace `shop`, unless it contains another.
    pub fn named(name: &str) -> NamespacedName {
        let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
        NamespacedName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The cluster's context of an address of these services.
    pub fn context(names: &[&str]) -> AddressContext {
        AddressContext {
            services: names.iter().map(|name| named(name)).collect(),
            pool: None,
            announced: AnnouncementMode::Layer2,
            announcers: Vec::new(),
            cause: None,
        }
    }

    /// A notification about the address 192.0.2.N of these services.
    pub fn conflict(last: u8, names: &[&str], kind: NotificationKind) -> Notification {
        let mut notification = notification(last, kind);
        change_finding(&mut notification, |record| {
            record.cluster = Some(Box::new(context(names)));
        });
        notification
    }

    fn queued(notification: Notification) -> QueuedNotification {
        let mut queue = NotificationQueue::default();
        queue.push(notification);
        queue.batch(1).listed.remove(0)
    }

    #[test]
    fn a_conflict_is_an_event_on_each_service_that_has_the_address() {
        let services = ["frontend", "backend", "gone"];
        let events = kubernetes_events(
            &queued(conflict(10, &services, NotificationKind::Conflict)),
            &cluster(&["backend", "frontend", "other"]),
        );
        let found: Vec<_> = events
            .iter()
            .map(|event| (event.service.to_string(), event.uid.as_str(), event.reason))
            .collect();
        let expected = ["backend", "frontend"].map(|name| (format!("shop/{name}"), name));
        assert_eq!(found.len(), 2);
        for ((service, uid, reason), (expected, name)) in found.into_iter().zip(expected) {
            assert_eq!(
                (service, uid),
                (expected, format!("uid-of-{name}").as_str())
            );
            assert_eq!(reason, "AddressConflict");
        }
        assert_eq!(events[0].event_type, KubernetesEventType::Warning);
        for part in [
            "192.0.2.10 has 2 owners",
            "02:64:72:69:6c:01",
            "02:64:72:69:6c:02",
            "probe ",
        ] {
            assert!(events[0].note.contains(part), "{}", events[0].note);
        }
    }

    #[test]
    fn resolution_is_a_normal_event_and_quiet_is_no_event() {
        let cluster = cluster(&["frontend"]);
        let events = |kind| kubernetes_events(&queued(conflict(10, &["frontend"], kind)), &cluster);
        let end = events(NotificationKind::ConflictResolved);
        assert_eq!(
            (end[0].reason, end[0].event_type),
            ("AddressConflictResolved", KubernetesEventType::Normal)
        );
        assert_eq!(events(NotificationKind::ConflictQuiet), []);
        let without_service = queued(notification(10, NotificationKind::Conflict));
        assert_eq!(kubernetes_events(&without_service, &cluster), []);
    }

    #[test]
    fn drift_becomes_an_event_on_its_service() {
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
            summary: "shop/frontend waits for an address".to_owned(),
            evidence: vec!["ä".repeat(2_000)],
        };
        let cluster = cluster(&["frontend"]);
        let event = |kind| {
            let queued = queued(drift_notification(kind, drift.clone()));
            kubernetes_events(&queued, &cluster).remove(0)
        };
        let begins = event(NotificationKind::Drift);
        assert_eq!(begins.reason, "AddressPending");
        assert!(begins.note.contains("exhausted"), "{}", begins.note);
        assert!(begins.note.len() <= MAX_NOTE_BYTES && begins.note.ends_with('…'));
        assert_eq!(event(NotificationKind::DriftGone).reason, "AddressAssigned");
    }

    #[test]
    fn event_reasons_are_valid_for_the_api_server() {
        for &kind in DriftKind::ALL {
            for reason in drift_reasons(kind).into_iter().flat_map(<[_; 2]>::from) {
                assert!(reason.len() <= 128 && reason.chars().all(char::is_alphanumeric));
            }
        }
    }
}
