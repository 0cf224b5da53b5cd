//! How well the cluster is known. What it says of addresses is said where they are.

use probe_cluster::{Resource, snapshot::ResourceState};
use probe_kubernetes::{ApiOutcome, ClusterHandle, health::ApiRequestKind};

use super::{
    family::{MetricFamily, bool_value},
    list,
};

/// The families; without a cluster only the requests are there, all 0, that this node does not speak for it, and that
/// nothing was lost.
pub fn families(handle: &ClusterHandle) -> String {
    let health = handle.health();
    let mut state = MetricFamily::new(list::KUBERNETES_RESOURCE);
    let mut heard = MetricFamily::new(list::KUBERNETES_HEARD);
    let mut objects = MetricFamily::new(list::KUBERNETES_OBJECTS);
    let mut invalid = MetricFamily::new(list::KUBERNETES_BROKEN);
    if handle.is_on() {
        for &resource in Resource::ALL {
            let known = health.resource(resource);
            let resource = resource.label();
            for &word in ResourceState::ALL {
                let is_so = bool_value(word == known.freshness.known);
                state.add([resource, word.label()], is_so);
            }
            if let Some(time) = known.freshness.heard {
                heard.add([resource], time.as_second());
            }
            objects.add([resource], known.objects);
            invalid.add([resource], known.invalid);
        }
    }
    let mut requests = MetricFamily::new(list::KUBERNETES_REQUESTS);
    for &request in ApiRequestKind::ALL {
        for &outcome in ApiOutcome::ALL {
            let count = health.requests(request, outcome);
            requests.add([request.label(), outcome.label()], count);
        }
    }
    let mut leader = MetricFamily::new(list::KUBERNETES_LEADER);
    leader.add([], bool_value(health.is_leader()));
    let mut on_link = MetricFamily::new(list::KUBERNETES_ON_LINK);
    if let Some(sight) = *handle.segment_coverage().borrow() {
        on_link.add([], sight.here);
    }
    let mut lost = MetricFamily::new(list::KUBERNETES_LOST);
    lost.add([], health.lost_findings());
    [
        state.finish(),
        heard.finish(),
        objects.finish(),
        invalid.finish(),
        requests.finish(),
        leader.finish(),
        on_link.finish(),
        lost.finish(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use probe_cluster::tracking::SegmentCoverage;

    use super::*;

    #[test]
    fn without_a_cluster_nothing_is_said_of_its_resources() {
        let text = families(&ClusterHandle::off());
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), ApiRequestKind::COUNT * ApiOutcome::COUNT + 2);
        assert!(samples.iter().all(|sample| sample.ends_with(" 0")));
        assert!(samples.contains(&"arp_monitor_kubernetes_leader 0"));
    }

    #[test]
    fn how_many_addresses_are_here_is_said_once_it_is_known() {
        let handle = ClusterHandle::off();
        handle
            .segment_coverage()
            .send_replace(Some(SegmentCoverage {
                here: 7,
                is_blind: false,
            }));
        let text = families(&handle);
        let sample = "\narp_monitor_kubernetes_addresses_on_link 7\n";
        assert!(text.contains(sample), "{text}");
    }
}
