//! What is known of one resource, kept object by object while it changes.

use std::collections::BTreeMap;

use probe_model::Named;
use serde_json::Value;

use super::{
    model::{Broken, Freshness, Objects, Resource},
    object,
    object::{Kept, Reading},
};

/// So many services are kept, and as many statuses: twice what this is made for.
const MOST_SERVICES: usize = 20_000;

/// So many objects of MetalLB are kept of each resource: pools, and each sort of advertisements.
const MOST_OF_METALLB: usize = 3_000;

/// So many broken objects are told of each resource.
const MOST_BROKEN: usize = 200;

/// The objects of one resource.
#[derive(Debug)]
pub struct Shelf {
    resource: Resource,
    /// Objects of which nothing is kept and nothing is wrong are not here.
    readings: BTreeMap<Named, Reading>,
    /// How many did not fit since the last list.
    left_out: usize,
}

impl Shelf {
    /// Without objects.
    pub const fn new(resource: Resource) -> Self {
        Self {
            resource,
            readings: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Of what.
    pub const fn resource(&self) -> Resource {
        self.resource
    }

    /// Takes an object, new or changed. Whether that makes a difference.
    pub fn put(&mut self, object: Value) -> bool {
        let named = object::named(&object);
        let reading = object::read(self.resource, object);
        if reading.kept.is_none() && reading.broken.is_empty() {
            return self.readings.remove(&named).is_some();
        }
        let known = self.readings.get(&named);
        if known == Some(&reading) {
            return false;
        }
        if known.is_none() && self.readings.len() >= self.most() {
            self.left_out += 1;
            // Told once, by the count.
            return self.left_out == 1;
        }
        self.readings.insert(named, reading);
        true
    }

    /// Takes an object away. Whether that makes a difference.
    pub fn remove(&mut self, object: &Value) -> bool {
        self.readings.remove(&object::named(object)).is_some()
    }

    /// How many objects are kept.
    pub fn len(&self) -> usize {
        let readings = self.readings.values();
        readings.filter(|reading| reading.kept.is_some()).count()
    }

    /// Whether no object is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many objects could not be read, or not all of them.
    pub fn broken(&self) -> usize {
        let readings = self.readings.values();
        readings
            .filter(|reading| !reading.broken.is_empty())
            .count()
    }

    const fn most(&self) -> usize {
        match self.resource {
            Resource::Services | Resource::ServiceL2Statuses => MOST_SERVICES,
            Resource::IpAddressPools | Resource::L2Advertisements | Resource::BgpAdvertisements => {
                MOST_OF_METALLB
            }
        }
    }

    fn add_to(&self, objects: &mut Objects) {
        let mut broken = Vec::new();
        for reading in self.readings.values() {
            match &reading.kept {
                Some(Kept::Service(service)) => objects.services.push((**service).clone()),
                Some(Kept::Status(status)) => objects.statuses.push(status.clone()),
                Some(Kept::Metallb(object)) => objects.metallb.push(object.clone()),
                None => {}
            }
            broken.extend(reading.broken.iter().cloned());
        }
        if self.left_out > 0 {
            broken.insert(
                0,
                Broken {
                    resource: self.resource,
                    object: String::new(),
                    error: format!(
                        "there are more than {}: the others are left out",
                        self.most()
                    ),
                },
            );
        }
        broken.truncate(MOST_BROKEN);
        objects.broken.append(&mut broken);
    }
}

/// Everything that is known, as it is handed out.
pub fn objects<'a>(shelves: impl IntoIterator<Item = (&'a Shelf, Freshness)>) -> Objects {
    let mut objects = Objects::default();
    for (shelf, freshness) in shelves {
        shelf.add_to(&mut objects);
        objects.freshness.insert(shelf.resource, freshness);
    }
    objects
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Known;

    fn service(name: &str, kind: &str) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"type": kind}})
    }

    fn names(shelf: &Shelf) -> Vec<String> {
        let freshness = Freshness {
            known: Known::Current,
            heard: None,
            error: None,
        };
        let objects = objects([(shelf, freshness)]);
        let services = objects.services.into_iter();
        services.map(|service| service.named.name).collect()
    }

    #[test]
    fn objects_come_change_and_go() {
        let mut shelf = Shelf::new(Resource::Services);
        assert!(shelf.put(service("b", "LoadBalancer")));
        assert!(shelf.put(service("a", "LoadBalancer")));
        assert!(!shelf.put(service("a", "LoadBalancer")), "as it was");
        assert_eq!(names(&shelf), ["a", "b"]);
        assert!(
            shelf.put(service("a", "ClusterIP")),
            "no longer one of ours"
        );
        assert!(!shelf.put(service("c", "ClusterIP")));
        assert_eq!(names(&shelf), ["b"]);
        assert!(shelf.remove(&service("b", "LoadBalancer")));
        assert!(!shelf.remove(&service("b", "LoadBalancer")));
        assert!(shelf.is_empty());
    }

    #[test]
    fn a_broken_object_is_told_until_it_is_mended() {
        let mut shelf = Shelf::new(Resource::Services);
        let mut object = service("a", "LoadBalancer");
        object["spec"]["loadBalancerIP"] = json!("nonsense");
        shelf.put(object);
        assert_eq!((shelf.len(), shelf.broken()), (1, 1));
        shelf.put(service("a", "LoadBalancer"));
        assert_eq!((shelf.len(), shelf.broken()), (1, 0));
    }

    #[test]
    fn there_is_a_bound_and_it_is_told() {
        let mut shelf = Shelf::new(Resource::L2Advertisements);
        let objects_of = |shelf: &Shelf| {
            let freshness = Freshness {
                known: Known::Current,
                heard: None,
                error: None,
            };
            objects([(shelf, freshness)])
        };
        for number in 0..MOST_OF_METALLB + 5 {
            shelf.put(json!({"metadata": {"namespace": "m", "name": format!("a{number}")}}));
        }
        assert_eq!(shelf.len(), MOST_OF_METALLB);
        let objects = objects_of(&shelf);
        assert_eq!(objects.metallb.len(), MOST_OF_METALLB);
        assert_eq!(
            objects.broken[0].error,
            "there are more than 3000: the others are left out"
        );
    }
}
