//! How well the cluster is known. What it says of addresses is said where they are.

use super::{
    family::{Family, one_if},
    list,
};
use crate::cluster::{
    Resource,
    client::{Handle, Outcome, health::Request},
    model::Known,
};

/// The families; without a cluster only the requests are there, all 0, and that this node does not speak for it.
pub fn families(handle: &Handle) -> String {
    let health = handle.health();
    let mut state = Family::new(list::KUBERNETES_RESOURCE);
    let mut heard = Family::new(list::KUBERNETES_HEARD);
    let mut objects = Family::new(list::KUBERNETES_OBJECTS);
    let mut broken = Family::new(list::KUBERNETES_BROKEN);
    if handle.is_on() {
        for &resource in Resource::ALL {
            let known = health.resource(resource);
            let resource = resource.label();
            for &word in Known::ALL {
                let is_so = one_if(word == known.freshness.known);
                state.add([resource, word.label()], is_so);
            }
            if let Some(time) = known.freshness.heard {
                heard.add([resource], time.as_second());
            }
            objects.add([resource], known.objects);
            broken.add([resource], known.broken);
        }
    }
    let mut requests = Family::new(list::KUBERNETES_REQUESTS);
    for &request in Request::ALL {
        for &outcome in Outcome::ALL {
            let count = health.requests(request, outcome);
            requests.add([request.label(), outcome.label()], count);
        }
    }
    let mut leader = Family::new(list::KUBERNETES_LEADER);
    leader.add([], one_if(health.holds()));
    [
        state.finish(),
        heard.finish(),
        objects.finish(),
        broken.finish(),
        requests.finish(),
        leader.finish(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cluster_nothing_is_said_of_its_resources() {
        let text = families(&Handle::off());
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), Request::COUNT * Outcome::COUNT + 1);
        assert!(samples.iter().all(|sample| sample.ends_with(" 0")));
        assert!(samples.contains(&"arp_monitor_kubernetes_leader 0"));
    }
}
