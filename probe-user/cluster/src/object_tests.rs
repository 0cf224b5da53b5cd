//! Parsing of valid and invalid objects.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn addresses_of(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn service_of(object: Value) -> (Service, Vec<String>) {
    let outcome = read(Resource::Services, object);
    let errors = outcome.invalid.into_iter().map(|invalid| invalid.error);
    match outcome.object {
        Some(ParsedObject::Service(service)) => (*service, errors.collect()),
        other => panic!("{other:?}"),
    }
}

fn frontend() -> Value {
    json!({
        "metadata": {
            "namespace": "shop",
            "name": "frontend",
            "uid": "7d3b",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "annotations": {
                "metallb.io/ip-allocated-from-pool": "production",
                "metallb.universe.tf/allow-shared-ip": "web",
                "metallb.universe.tf/loadBalancerIPs": "192.0.2.1, 2001:db8::1",
                "kube-vip.io/vipHost": "node-1",
                "kube-vip.io/hwaddr": "02:00:00:00:00:99",
            },
        },
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerIP": "192.0.2.1",
            "loadBalancerClass": "example.com/lb",
            "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv4", "IPv6"],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.1", "ipMode": "VIP"},
            {"hostname": "lb.example.com"},
            {"ip": "2001:db8::1"},
        ]}},
    })
}

#[test]
fn no_control_characters_are_stored() {
    let mut object = frontend();
    let annotations = &mut object["metadata"]["annotations"];
    annotations["metallb.io/ip-allocated-from-pool"] = json!("\u{1b}]52;c;AAAA\u{7}");
    let (service, errors) = service_of(object);
    assert_eq!(service.allocated_from, None);
    assert!(errors[0].ends_with("has control characters"), "{errors:?}");
    let node = json!({"metadata": {"name": "node; reboot"}});
    assert_eq!(super::node(&node, &BTreeSet::new()), None);
}

#[test]
fn assignment_time_is_read_from_managed_fields() {
    let wrote =
        |time: &str, fields: Value| json!({"manager": "m", "time": time, "fieldsV1": fields});
    let ingress = || json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
    let spec = json!({"f:spec": {"f:type": {}}});
    for (writers, expected) in [
        (
            json!([
                wrote("2026-01-02T03:04:06Z", ingress()),
                wrote("2026-01-02T03:04:05Z", ingress()),
                wrote("2026-02-01T00:00:00Z", spec.clone()),
            ]),
            Some("2026-01-02T03:04:06Z"),
        ),
        (json!([wrote("2026-02-01T00:00:00Z", spec)]), None),
        (json!([wrote("soon", ingress()), 7, {}]), None),
        (json!("nonsense"), None),
        (Value::Null, None),
    ] {
        let mut object = frontend();
        object["metadata"]["managedFields"] = writers;
        let (service, errors) = service_of(object);
        assert_eq!(errors, [""; 0]);
        let expected = expected.map(|time| time.parse().unwrap());
        assert_eq!(service.assigned, expected);
    }
}

#[test]
fn a_service_is_read() {
    let (service, errors) = service_of(frontend());
    assert_eq!(errors, [""; 0]);
    assert_eq!(service.named.to_string(), "shop/frontend");
    assert_eq!(service.uid, "7d3b");
    let created = service.created.unwrap();
    assert_eq!(created.to_string(), "2026-01-02T03:04:05Z");
    let both = addresses_of(&["192.0.2.1", "2001:db8::1"]);
    assert_eq!(service.addresses, both);
    assert_eq!(service.requested, both);
    assert_eq!(service.allocated_from.as_deref(), Some("production"));
    assert_eq!(service.requested_pool, None);
    assert_eq!(service.class.as_deref(), Some("example.com/lb"));
    assert_eq!(service.sharing_key.as_deref(), Some("web"));
    assert_eq!(service.kube_vip_host.as_deref(), Some("node-1"));
    let mac = MacAddr([2, 0, 0, 0, 0, 0x99]);
    assert_eq!(service.kube_vip_mac, Some(mac));
    assert_eq!(service.families, [AddressFamily::V4, AddressFamily::V6]);
    assert!(
        service.external_traffic_policy_local
            && service.has_ingress
            && service.has_conflicting_requests
    );
    assert!(!service.is_cilium);
}

#[test]
fn hostname_in_status_counts_as_an_assignment() {
    for (ingress, expected) in [
        (json!([{"hostname": "lb.example.com"}]), true),
        (json!([{"ip": "nonsense"}]), true),
        (json!([]), false),
        (json!("nonsense"), false),
        (Value::Null, false),
    ] {
        let mut object = frontend();
        object["status"]["loadBalancer"]["ingress"] = ingress;
        let (service, _) = service_of(object);
        assert_eq!(service.addresses, [] as [IpAddr; 0]);
        assert_eq!(service.has_ingress, expected);
    }
}

