//! The store of one resource: its parsed objects, updated by watch events.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use probe_model::NamespacedName;
use serde_json::Value;

use super::{
    announcer_history::AnnouncerHistory,
    object,
    object::{ParseOutcome, ParsedObject},
    snapshot::{ClusterObjects, Freshness, InvalidObject, Resource},
};

/// Maximum number of stored services, and of statuses: twice the intended maximum.
const MAX_SERVICES: usize = 20_000;

/// Maximum number of stored MetalLB objects per resource.
const MAX_METALLB_OBJECTS: usize = 3_000;

/// Maximum number of reported invalid objects per resource.
const MAX_INVALID: usize = 200;

/// The parsed objects of one resource.
#[derive(Debug)]
pub struct ResourceStore {
    resource: Resource,
    /// The parsed objects, without those that are irrelevant and valid.
    objects: BTreeMap<NamespacedName, ParseOutcome>,
    /// The nodes that these objects name, or named, as announcers of services.
    announcers: AnnouncerHistory,
    /// The numbers of relevant and of invalid objects, cached because every watch event needs both.
    object: usize,
    invalid: usize,
    /// The number of objects that did not fit since the last list.
    left_out: usize,
}

impl ResourceStore {
    /// A store without objects.
    pub fn new(resource: Resource) -> Self {
        Self {
            resource,
            objects: BTreeMap::new(),
            announcers: AnnouncerHistory::default(),
            object: 0,
            invalid: 0,
            left_out: 0,
        }
    }

    /// The resource.
    pub const fn resource(&self) -> Resource {
        self.resource
    }

    /// Stores a new or changed object at `now`. Returns whether the parsed objects changed.
    pub fn apply(&mut self, object: Value, now: Timestamp) -> bool {
        let named = object::named(&object);
        let parsed = object::read(self.resource, object);
        if parsed.object.is_none() && parsed.invalid.is_empty() {
            return self.remove_named(&named, now);
        }
        let known = self.objects.get(&named);
        if known == Some(&parsed) {
            return false;
        }
        if known.is_none() && self.objects.len() >= self.capacity() {
            self.left_out += 1;
            // Reported once, by the count.
            return self.left_out == 1;
        }
        let before = known.and_then(ParseOutcome::announcer);
        let after = parsed.announcer();
        if let Some((service, node)) = before
            && after != before
        {
            self.announcers.end(service, node, now);
        }
        if let Some((service, node)) = after {
            self.announcers.start(service, node, now);
        }
        self.count(&parsed);
        if let Some(replaced) = self.objects.insert(named, parsed) {
            self.discount(&replaced);
        }
        true
    }

    fn count(&mut self, parsed: &ParseOutcome) {
        self.object += usize::from(parsed.object.is_some());
        self.invalid += usize::from(!parsed.invalid.is_empty());
    }

    fn discount(&mut self, parsed: &ParseOutcome) {
        self.object -= usize::from(parsed.object.is_some());
        self.invalid -= usize::from(!parsed.invalid.is_empty());
    }

    /// Removes an object at `now`. Returns whether the parsed objects changed.
    pub fn remove(&mut self, object: &Value, now: Timestamp) -> bool {
        self.remove_named(&object::named(object), now)
    }

    fn remove_named(&mut self, named: &NamespacedName, now: Timestamp) -> bool {
        let Some(removed) = self.objects.remove(named) else {
            return false;
        };
        self.discount(&removed);
        if let Some((service, node)) = removed.announcer() {
            self.announcers.end(service, node, now);
        }
        true
    }

    /// Inherits the announcer history of the store that this list replaces.
    pub fn inherit_announcers(&mut self, previous: Self, now: Timestamp) {
        let mut announcers = previous.announcers;
        let named = |objects: &BTreeMap<_, ParseOutcome>| -> BTreeSet<(NamespacedName, String)> {
            let announcers = objects.values().filter_map(ParseOutcome::announcer);
            announcers
                .map(|(service, node)| (service.clone(), node.to_owned()))
                .collect()
        };
        let (before, after) = (named(&previous.objects), named(&self.objects));
        for (service, node) in before.difference(&after) {
            announcers.end(service, node, now);
        }
        for (service, node) in &after {
            announcers.start(service, node, now);
        }
        announcers.retain(now);
        self.announcers = announcers;
    }

    /// The number of relevant objects.
    pub const fn len(&self) -> usize {
        self.object
    }

    /// Whether there is no relevant object.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The unknown fields of all objects.
    pub fn unknown_fields(&self) -> BTreeSet<&str> {
        let objects = self.objects.values();
        objects
            .flat_map(|parsed| &parsed.unknown_fields)
            .map(String::as_str)
            .collect()
    }

    /// The number of objects that are invalid, in part or as a whole.
    pub const fn invalid(&self) -> usize {
        self.invalid
    }

    const fn capacity(&self) -> usize {
        match self.resource {
            Resource::Services | Resource::ServiceL2Statuses => MAX_SERVICES,
            Resource::IpAddressPools | Resource::L2Advertisements | Resource::BgpAdvertisements => {
                MAX_METALLB_OBJECTS
            }
        }
    }

