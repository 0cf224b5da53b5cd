//! What is known of one resource, kept object by object while it changes.

use std::collections::BTreeMap;

use probe_model::NamespacedName;
use serde_json::Value;

use super::{
    object,
    object::{ParseOutcome, ParsedObject},
    snapshot::{ClusterObjects, Freshness, InvalidObject, Resource},
};

/// So many services are kept, and as many statuses: twice what this is made for.
const MAX_SERVICES: usize = 20_000;

/// So many objects of MetalLB are kept of each resource: pools, and each sort of advertisements.
const MAX_METALLB_OBJECTS: usize = 3_000;

/// So many broken objects are told of each resource.
const MAX_INVALID: usize = 200;

/// The objects of one resource.
#[derive(Debug)]
pub struct ResourceStore {
    resource: Resource,
    /// Objects of which nothing is kept and nothing is wrong are not here.
    objects: BTreeMap<NamespacedName, ParseOutcome>,
    /// How many did not fit since the last list.
    left_out: usize,
}

impl ResourceStore {
    /// Without objects.
    pub const fn new(resource: Resource) -> Self {
        Self {
            resource,
            objects: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Of what.
    pub const fn resource(&self) -> Resource {
        self.resource
    }

    /// Takes an object, new or changed. Whether that makes a difference.
    pub fn apply(&mut self, object: Value) -> bool {
        let named = object::named(&object);
        let reading = object::read(self.resource, object);
        if reading.kept.is_none() && reading.broken.is_empty() {
            return self.objects.remove(&named).is_some();
        }
        let known = self.objects.get(&named);
        if known == Some(&reading) {
            return false;
        }
        if known.is_none() && self.objects.len() >= self.capacity() {
            self.left_out += 1;
            // Told once, by the count.
            return self.left_out == 1;
        }
        self.objects.insert(named, reading);
        true
    }

    /// Takes an object away. Whether that makes a difference.
    pub fn remove(&mut self, object: &Value) -> bool {
        self.objects.remove(&object::named(object)).is_some()
    }

    /// How many objects are kept.
    pub fn len(&self) -> usize {
        let objects = self.objects.values();
        objects.filter(|reading| reading.kept.is_some()).count()
    }

    /// Whether no object is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many objects could not be read, or not all of them.
    pub fn invalid(&self) -> usize {
        let objects = self.objects.values();
        objects.filter(|reading| !reading.broken.is_empty()).count()
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
        let mut broken = Vec::new();
        for reading in self.objects.values() {
            match &reading.kept {
                Some(ParsedObject::Service(service)) => objects.services.push((**service).clone()),
                Some(ParsedObject::Status(status)) => objects.statuses.push(status.clone()),
                Some(ParsedObject::Metallb(object)) => objects.metallb.push(object.clone()),
                None => {}
            }
            broken.extend(reading.broken.iter().cloned());
        }
        if self.left_out > 0 {
            broken.insert(
                0,
                InvalidObject {
                    resource: self.resource,
                    object: String::new(),
                    error: format!(
                        "there are more than {}: the others are left out",
                        self.capacity()
                    ),
                },
            );
        }
        broken.truncate(MAX_INVALID);
        objects.broken.append(&mut broken);
    }
}

/// Everything that is known, as it is handed out.
pub fn objects<'a>(
    stores: impl IntoIterator<Item = (&'a ResourceStore, Freshness)>,
) -> ClusterObjects {
    let mut objects = ClusterObjects::default();
    for (shelf, freshness) in stores {
        shelf.add_to(&mut objects);
        objects.freshness.insert(shelf.resource, freshness);
    }
    objects
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::ResourceState;

    fn service(name: &str, kind: &str) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"type": kind}})
    }

    fn names(shelf: &ResourceStore) -> Vec<String> {
        let freshness = Freshness {
            known: ResourceState::Current,
            heard: None,
            error: None,
        };
        let objects = objects([(shelf, freshness)]);
        let services = objects.services.into_iter();
        services.map(|service| service.named.name).collect()
    }

    #[test]
    fn objects_come_change_and_go() {
        let mut shelf = ResourceStore::new(Resource::Services);
        assert!(shelf.apply(service("b", "LoadBalancer")));
        assert!(shelf.apply(service("a", "LoadBalancer")));
        assert!(!shelf.apply(service("a", "LoadBalancer")), "as it was");
        assert_eq!(names(&shelf), ["a", "b"]);
        assert!(
            shelf.apply(service("a", "ClusterIP")),
            "no longer one of ours"
        );
        assert!(!shelf.apply(service("c", "ClusterIP")));
        assert_eq!(names(&shelf), ["b"]);
        assert!(shelf.remove(&service("b", "LoadBalancer")));
        assert!(!shelf.remove(&service("b", "LoadBalancer")));
        assert!(shelf.is_empty());
    }

    #[test]
    fn a_broken_object_is_told_until_it_is_mended() {
        let mut shelf = ResourceStore::new(Resource::Services);
        let mut object = service("a", "LoadBalancer");
        object["spec"]["loadBalancerIP"] = json!("nonsense");
        shelf.apply(object);
        assert_eq!((shelf.len(), shelf.invalid()), (1, 1));
        shelf.apply(service("a", "LoadBalancer"));
        assert_eq!((shelf.len(), shelf.invalid()), (1, 0));
    }

    #[test]
    fn there_is_a_bound_and_it_is_told() {
        let mut shelf = ResourceStore::new(Resource::L2Advertisements);
        let objects_of = |shelf: &ResourceStore| {
            let freshness = Freshness {
                known: ResourceState::Current,
                heard: None,
                error: None,
            };
            objects([(shelf, freshness)])
        };
        for number in 0..MAX_METALLB_OBJECTS + 5 {
            shelf.apply(json!({"metadata": {"namespace": "m", "name": format!("a{number}")}}));
        }
        assert_eq!(shelf.len(), MAX_METALLB_OBJECTS);
        let objects = objects_of(&shelf);
        assert_eq!(objects.metallb.len(), MAX_METALLB_OBJECTS);
        assert_eq!(
            objects.broken[0].error,
            "there are more than 3000: the others are left out"
        );
    }
}
