use probe_model::Link;
use serde_json::{Value, json};

use super::*;
use crate::{
    ClusterObjects,
    snapshot::InvalidObject,
    testing::{at, freshness_of, metallb, objects, pool, service},
};

fn on_link_here() -> OnLinkNetworks {
    let link = Link {
        index: 2,
        ethernet: true,
        arp: true,
        addresses: vec!["192.0.2.1/24".parse().unwrap()],
        ..Link::default()
    };
    OnLinkNetworks::new(&[link].into_iter().collect(), |_| true)
}

/// The time since which the agent observes the network.
fn noon() -> Timestamp {
    at("12:00:00")
}

#[test]
fn local_speaker_may_announce_addresses_taken_over_before_the_daemon_started() {
    let assigned = |times: &[Option<&str>]| {
        let mut objects = advertised(&[("L2Advertisement", json!({}))]);
        let service = objects.services.remove(0);
        objects.services = times
            .iter()
            .map(|time| Service {
                assigned: time.map(at),
                ..service.clone()
            })
            .collect();
        objects
    };
    for (times, announcer) in [
        (&[None][..], LocalAnnouncement::PossiblyLocal),
        (&[Some("11:00:00")], LocalAnnouncement::PossiblyLocal),
        (&[Some("12:00:30")], LocalAnnouncement::PossiblyLocal),
        (&[Some("12:01:30")], LocalAnnouncement::Elsewhere),
        (
            &[Some("12:01:30"), Some("11:00:00")],
            LocalAnnouncement::PossiblyLocal,
        ),
    ] {
        let survey = compute_coverage(
            &ClusterSnapshot::from(assigned(times)),
            &on_link_here(),
            noon(),
        )
        .unwrap();
        let announcers: Vec<_> = survey.expected.into_values().collect();
        assert_eq!(announcers, [announcer], "{times:?}");
    }
}

fn tracked(objects: ClusterObjects) -> Option<Vec<String>> {
    let expected =
        compute_coverage(&ClusterSnapshot::from(objects), &on_link_here(), noon())?.expected;
    let mut ips: Vec<_> = expected.keys().map(|key| key.ip.to_string()).collect();
    ips.sort();
    Some(ips)
}

/// A cluster with a service with an address of a pool, and these advertisements.
fn advertised(advertisements: &[(&str, Value)]) -> ClusterObjects {
    let mut metallb_objects = vec![pool("production", json!({"addresses": ["192.0.2.64/26"]}))];
    metallb_objects.extend(
        advertisements
            .iter()
            .map(|(kind, spec)| metallb(kind, "metallb-system/advertisement", spec.clone())),
    );
    ClusterObjects {
        services: vec![service("shop/frontend", &["192.0.2.80"])],
        metallb: metallb_objects,
        ..objects()
    }
}

#[test]
fn on_link_layer_2_address_is_expected() {
    let l2 = advertised(&[("L2Advertisement", json!({}))]);
    assert_eq!(tracked(l2).unwrap(), ["192.0.2.80"]);
    let both = advertised(&[
        ("L2Advertisement", json!({"ipAddressPools": ["production"]})),
        ("BGPAdvertisement", json!({})),
    ]);
    assert_eq!(tracked(both).unwrap(), ["192.0.2.80"]);
    let interfaces = advertised(&[("L2Advertisement", json!({"interfaces": ["eth9"]}))]);
    assert_eq!(
        tracked(interfaces).unwrap(),
        ["192.0.2.80"],
        "configured on some node"
    );
}

#[test]
fn address_announced_by_bgp_only_or_not_at_all_is_not_expected() {
    let bgp = advertised(&[("BGPAdvertisement", json!({}))]);
    assert_eq!(tracked(bgp).unwrap(), [""; 0]);
    assert_eq!(tracked(advertised(&[])).unwrap(), [""; 0]);
    let other = advertised(&[("L2Advertisement", json!({"ipAddressPools": ["staging"]}))]);
    assert_eq!(tracked(other).unwrap(), [""; 0]);
}

#[test]
fn off_link_and_ipv6_addresses_are_not_expected() {
    let elsewhere = ClusterObjects {
        services: vec![service("shop/frontend", &["198.51.100.80", "2001:db8::80"])],
        ..objects()
    };
    assert_eq!(tracked(elsewhere).unwrap(), [""; 0]);
}

#[test]
fn address_without_metallb_pool_is_expected_unless_its_class_is_bgp() {
    let class = |class: Option<&str>| ClusterObjects {
        services: vec![Service {
            class: class.map(str::to_owned),
            ..service("shop/frontend", &["192.0.2.80"])
        }],
        ..objects()
    };
    for layer_2 in [
        None,
        Some("io.cilium/l2-announcer"),
        Some("kube-vip.io/kube-vip-class"),
    ] {
        assert_eq!(
            tracked(class(layer_2)).unwrap(),
            ["192.0.2.80"],
            "{layer_2:?}"
        );
    }
    let bgp = class(Some("io.cilium/bgp-control-plane"));
    assert_eq!(tracked(bgp).unwrap(), [""; 0]);
}