    fn add_to(&self, objects: &mut ClusterObjects) {
        let mut invalid = Vec::new();
        for parsed in self.objects.values() {
            match &parsed.object {
                Some(ParsedObject::Service(service)) => objects.services.push((**service).clone()),
                Some(ParsedObject::Status(status)) => objects.statuses.push(status.clone()),
                Some(ParsedObject::Metallb(object)) => objects.metallb.push(object.clone()),
                None => {}
            }
            invalid.extend(parsed.invalid.iter().cloned());
        }
        if self.left_out > 0 {
            invalid.insert(
                0,
                InvalidObject {
                    resource: self.resource,
                    object: String::new(),
                    error: format!(
                        "there are more than {}: the rest is ignored",
                        self.capacity()
                    ),
                },
            );
        }
        let changed = self.announcers.changed();
        objects.announcer_history.extend(changed.cloned());
        invalid.truncate(MAX_INVALID);
        objects.invalid.append(&mut invalid);
    }
}

/// Combines the stores into one set of objects.
pub fn objects<'a>(
    stores: impl IntoIterator<Item = (&'a ResourceStore, Freshness)>,
) -> ClusterObjects {
    let mut objects = ClusterObjects::default();
    for (store, freshness) in stores {
        store.add_to(&mut objects);
        objects.freshness.insert(store.resource, freshness);
    }
    objects
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{snapshot::ResourceState, testing::at};

    fn service(name: &str, kind: &str) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"type": kind}})
    }

    fn names(store: &ResourceStore) -> Vec<String> {
        let freshness = Freshness {
            state: ResourceState::Current,
            last_update: None,
            error: None,
        };
        let objects = objects([(store, freshness)]);
        let services = objects.services.into_iter();
        services.map(|service| service.named.name).collect()
    }

    fn now() -> Timestamp {
        at("12:00:00")
    }

    #[test]
    fn objects_come_change_and_go() {
        let mut store = ResourceStore::new(Resource::Services);
        assert!(store.apply(service("b", "LoadBalancer"), now()));
        assert!(store.apply(service("a", "LoadBalancer"), now()));
        assert!(
            !store.apply(service("a", "LoadBalancer"), now()),
            "as it was"
        );
        assert_eq!(names(&store), ["a", "b"]);
        assert!(
            store.apply(service("a", "ClusterIP"), now()),
            "no longer a load balancer"
        );
        assert!(!store.apply(service("c", "ClusterIP"), now()));
        assert_eq!(names(&store), ["b"]);
        assert!(store.remove(&service("b", "LoadBalancer"), now()));
        assert!(!store.remove(&service("b", "LoadBalancer"), now()));
        assert!(store.is_empty());
    }

    #[test]
    fn invalid_object_is_reported_until_it_is_fixed() {
        let mut store = ResourceStore::new(Resource::Services);
        let mut object = service("a", "LoadBalancer");
        object["spec"]["loadBalancerIP"] = json!("nonsense");
        store.apply(object, now());
        assert_eq!((store.len(), store.invalid()), (1, 1));
        store.apply(service("a", "LoadBalancer"), now());
        assert_eq!((store.len(), store.invalid()), (1, 0));
    }

    #[test]
    fn number_of_objects_is_bounded_and_the_overflow_is_reported() {
        let mut store = ResourceStore::new(Resource::L2Advertisements);
        let objects_of = |store: &ResourceStore| {
            let freshness = Freshness {
                state: ResourceState::Current,
                last_update: None,
                error: None,
            };
            objects([(store, freshness)])
        };
        for number in 0..MAX_METALLB_OBJECTS + 5 {
            store.apply(
                json!({"metadata": {"namespace": "m", "name": format!("a{number}")}}),
                now(),
            );
        }
        assert_eq!(store.len(), MAX_METALLB_OBJECTS);
        let objects = objects_of(&store);
        assert_eq!(objects.metallb.len(), MAX_METALLB_OBJECTS);
        assert_eq!(
            objects.invalid[0].error,
            "there are more than 3000: the rest is ignored"
        );
    }

    fn status(node: &str) -> Value {
        json!({
            "metadata": {"namespace": "metallb-system", "name": format!("l2-{node}")},
            "status": {"node": node, "serviceNamespace": "shop", "serviceName": "frontend"},
        })
    }

    #[test]
    fn nodes_that_were_named_are_remembered_also_across_lists() {
        let mut store = ResourceStore::new(Resource::ServiceL2Statuses);
        store.apply(status("node-1"), at("12:00:00"));
        store.apply(status("node-2"), at("12:00:01"));
        store.remove(&status("node-1"), at("12:00:02"));
        let past = |store: &ResourceStore| -> Vec<_> {
            let changed = store.announcers.changed();
            changed
                .map(|known| (known.node.clone(), known.until))
                .collect()
        };
        let gone = ("node-1".to_owned(), Some(at("12:00:02")));
        assert_eq!(past(&store), std::slice::from_ref(&gone));
        let mut listed = ResourceStore::new(Resource::ServiceL2Statuses);
        listed.apply(status("node-3"), at("12:00:05"));
        listed.inherit_announcers(store, at("12:00:05"));
        let also_gone = ("node-2".to_owned(), Some(at("12:00:05")));
        assert_eq!(past(&listed), [gone, also_gone]);
    }

    #[test]
    fn previous_host_of_kube_vip_is_remembered() {
        let mut store = ResourceStore::new(Resource::Services);
        for (node, time) in [("node-1", "12:00:00"), ("node-2", "12:00:01")] {
            let mut object = service("a", "LoadBalancer");
            object["metadata"]["annotations"] = json!({"kube-vip.io/vipHost": node});
            store.apply(object, at(time));
        }
        let past: Vec<_> = store
            .announcers
            .changed()
            .map(|known| known.node.as_str())
            .collect();
        assert_eq!(past, ["node-1"]);
    }
}
