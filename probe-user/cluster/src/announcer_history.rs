//! The history of the nodes that status objects name as announcers of a service.
//!
//! Two MetalLB leaders delete each other's `ServiceL2Status` many times a second: at one moment the status names one of
//! them, both or none at random. Causes are therefore concluded from the names over a period of time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use probe_model::NamespacedName;
use serde::{Deserialize, Serialize};

/// The time for which a node is remembered after the status stops naming it.
const RETENTION: SignedDuration = SignedDuration::from_hours(24);
/// Maximum number of remembered nodes per service.
const MAX_NODES: usize = 8;
/// Maximum number of services with remembered nodes.
const MAX_SERVICES: usize = 20_000;
/// Two nodes that the status names alternately within this time do not receive each other's traffic.
pub const ALTERNATION_WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// A node that the status of a service names, or named, as announcer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedAnnouncer {
    /// The service.
    pub service: NamespacedName,
    /// The node.
    pub node: String,
    /// When the status stopped naming it; `None` while it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When the status last started to name it.
    pub since: Timestamp,
    /// When the status started to name it the time before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_since: Option<Timestamp>,
}

impl NamedAnnouncer {
    /// Whether the status named it at any time after `since`.
    pub fn was_named_since(&self, since: Timestamp) -> bool {
        self.until.is_none_or(|until| until >= since)
    }

    /// Whether the status started to name it twice within the minute before `now`.
    pub fn alternates(&self, now: Timestamp) -> bool {
        self.previous_since
            .is_some_and(|previous| now.duration_since(previous) <= ALTERNATION_WINDOW)
    }
}

/// The nodes that status objects name, or named, as announcers of services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnouncerHistory {
    by_service: BTreeMap<NamespacedName, Vec<NamedAnnouncer>>,
}

impl AnnouncerHistory {
    /// Records that the status names a node from `now` on.
    pub fn start(&mut self, service: &NamespacedName, node: &str, now: Timestamp) {
        if !self.by_service.contains_key(service) && self.by_service.len() >= MAX_SERVICES {
            return;
        }
        let nodes = self.by_service.entry(service.clone()).or_default();
        if let Some(known) = nodes.iter_mut().find(|known| known.node == node) {
            if known.until.take().is_some() {
                known.previous_since = Some(known.since);
                known.since = now;
            }
            return;
        }
        nodes.retain(|known| known.was_named_since(now.saturating_sub(RETENTION).unwrap_or(now)));
        if nodes.len() >= MAX_NODES {
            let oldest = nodes
                .iter()
                .enumerate()
                .min_by_key(|(_, known)| known.until.unwrap_or(now));
            if let Some((location, _)) = oldest {
                nodes.swap_remove(location);
            }
        }
        nodes.push(NamedAnnouncer {
            service: service.clone(),
            node: node.to_owned(),
            until: None,
            since: now,
            previous_since: None,
        });
    }

    /// Records that the status no longer names a node.
    pub fn end(&mut self, service: &NamespacedName, node: &str, now: Timestamp) {
        let nodes = self.by_service.get_mut(service).into_iter().flatten();
        for known in nodes.filter(|known| known.node == node) {
            known.until.get_or_insert(now);
        }
    }

    /// Removes the nodes that have not been named for a day.
    pub fn retain(&mut self, now: Timestamp) {
        let oldest = now.saturating_sub(RETENTION).unwrap_or(now);
        self.by_service.retain(|_, nodes| {
            nodes.retain(|known| known.was_named_since(oldest));
            !nodes.is_empty()
        });
    }

    /// The nodes that are no longer named, and those that are named again. The current objects do not contain this.
    pub fn changed(&self) -> impl Iterator<Item = &NamedAnnouncer> {
        let all = self.by_service.values().flatten();
        all.filter(|known| known.until.is_some() || known.previous_since.is_some())
    }

    /// All entries.
    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = &NamedAnnouncer> {
        self.by_service.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, named};

    fn nodes<'a>(named: impl Iterator<Item = &'a NamedAnnouncer>) -> Vec<&'a str> {
        named.map(|known| known.node.as_str()).collect()
    }

    #[test]
    fn alternating_announcers_are_detected_and_a_failover_is_not() {
        let service = named("shop/frontend");
        let mut history = AnnouncerHistory::default();
        history.start(&service, "node-1", at("12:00:00"));
        assert_eq!(history.changed().count(), 0);
        history.end(&service, "node-1", at("12:00:10"));
        history.start(&service, "node-2", at("12:00:10"));
        let now = at("12:00:11");
        assert_eq!(nodes(history.changed()), ["node-1"]);
        assert!(
            !history.iter().any(|known| known.alternates(now)),
            "one failover"
        );
        history.start(&service, "node-1", at("12:00:12"));
        history.end(&service, "node-2", at("12:00:12"));
        history.start(&service, "node-2", at("12:00:13"));
        let alternating = |now| nodes(history.iter().filter(move |known| known.alternates(now)));
        assert_eq!(alternating(at("12:00:14")), ["node-1", "node-2"]);
        assert_eq!(alternating(at("12:01:05")), ["node-2"]);
        assert_eq!(alternating(at("12:02:00")), [""; 0]);
    }

    #[test]
    fn announcer_has_start_and_end_times() {
        let service = named("shop/frontend");
        let mut history = AnnouncerHistory::default();
        history.start(&service, "node-1", at("12:00:00"));
        history.end(&service, "node-1", at("12:00:10"));
        let known = history.iter().next().unwrap();
        assert!(known.was_named_since(at("12:00:10")));
        assert!(!known.was_named_since(at("12:00:11")));
        let later = at("12:00:10").saturating_add(RETENTION).unwrap();
        history.retain(later);
        assert_eq!(history.iter().count(), 1);
        history.retain(later.saturating_add(SignedDuration::from_secs(1)).unwrap());
        assert_eq!(history.iter().count(), 0);
    }

    #[test]
    fn few_nodes_are_remembered_of_a_service() {
        let service = named("shop/frontend");
        let mut history = AnnouncerHistory::default();
        for number in 0..20 {
            let node = format!("node-{number}");
            history.start(&service, &node, at("12:00:00"));
            history.end(&service, &node, at("12:00:00"));
        }
        assert_eq!(history.iter().count(), MAX_NODES);
    }
}