#[test]
fn no_conclusion_before_all_resources_are_listed() {
    assert_eq!(tracked(ClusterObjects::default()), None);
    let mut early = advertised(&[]);
    early.freshness.insert(
        Resource::L2Advertisements,
        freshness_of(ResourceState::NeverRead),
    );
    assert_eq!(tracked(early), None);
}

#[test]
fn invalid_advertisement_is_assumed_to_exist() {
    let forbidden = |advertisements: &[(&str, Value)]| {
        let mut objects = advertised(advertisements);
        let freshness = freshness_of(ResourceState::Forbidden);
        objects
            .freshness
            .insert(Resource::L2Advertisements, freshness);
        objects
    };
    assert_eq!(tracked(forbidden(&[])).unwrap(), ["192.0.2.80"]);
    let bgp = forbidden(&[("BGPAdvertisement", json!({}))]);
    assert_eq!(tracked(bgp).unwrap(), [""; 0], "the selector is used");
}

#[test]
fn address_outside_all_pools_may_be_in_an_invalid_pool() {
    let mut objects = advertised(&[("L2Advertisement", json!({}))]);
    objects.services[0].addresses = vec!["192.0.2.10".parse().unwrap()];
    assert_eq!(tracked(objects.clone()).unwrap(), ["192.0.2.10"]);
    let mut invalid = objects.clone();
    invalid.invalid.push(InvalidObject {
        resource: Resource::IpAddressPools,
        object: "metallb-system/other".to_owned(),
        error: "is too large".to_owned(),
    });
    assert_eq!(tracked(invalid).unwrap(), [""; 0]);
    let freshness = freshness_of(ResourceState::Forbidden);
    objects
        .freshness
        .insert(Resource::IpAddressPools, freshness);
    assert_eq!(tracked(objects), None);
}

#[test]
fn ten_thousand_addresses_are_evaluated_quickly() {
    let services = (0..10_000_u32).map(|number| {
        let ip = std::net::Ipv4Addr::from(0x0a00_0001 + number).to_string();
        service(&format!("shop/{number}"), &[&ip])
    });
    let many = ClusterObjects {
        services: services.collect(),
        metallb: vec![
            pool("production", json!({"addresses": ["10.0.0.0/8"]})),
            metallb("L2Advertisement", "metallb-system/all", json!({})),
        ],
        ..objects()
    };
    let link = Link {
        index: 2,
        arp: true,
        addresses: vec!["10.255.0.1/8".parse().unwrap()],
        ..Link::default()
    };
    let on_link = OnLinkNetworks::new(&[link].into_iter().collect(), |_| true);
    let survey = compute_coverage(&ClusterSnapshot::from(many), &on_link, noon()).unwrap();
    assert_eq!(survey.expected.len(), 10_000);
    assert_eq!(survey.segment_coverage.on_link, 10_000);
}

#[test]
fn node_lacks_coverage_if_no_expected_address_is_on_link() {
    let segment_coverage = |objects: ClusterObjects| {
        let survey = compute_coverage(&ClusterSnapshot::from(objects), &on_link_here(), noon());
        survey.map(|survey| survey.segment_coverage)
    };
    let coverage_of = |on_link, has_no_coverage| {
        Some(SegmentCoverage {
            on_link,
            has_no_coverage,
        })
    };
    let having = |addresses: &[&str]| ClusterObjects {
        services: vec![service("shop/frontend", addresses)],
        ..objects()
    };
    assert_eq!(segment_coverage(having(&[])), coverage_of(0, false));
    assert_eq!(
        segment_coverage(having(&["198.51.100.80"])),
        coverage_of(0, true)
    );
    assert_eq!(
        segment_coverage(having(&["198.51.100.80", "192.0.2.80", "192.0.2.81"])),
        coverage_of(2, false)
    );
    assert_eq!(
        segment_coverage(having(&["2001:db8::80"])),
        coverage_of(0, false)
    );
    let mut bgp = advertised(&[("BGPAdvertisement", json!({}))]);
    assert_eq!(segment_coverage(bgp.clone()), coverage_of(0, false));
    // On other networks, too, only addresses announced on layer 2 count.
    bgp.metallb[0] = pool("production", json!({"addresses": ["198.51.100.64/26"]}));
    bgp.services[0].addresses = vec!["198.51.100.80".parse().unwrap()];
    assert_eq!(segment_coverage(bgp), coverage_of(0, false));
    assert_eq!(segment_coverage(ClusterObjects::default()), None);
}

#[test]
fn an_address_that_no_advertisement_is_for_is_not_expected() {
    let selecting = json!({"serviceSelectors": [{"matchLabels": {"tier": "edge"}}]});
    let with_label = |tier: &str| {
        let mut objects = advertised(&[("L2Advertisement", selecting.clone())]);
        objects.services[0].labels = [("tier".to_owned(), tier.to_owned())].into();
        tracked(objects).unwrap()
    };
    assert_eq!(with_label("edge"), ["192.0.2.80"]);
    assert_eq!(with_label("inner"), [""; 0]);
}
