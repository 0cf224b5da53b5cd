//! How well the cluster is known. What it says of addresses is said where they are.

use probe_cluster::{Resource, model::Known};
use probe_kubernetes::{Handle, Outcome, health::Request};

use super::{
    family::{Family, one_if},
    list,
};

/// The families; without a cluster only the requests are there, all 0, that this node does not speak for it, and that
/// nothing was lost.
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
    let mut on_link = Family::new(list::KUBERNETES_ON_LINK);
    if let Some(sight) = *handle.sight().borrow() {
        on_link.add([], sight.here);
    }
    let mut lost = Family::new(list::KUBERNETES_LOST);
    lost.add([], health.lost_findings());
    [
        state.finish(),
        heard.finish(),
        objects.finish(),
        broken.finish(),
        requests.finish(),
        leader.finish(),
        on_link.finish(),
        lost.finish(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use probe_cluster::tracking::Sight;

    use super::*;

    #[test]
    fn without_a_cluster_nothing_is_said_of_its_resources() {
        let text = families(&Handle::off());
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), Request::COUNT * Outcome::COUNT + 2);
        assert!(samples.iter().all(|sample| sample.ends_with(" 0")));
        assert!(samples.contains(&"arp_monitor_kubernetes_leader 0"));
    }

    #[test]
    fn how_many_addresses_are_here_is_said_once_it_is_known() {
        let handle = Handle::off();
        handle.sight().send_replace(Some(Sight {
            here: 7,
            is_blind: false,
        }));
        let text = families(&handle);
        let sample = "\narp_monitor_kubernetes_addresses_on_link 7\n";
        assert!(text.contains(sample), "{text}");
    }
}