#[test]
fn metallb_annotations_are_parsed_in_both_spellings() {
    for (key, spec, expected) in [
        ("metallb.io/loadBalancerIPs", "192.0.2.1", true),
        ("metallb.universe.tf/loadBalancerIPs", "192.0.2.1", true),
        ("metallb.io/loadBalancerIPs", "", false),
        ("kube-vip.io/loadbalancerIPs", "192.0.2.1", false),
        ("lbipam.cilium.io/ips", "192.0.2.1", false),
    ] {
        let (service, errors) = service_of(json!({
            "metadata": {"namespace": "a", "name": "b", "annotations": {key: "192.0.2.1"}},
            "spec": {"type": "LoadBalancer", "loadBalancerIP": spec},
        }));
        assert_eq!(errors, [""; 0]);
        assert_eq!(
            service.has_conflicting_requests, expected,
            "{key} and {spec:?}"
        );
    }
}

#[test]
fn services_of_cilium_are_recognised_by_class_and_by_status() {
    let condition = |kind: &str, status: &str| json!([7, {"type": kind, "status": status}]);
    for (class, conditions, expected) in [
        ("io.cilium/l2-announcer", Value::Null, true),
        (
            "",
            condition("cilium.io/IPAMRequestSatisfied", "True"),
            true,
        ),
        (
            "",
            condition("io.cilium/lb-ipam-request-satisfied", "True"),
            true,
        ),
        // Cilium says so of every service, whoever gives it an address in the end.
        (
            "",
            condition("cilium.io/IPAMRequestSatisfied", "False"),
            false,
        ),
        ("", condition("example.com/Satisfied", "True"), false),
        ("example.com/lb", json!("nonsense"), false),
    ] {
        let mut object = frontend();
        object["spec"]["loadBalancerClass"] = json!(class);
        object["status"]["conditions"] = conditions.clone();
        let (service, errors) = service_of(object);
        assert_eq!(errors, [""; 0]);
        assert_eq!(service.is_cilium, expected, "{class:?} {conditions}");
    }
}

#[test]
fn invalid_address_families_and_macs_are_reported() {
    let mut object = frontend();
    object["spec"]["ipFamilies"] = json!(["IPv6", "IPX", 4, "IPv6"]);
    object["metadata"]["annotations"]["kube-vip.io/hwaddr"] = json!("02:00:00:00:00");
    let (service, errors) = service_of(object);
    assert_eq!(service.families, [AddressFamily::V6]);
    assert_eq!(service.kube_vip_mac, None);
    assert_eq!(
        errors,
        [
            "spec.ipFamilies contains an unknown IP family",
            "spec.ipFamilies contains an unknown IP family",
            "the annotation kube-vip.io/hwaddr is not a MAC address: \"02:00:00:00:00\"",
        ]
    );
}

#[test]
fn every_operators_annotations_are_read() {
    let with = |key: &str, value: &str| {
        service_of(json!({
            "metadata": {"namespace": "a", "name": "b", "annotations": {key: value}},
            "spec": {"type": "LoadBalancer"},
        }))
        .0
    };
    for key in [
        "metallb.io/loadBalancerIPs",
        "metallb.universe.tf/loadBalancerIPs",
        "kube-vip.io/loadbalancerIPs",
        "lbipam.cilium.io/ips",
        "io.cilium/lb-ipam-ips",
    ] {
        let service = with(key, "0.0.0.0,192.0.2.7 ,192.0.2.7");
        assert_eq!(service.requested, addresses_of(&["192.0.2.7"]), "{key}");
    }
    for prefix in METALLB {
        let service = with(&format!("{prefix}address-pool"), "edge");
        assert_eq!(service.requested_pool.as_deref(), Some("edge"));
    }
    for key in [
        "metallb.io/allow-shared-ip",
        "lbipam.cilium.io/sharing-key",
        "io.cilium/lb-ipam-sharing-key",
    ] {
        assert_eq!(with(key, "k").sharing_key.as_deref(), Some("k"), "{key}");
    }
}

#[test]
fn service_of_another_type_is_not_stored() {
    for spec in [json!({"type": "ClusterIP"}), json!({}), json!(null)] {
        let outcome = read(
            Resource::Services,
            json!({"metadata": {"namespace": "a", "name": "b"}, "spec": spec}),
        );
        assert_eq!(outcome.object, None);
        assert_eq!(outcome.invalid, []);
    }
}

