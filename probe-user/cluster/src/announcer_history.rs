//! Which nodes were said to announce a service, and when.
//!
//! Two MetalLB leaders delete each other's `ServiceL2Status` many times a second: at one moment the status names one of
//! them, both or none at random. Causes are therefore concluded from what was said over a period of time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use probe_model::NamespacedName;
use serde::{Deserialize, Serialize};

/// How long a node that is no longer named is remembered.
const RETENTION: SignedDuration = SignedDuration::from_hours(24);
/// Nodes that are remembered of one service.
const MAX_NODES: usize = 8;
/// Services of which nodes are remembered.
const MAX_SERVICES: usize = 20_000;
/// Two nodes that are named in turns within this do not see each other.
pub const ALTERNATION_WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// A node that is or was said to announce a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedAnnouncer {
    /// The service.
    pub service: NamespacedName,
    /// The node.
    pub node: String,
    /// Until when it was named; `None` while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it began to be named.
    pub since: Timestamp,
    /// When it began to be named the time before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_since: Option<Timestamp>,
}

impl NamedAnnouncer {
    /// Whether it was named at some time from `since` on.
    pub fn was_named_since(&self, since: Timestamp) -> bool {
        self.until.is_none_or(|until| until >= since)
    }

    /// Whether it began to be named twice within the minute before `now`.
    pub fn alternates(&self, now: Timestamp) -> bool {
        self.previous_since
            .is_some_and(|previous| now.duration_since(previous) <= ALTERNATION_WINDOW)
    }
}

/// The nodes that are or were said to announce services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnouncerHistory {
    by_service: BTreeMap<NamespacedName, Vec<NamedAnnouncer>>,
}

impl AnnouncerHistory {
    /// A node is named from now on.
    pub fn begin(&mut self, service: &NamespacedName, node: &str, now: Timestamp) {
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
            if let Some((place, _)) = oldest {
                nodes.swap_remove(place);
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

    /// A node is no longer named.
    pub fn end(&mut self, service: &NamespacedName, node: &str, now: Timestamp) {
        let nodes = self.by_service.get_mut(service).into_iter().flatten();
        for known in nodes.filter(|known| known.node == node) {
            known.until.get_or_insert(now);
        }
    }

    /// Forgets the nodes that have not been named for a day.
    pub fn retain(&mut self, now: Timestamp) {
        let oldest = now.saturating_sub(RETENTION).unwrap_or(now);
        self.by_service.retain(|_, nodes| {
            nodes.retain(|known| known.was_named_since(oldest));
            !nodes.is_empty()
        });
    }

    /// The nodes that are no longer named, and those that are named again: what the objects of this moment do not say.
    pub fn changed(&self) -> impl Iterator<Item = &NamedAnnouncer> {
        let all = self.by_service.values().flatten();
        all.filter(|known| known.until.is_some() || known.previous_since.is_some())
    }

    /// All of them.
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
    fn nodes_that_are_named_in_turns_alternate_and_a_failover_does_not() {
        let service = named("shop/frontend");
        let mut history = AnnouncerHistory::default();
        history.begin(&service, "node-1", at("12:00:00"));
        assert_eq!(history.changed().count(), 0);
        history.end(&service, "node-1", at("12:00:10"));
        history.begin(&service, "node-2", at("12:00:10"));
        let now = at("12:00:11");
        assert_eq!(nodes(history.changed()), ["node-1"]);
        assert!(
            !history.iter().any(|known| known.alternates(now)),
            "one failover"
        );
        history.begin(&service, "node-1", at("12:00:12"));
        history.end(&service, "node-2", at("12:00:12"));
        history.begin(&service, "node-2", at("12:00:13"));
        let alternating = |now| nodes(history.iter().filter(move |known| known.alternates(now)));
        assert_eq!(alternating(at("12:00:14")), ["node-1", "node-2"]);
        assert_eq!(alternating(at("12:01:05")), ["node-2"]);
        assert_eq!(alternating(at("12:02:00")), [""; 0]);
    }

    #[test]
    fn a_node_is_named_since_a_time_until_it_is_named_no_more() {
        let service = named("shop/frontend");
        let mut history = AnnouncerHistory::default();
        history.begin(&service, "node-1", at("12:00:00"));
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
            history.begin(&service, &node, at("12:00:00"));
            history.end(&service, &node, at("12:00:00"));
        }
        assert_eq!(history.iter().count(), MAX_NODES);
    }
}
