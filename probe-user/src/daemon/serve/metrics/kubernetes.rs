//! The metrics of the connection to the cluster. Cluster data about addresses is in their own series.

use probe_cluster::{Resource, snapshot::ResourceState};
use probe_kubernetes::{ApiOutcome, ClusterHandle, health::ApiRequestKind};

use super::{
    family::{MetricFamily, bool_value},
    list,
};

/// The families. Without a cluster only the requests, the leader flag and the lost findings are exported, all 0.
pub fn families(handle: &ClusterHandle) -> String {
    let health = handle.health();
    let mut state = MetricFamily::new(list::KUBERNETES_RESOURCE);
    let mut last_update = MetricFamily::new(list::KUBERNETES_LAST_UPDATE);
    let mut objects = MetricFamily::new(list::KUBERNETES_OBJECTS);
    let mut invalid = MetricFamily::new(list::KUBERNETES_BROKEN);
    if handle.is_on() {
        for &resource in Resource::ALL {
            let known = health.resource(resource);
            let resource = resource.label();
            for &word in ResourceState::ALL {
                let is_so = bool_value(word == known.freshness.state);
                state.add([resource, word.label()], is_so);
            }
            if let Some(time) = known.freshness.last_update {
                last_update.add([resource], time.as_second());
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
    if let Some(segment_coverage) = *handle.segment_coverage().borrow() {
        on_link.add([], segment_coverage.on_link);
    }
    let mut lost = MetricFamily::new(list::KUBERNETES_LOST);
    lost.add([], health.lost_findings());
    [
        state.finish(),
        last_update.finish(),
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
    fn without_a_cluster_no_resource_metrics_are_exported() {
        let text = families(&ClusterHandle::off());
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), ApiRequestKind::COUNT * ApiOutcome::COUNT + 2);
        assert!(samples.iter().all(|sample| sample.ends_with(" 0")));
        assert!(samples.contains(&"arp_monitor_kubernetes_leader 0"));
    }

    #[test]
    fn number_of_on_link_addresses_is_exported_once_known() {
        let handle = ClusterHandle::off();
        handle
            .segment_coverage()
            .send_replace(Some(SegmentCoverage {
                on_link: 7,
                has_no_coverage: false,
            }));
        let text = families(&handle);
        let sample = "\narp_monitor_kubernetes_addresses_on_link 7\n";
        assert!(text.contains(sample), "{text}");
    }
}