#[test]
fn invalid_field_is_reported_and_the_other_fields_are_parsed() {
    let mut object = frontend();
    object["spec"]["loadBalancerIP"] = json!("192.0.2.300");
    object["status"]["loadBalancer"]["ingress"][1] = json!(7);
    object["status"]["loadBalancer"]["ingress"][2]["ip"] = json!({"no": "text"});
    object["metadata"]["creationTimestamp"] = json!("yesterday");
    object["metadata"]["annotations"]["metallb.io/allow-shared-ip"] = json!("x".repeat(5_000));
    let (service, errors) = service_of(object);
    assert_eq!(service.addresses, addresses_of(&["192.0.2.1"]));
    assert_eq!(service.created, None);
    // An invalid current annotation falls back to the former one.
    assert_eq!(service.sharing_key.as_deref(), Some("web"));
    let mut errors = errors;
    errors.sort();
    assert_eq!(
        errors,
        [
            "metadata.creationTimestamp is not a time",
            "spec.loadBalancerIP is not an address: \"192.0.2.300\"",
            "status.loadBalancer.ingress[1] is not an object",
            "status.loadBalancer.ingress[2].ip is not a string",
            "the annotation metallb.io/allow-shared-ip is too long",
        ]
    );
}

#[test]
fn cost_of_one_object_is_bounded() {
    let mut object = frontend();
    let many = (0..5_000).map(|n| json!({"ip": format!("10.0.{}.{}", n / 256, n % 256)}));
    object["status"]["loadBalancer"]["ingress"] = many.collect();
    let bad = (0..5_000).map(|n| format!("x{n}")).collect::<Vec<_>>();
    object["metadata"]["annotations"]["lbipam.cilium.io/ips"] = json!(bad[..500].join(","));
    let (service, errors) = service_of(object);
    assert_eq!(service.addresses.len(), MAX_ADDRESSES);
    assert_eq!(errors.len(), MAX_ERRORS);
    let pool = json!({
        "metadata": {"namespace": "m", "name": "p"},
        "spec": {"addresses": vec!["192.0.2.0/24"; 50_000]},
    });
    let outcome = read(Resource::IpAddressPools, pool);
    assert_eq!(outcome.object, None);
    assert_eq!(outcome.invalid[0].error, "the object is too large to store");
}

#[test]
fn status_is_parsed_from_fields_or_labels() {
    let expected = Some(ParsedObject::Status(L2Status {
        named: NamespacedName {
            namespace: "metallb-system".to_owned(),
            name: "l2-x".to_owned(),
        },
        node: "node-1".to_owned(),
        service: NamespacedName {
            namespace: "shop".to_owned(),
            name: "frontend".to_owned(),
        },
    }));
    let metadata = json!({"namespace": "metallb-system", "name": "l2-x"});
    let status = json!({"node": "node-1", "serviceName": "frontend", "serviceNamespace": "shop"});
    let object = json!({"metadata": metadata, "status": status});
    assert_eq!(read(Resource::ServiceL2Statuses, object).object, expected);
    let mut labelled = metadata.clone();
    labelled["labels"] = json!({
        "metallb.io/node": "node-1",
        "metallb.io/service-name": "frontend",
        "metallb.io/service-namespace": "shop",
    });
    let object = json!({"metadata": labelled, "status": {}});
    assert_eq!(read(Resource::ServiceL2Statuses, object).object, expected);
    // Made a moment ago.
    let outcome = read(Resource::ServiceL2Statuses, json!({"metadata": metadata}));
    assert_eq!((outcome.object, outcome.invalid), (None, Vec::new()));
}

#[test]
fn unused_fields_of_a_pool_are_not_stored() {
    let outcome = read(
        Resource::IpAddressPools,
        json!({
            "metadata": {
                "namespace": "m",
                "name": "p",
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {LAST_APPLIED: "{}", "team": "a"},
            },
            "spec": {"addresses": ["192.0.2.0/24"]},
        }),
    );
    assert_eq!(
        outcome.object,
        Some(ParsedObject::Metallb(json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "IPAddressPool",
            "metadata": {"namespace": "m", "name": "p", "annotations": {"team": "a"}},
            "spec": {"addresses": ["192.0.2.0/24"]},
        })))
    );
}

#[test]
fn invalid_pool_is_reported_and_its_valid_parts_are_used() {
    let errors = |spec: Value| {
        let object = json!({"metadata": {"namespace": "m", "name": "p"}, "spec": spec});
        let outcome = read(Resource::IpAddressPools, object);
        assert!(outcome.object.is_some());
        let errors = outcome.invalid.into_iter().map(|invalid| invalid.error);
        errors.collect::<Vec<_>>()
    };
    assert_eq!(errors(json!({"addresses": ["192.0.2.0/24"]})), [""; 0]);
    assert_eq!(errors(Value::Null), [""; 0]);
    assert_eq!(errors(json!("192.0.2.0/24")), ["spec is not an object"]);
    assert_eq!(
        errors(json!({"addresses": 7})),
        ["spec.addresses is not a list"]
    );
    let several = errors(json!({"addresses": ["192.0.2.0/24", "here", {}, "192.0.2.9-192.0.2.1"]}));
    assert_eq!(several.len(), 3, "{several:?}");
    assert!(
        several.iter().any(|error| error.contains("\"here\"")),
        "{several:?}"
    );
}

#[test]
fn node_keeps_addresses_and_selected_labels() {
    let object = json!({
        "metadata": {"name": "node-1", "labels": {"rack": "a", "other": "b", "odd": 1}},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.0.2.11"},
            {"type": "ExternalIP", "address": "2001:db8::11"},
            {"type": "Hostname", "address": "node-1"},
            {"type": "InternalIP", "address": "nonsense"},
            "nonsense",
        ]},
    });
    let wanted = ["rack", "odd", "none"].map(str::to_owned).into();
    let node = node(&object, &wanted).unwrap();
    assert_eq!(node.name, "node-1");
    assert_eq!(
        node.addresses,
        addresses_of(&["192.0.2.11", "2001:db8::11"])
    );
    let labels: Vec<_> = node.labels.into_iter().collect();
    let expected = [("none", None), ("odd", None), ("rack", Some("a"))];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
    assert_eq!(labels, expected);
    assert_eq!(
        super::node(&json!({"metadata": []}), &BTreeSet::new()),
        None
    );
}

#[test]
fn endpoints_without_conditions_are_ready() {
    let slice = json!({"endpoints": [
        {"conditions": {"ready": true}},
        {"conditions": {"ready": false}},
        {"conditions": {}},
        {"conditions": {"ready": null}},
    ]});
    assert_eq!(ready_endpoints(&slice), 3);
    assert_eq!(ready_endpoints(&json!({"endpoints": null})), 0);
    assert_eq!(ready_endpoints(&json!(["nonsense"])), 0);
}

/// Any JSON, with the words that are looked for at every place.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "metadata",
        "name",
        "namespace",
        "uid",
        "annotations",
        "labels",
        "spec",
        "type",
        "status",
        "loadBalancer",
        "ingress",
        "ip",
        "loadBalancerIP",
        "addresses",
        "address",
        "endpoints",
        "LoadBalancer",
        "InternalIP",
        "192.0.2.1",
        "metallb.io/loadBalancerIPs",
        "\u{1F980}",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|entries| {
                let entries = entries.into_iter();
                Value::Object(
                    entries
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_objects_cause_no_panic(object in anything()) {
        for &resource in Resource::ALL {
            let outcome = read(resource, object.clone());
            prop_assert!(outcome.invalid.len() <= MAX_ERRORS);
        }
        node(&object, &BTreeSet::from(["rack".to_owned()]));
        ready_endpoints(&object);
    }
}

#[test]
fn unknown_fields_are_listed() {
    let object = |part: &str, fields: Value| {
        let mut object = json!({"metadata": {"namespace": "metallb-system", "name": "all"}});
        object[part] = fields;
        object
    };
    for (resource, object, unknown) in [
        (
            Resource::L2Advertisements,
            object(
                "spec",
                json!({"serviceSelectors": [], "interfaces": [], "newSelectors": [], "a\u{1b}": 1}),
            ),
            &["spec.newSelectors"][..],
        ),
        (
            Resource::BgpAdvertisements,
            object("spec", json!({"peers": [], "serviceSelectors": []})),
            &[],
        ),
        (
            Resource::IpAddressPools,
            object(
                "spec",
                json!({"addresses": ["192.0.2.0/24"], "reserved": []}),
            ),
            &["spec.reserved"],
        ),
        (
            Resource::ServiceL2Statuses,
            object("status", json!({"node": "node-1", "backups": []})),
            &["status.backups"],
        ),
        (Resource::Services, object("spec", json!({"new": 1})), &[]),
    ] {
        assert_eq!(read(resource, object).unknown_fields, unknown, "{resource}");
    }
}

#[test]
fn selectable_labels_of_a_service_are_stored() {
    let mut object = frontend();
    object["metadata"]["labels"] = json!({"tier": "edge", "long": "x".repeat(64), "number": 3});
    let (service, errors) = service_of(object);
    assert_eq!(
        service.labels,
        [("tier".to_owned(), "edge".to_owned())].into()
    );
    assert_eq!(errors, [""; 0]);
}

#[test]
fn status_without_status_field_is_parsed_from_labels() {
    let object = json!({"metadata": {
        "namespace": "metallb-system",
        "name": "l2-x",
        "labels": {
            "metallb.io/node": "node-1",
            "metallb.io/service-namespace": "shop",
            "metallb.io/service-name": "frontend",
        },
    }});
    let parsed = read(Resource::ServiceL2Statuses, object);
    let (service, node) = parsed.announcer().unwrap();
    assert_eq!(
        (service.to_string().as_str(), node),
        ("shop/frontend", "node-1")
    );
}
