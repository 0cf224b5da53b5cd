//! The manifests: what Helm, kubectl and the Kubernetes schemas check, and what none of them checks.

use std::{collections::BTreeMap, fs, path::Path};

use probe_tests::{Chart, deploy, kustomize, objects, valid_objects};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The oldest version that has schemas, and a new one.
const KUBERNETES: [&str; 2] = ["1.25", "1.37"];

const NAME: &str = "arp-monitor";

/// The objects beside the base, each with its switch in the values of the chart.
const EXTRAS: [(&str, &str); 5] = [
    ("dashboard", "dashboard"),
    ("prometheus-rule", "prometheusRule"),
    ("pod-monitor", "podMonitor"),
    ("resource-quota", "resourceQuota"),
    ("security-context-constraints", "securityContextConstraints"),
];

fn render(values: &Value) -> Vec<Value> {
    let templates = Chart::of_this_repository()
        .render(NAME, NAME, values)
        .unwrap();
    let manifests: Vec<_> = templates
        .into_iter()
        .filter(|(template, _)| is_manifest(template))
        .map(|(_, text)| text)
        .collect();
    objects(&manifests.join("\n---\n")).unwrap()
}

/// Whether a template is a manifest; the notes that Helm prints after an installation are not.
fn is_manifest(template: &str) -> bool {
    Path::new(template)
        .extension()
        .is_some_and(|kind| kind == "yaml")
}

fn plain(file: &str) -> Vec<Value> {
    objects(&plain_text(file)).unwrap()
}

fn plain_text(file: &str) -> String {
    fs::read_to_string(deploy().join("kubernetes").join(file)).unwrap()
}

fn kustomized(directory: &Path) -> Vec<Value> {
    objects(&kustomize(directory).unwrap()).unwrap()
}

/// Objects by kind and name, because each tool has its own order.
fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let number = objects.len();
    let named: BTreeMap<_, _> = objects
        .into_iter()
        .map(|one| (format!("{} {}", one["kind"], one["metadata"]["name"]), one))
        .collect();
    assert_eq!(named.len(), number, "two objects with the same name");
    named
}

/// Compares objects and names only those that differ: whole objects fill pages.
fn assert_same(form: BTreeMap<String, Value>, chart: &BTreeMap<String, Value>) {
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&form), names(chart));
    for (name, object) in form {
        assert!(
            chart[&name] == object,
            "{name} differs from the rendered chart: run `cargo xtask manifests`"
        );
    }
}

fn the<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let all: Vec<_> = objects.iter().filter(|one| one["kind"] == kind).collect();
    assert_eq!(all.len(), 1, "{kind}");
    all[0]
}

fn container(objects: &[Value]) -> &Value {
    let containers = &the(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(1));
    &containers[0]
}

/// The bytes of a quantity with one of the suffixes in use.
fn bytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().unwrap();
    let mebibytes: u64 = text.strip_suffix("Mi").unwrap().parse().unwrap();
    mebibytes << 20
}

/// Renders a kustomization outside of the repository, as users have it. Each `deploy` in it is replaced by the path
/// to that directory.
fn kustomized_elsewhere(kustomization: &str) -> Vec<Value> {
    let directory = TempDir::new().unwrap();
    // Kustomize accepts no absolute path, and `..` of the root is the root.
    let way = format!("{}{}", "../".repeat(32), deploy().display());
    let kustomization = kustomization.replace("deploy", &way);
    fs::write(directory.path().join("kustomization.yaml"), kustomization).unwrap();
    kustomized(directory.path())
}

#[test]
fn helm_lint_accepts_the_chart() {
    let every_switch = json!({
        "ask": false,
        "kubernetes": { "enabled": false },
        "commonLabels": { "team": "network" },
        "config": { "anything": ["at", "all"] },
        "extraArgs": ["--interface=eth*"],
        "imagePullSecrets": [{ "name": "registry" }],
        "metrics": { "scrapeAnnotations": true },
        "namespace": { "create": true },
        "podMonitor": { "enabled": true },
        "resourceQuota": { "enabled": true },
        "securityContextConstraints": { "enabled": true },
    });
    for values in [json!({}), every_switch] {
        let complaints = Chart::of_this_repository().lint(&values).unwrap();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

#[test]
fn every_object_and_field_is_valid_for_old_and_new_kubernetes() {
    let files = EXTRAS.map(|(name, _)| format!("{name}.yaml"));
    let files = files.iter().map(String::as_str).chain(["arp-monitor.yaml"]);
    let all: Vec<_> = files.map(plain_text).collect();
    let objects = valid_objects(&all.join("\n---\n"), &KUBERNETES).unwrap();
    assert!(objects.len() > EXTRAS.len());
    // The schemas must be strict, otherwise they would be useless.
    let misspelt = plain_text("arp-monitor.yaml").replace("hostNetwork:", "hostNetworks:");
    let refusal = valid_objects(&misspelt, &KUBERNETES).unwrap_err();
    assert!(refusal.to_string().contains("hostNetworks"), "{refusal}");
}

#[test]
fn the_chart_the_plain_manifests_and_the_kustomize_base_are_the_same_objects() {
    let chart = by_name(render(&json!({ "namespace": { "create": true } })));
    let names: Vec<_> = chart.keys().map(|name| name.replace('"', "")).collect();
    assert_eq!(
        names,
        [
            "ClusterRole arp-monitor",
            "ClusterRoleBinding arp-monitor",
            "ConfigMap arp-monitor",
            "DaemonSet arp-monitor",
            "Namespace arp-monitor",
            "Role arp-monitor",
            "RoleBinding arp-monitor",
            "ServiceAccount arp-monitor"
        ]
    );
    assert_same(by_name(plain("arp-monitor.yaml")), &chart);
    assert_same(
        by_name(kustomized(&deploy().join("kustomize/base"))),
        &chart,
    );
}

#[test]
fn optional_objects_are_the_same_in_chart_manifests_and_kustomize() {
    for (name, switch) in EXTRAS {
        let without = by_name(render(&json!({})));
        let mut chart = by_name(render(&json!({ switch: { "enabled": true } })));
        chart.retain(|name, _| !without.contains_key(name));
        assert!(!chart.is_empty(), "{name}");
        assert_same(by_name(plain(&format!("{name}.yaml"))), &chart);
        let directory = deploy().join("kustomize").join(name);
        assert_same(by_name(kustomized(&directory)), &chart);
    }
}

#[test]
fn scrape_annotations_are_the_same_in_helm_and_kustomize() {
    let kustomized = kustomized_elsewhere(
        "resources: [deploy/kustomize/base]\ncomponents: [deploy/kustomize/scrape-annotations]\n",
    );
    let chart = render(&json!({
        "namespace": { "create": true },
        "metrics": { "scrapeAnnotations": true },
    }));
    let pod = &the(&chart, "DaemonSet")["spec"]["template"];
    assert_eq!(
        pod["metadata"]["annotations"]["prometheus.io/port"],
        "10826"
    );
    assert_same(by_name(kustomized), &by_name(chart));
}

#[test]
fn a_webhook_is_the_same_in_helm_and_kustomize_except_for_settings() {
    let kustomized = kustomized_elsewhere(
        "resources: [deploy/kustomize/base]\ncomponents: [deploy/kustomize/webhook]\n",
    );
    let mut chart = render(&json!({
        "namespace": { "create": true },
        "notifications": { "webhook": { "secretName": "arp-monitor-webhook" } },
    }));
    let daemon_set = chart
        .iter_mut()
        .find(|object| object["kind"] == "DaemonSet")
        .unwrap();
    let args = &mut daemon_set["spec"]["template"]["spec"]["containers"][0]["args"];
    let args = args.as_array_mut().unwrap();
    let before = args.len();
    // The defaults.
    args.retain(|arg| {
        let arg = arg.as_str().unwrap();
        arg.starts_with("--webhook-url-file") || !arg.starts_with("--webhook-")
    });
    assert_eq!(before - args.len(), 3, "{args:?}");
    assert_same(by_name(kustomized), &by_name(chart));
}

#[test]
fn a_custom_image_is_set_by_repository_and_digest() {
    let digest = format!("sha256:{}", "5a".repeat(32));
    let chart = render(&json!({
        "image": { "repository": "registry.example/arp-monitor", "digest": digest },
        "imagePullSecrets": [{ "name": "registry" }],
    }));
    let expected = format!("registry.example/arp-monitor@{digest}");
    assert_eq!(container(&chart)["image"], expected);
    let pod = &the(&chart, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "registry" }]));

    let kustomized = kustomized_elsewhere(&format!(
        "resources: [deploy/kustomize/base]\nimages:\n  - name: localhost/arp-monitor\n    \
         newName: registry.example/arp-monitor\n    digest: {digest}\n"
    ));
    assert_eq!(container(&kustomized)["image"], expected);
}

#[test]
fn the_versions_equal_the_version_of_the_workspace() {
    let chart = fs::read_to_string(deploy().join("helm/arp-monitor/Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for field in ["version", "appVersion"] {
        assert!(
            chart.contains(&format!("\n{field}: {version}\n")),
            "{field}"
        );
    }
    let image = format!("localhost/arp-monitor:{version}");
    assert_eq!(container(&plain("arp-monitor.yaml"))["image"], image);
}

#[test]
fn the_daemon_set_and_the_pod_monitor_select_the_pods() {
    let objects = render(&json!({
        "podLabels": { "more": "labels" },
        "podMonitor": { "enabled": true },
    }));
    let daemons = the(&objects, "DaemonSet");
    let labels = daemons["spec"]["template"]["metadata"]["labels"]
        .as_object()
        .unwrap();
    assert_eq!(labels["more"], "labels");
    for kind in ["DaemonSet", "PodMonitor"] {
        let selector = &the(&objects, kind)["spec"]["selector"]["matchLabels"];
        let selector = selector.as_object().unwrap();
        assert!(!selector.is_empty());
        for (label, value) in selector {
            assert_eq!(labels.get(label), Some(value), "{kind} {label}");
        }
    }
    let endpoint = &the(&objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], container(&objects)["ports"][0]["name"]);
    assert_eq!(
        endpoint["relabelings"],
        json!([{ "sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node" }])
    );
}

#[test]
fn requests_are_within_the_limits_and_leave_room_for_the_maps() {
    let objects = render(&json!({}));
    let resources = &container(&objects)["resources"];
    let (request, limit) = (&resources["requests"], &resources["limits"]);
    assert!(bytes(&request["memory"]) <= bytes(&limit["memory"]));
    assert!(
        limit.get("cpu").is_none(),
        "a CPU limit would delay detection"
    );
    // docs/installation.md: the kernel side on 512 CPUs, and the binding table.
    assert!(bytes(&limit["memory"]) >= (165 + 15) << 20);
}

#[test]
fn the_pod_has_exactly_the_privileges_that_it_needs() {
    let objects = render(&json!({}));
    let context = &container(&objects)["securityContext"];
    let expected = json!({
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsUser": 0,
        "runAsGroup": 0,
        "capabilities": { "drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "NET_RAW", "PERFMON"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    assert_eq!(*context, expected);
    let pod = &the(&objects, "DaemonSet")["spec"]["template"]["spec"];
    for field in [
        "hostPID",
        "hostIPC",
        "shareProcessNamespace",
        "initContainers",
    ] {
        assert!(pod.get(field).is_none(), "{field}");
    }
    assert_eq!(pod["automountServiceAccountToken"], true);
    assert_eq!(
        the(&objects, "ServiceAccount")["automountServiceAccountToken"],
        false
    );
    assert_eq!(pod["hostNetwork"], true);

    let passive = render(&json!({ "ask": false }));
    assert_eq!(
        container(&passive)["securityContext"]["capabilities"]["add"],
        json!(["BPF", "NET_ADMIN", "PERFMON"])
    );
}

/// Each granted right as `VERB GROUP/RESOURCE[/NAME]`.
fn rights(role: &Value) -> Vec<String> {
    let list = |value: &Value| -> Vec<String> {
        let texts = value.as_array().into_iter().flatten();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    let mut rights = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        let names: Vec<_> = list(&rule["resourceNames"])
            .into_iter()
            .map(|name| format!("/{name}"))
            .collect();
        let names = if names.is_empty() {
            vec![String::new()]
        } else {
            names
        };
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                for verb in list(&rule["verbs"]) {
                    for name in &names {
                        rights.push(format!("{verb} {group}/{resource}{name}"));
                    }
                }
            }
        }
    }
    rights.sort();
    rights
}

#[test]
fn the_roles_allow_reading_watched_objects_and_writing_a_lease_and_events() {
    let objects = render(&json!({}));
    assert_eq!(
        rights(the(&objects, "ClusterRole")),
        [
            "create events.k8s.io/events",
            "list /nodes",
            "list /services",
            "list discovery.k8s.io/endpointslices",
            "list metallb.io/bgpadvertisements",
            "list metallb.io/ipaddresspools",
            "list metallb.io/l2advertisements",
            "list metallb.io/servicel2statuses",
            "patch events.k8s.io/events",
            "watch /services",
            "watch metallb.io/bgpadvertisements",
            "watch metallb.io/ipaddresspools",
            "watch metallb.io/l2advertisements",
            "watch metallb.io/servicel2statuses",
        ]
    );
    assert_eq!(
        rights(the(&objects, "Role")),
        [
            "create coordination.k8s.io/leases",
            "get coordination.k8s.io/leases/arp-monitor",
            "update coordination.k8s.io/leases/arp-monitor",
        ]
    );
    for (binding, role) in [
        ("ClusterRoleBinding", "ClusterRole"),
        ("RoleBinding", "Role"),
    ] {
        let (binding, role) = (the(&objects, binding), the(&objects, role));
        assert_eq!(binding["roleRef"]["kind"], role["kind"]);
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        let account = the(&objects, "ServiceAccount");
        let subject = &binding["subjects"][0];
        for field in ["name", "namespace"] {
            assert_eq!(subject[field], account["metadata"][field]);
        }
        assert_eq!(binding["subjects"].as_array().unwrap().len(), 1);
    }
    let name = &container(&objects)["env"][1];
    assert_eq!(name["name"], "ARP_MONITOR_NODE_NAME");
    assert_eq!(name["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");

    let silent = render(&json!({ "kubernetes": { "events": false } }));
    let rights = rights(the(&silent, "ClusterRole"));
    assert!(
        rights.iter().all(|right| !right.contains("events")),
        "{rights:?}"
    );
}

#[test]
fn with_kubernetes_off_the_pod_has_neither_token_nor_roles() {
    let objects = render(&json!({
        "kubernetes": { "enabled": false },
        "securityContextConstraints": { "enabled": true },
    }));
    let pod = &the(&objects, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    let arguments = container(&objects)["args"].as_array().unwrap();
    assert!(
        arguments.contains(&json!("--kubernetes=off")),
        "{arguments:?}"
    );
    let kinds = objects.iter().filter_map(|object| object["kind"].as_str());
    let roles: Vec<_> = kinds.filter(|kind| kind.contains("Role")).collect();
    assert_eq!(roles, [""; 0]);
    let allowed = the(&objects, "SecurityContextConstraints");
    assert_eq!(allowed["volumes"], json!(["configMap", "hostPath"]));
}

#[test]
fn the_openshift_constraints_allow_exactly_what_the_pod_requests() {
    for probing in [true, false] {
        let objects = render(&json!({
            "ask": probing,
            "securityContextConstraints": { "enabled": true },
        }));
        let allowed = the(&objects, "SecurityContextConstraints");
        let context = &container(&objects)["securityContext"];
        assert_eq!(
            allowed["allowedCapabilities"],
            context["capabilities"]["add"]
        );
        assert_eq!(
            allowed["requiredDropCapabilities"],
            context["capabilities"]["drop"]
        );
        assert_eq!(allowed["runAsUser"]["uid"], context["runAsUser"]);
        assert_eq!(allowed["allowPrivilegedContainer"], false);
        let account = the(&objects, "ServiceAccount");
        let user = format!(
            "system:serviceaccount:{}:{}",
            account["metadata"]["namespace"].as_str().unwrap(),
            account["metadata"]["name"].as_str().unwrap()
        );
        assert_eq!(allowed["users"], json!([user]));
        let pod = &the(&objects, "DaemonSet")["spec"]["template"]["spec"];
        // The token is in a projected volume, which no manifest names.
        let volumes = allowed["volumes"].as_array().unwrap();
        assert!(volumes.contains(&json!("projected")));
        for volume in pod["volumes"].as_array().unwrap() {
            let kinds: Vec<_> = volume.as_object().unwrap().keys().collect();
            let allowed = allowed["volumes"].as_array().unwrap();
            assert!(
                kinds
                    .iter()
                    .all(|kind| *kind == "name" || allowed.iter().any(|one| one == *kind)),
                "{volume}"
            );
        }
    }
}

#[test]
fn the_daemon_set_runs_on_every_node_and_replaces_one_pod_at_a_time() {
    let objects = render(&json!({}));
    let spec = &the(&objects, "DaemonSet")["spec"];
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(spec["minReadySeconds"], 60);
    assert_eq!(
        spec["updateStrategy"],
        json!({
            "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 },
        })
    );
}

#[test]
fn port_arguments_and_health_checks_agree() {
    for port in [10826, 9000] {
        let objects = render(&json!({ "metrics": { "port": port } }));
        let container = container(&objects);
        let listen = format!("--listen=$(HOST_IP):{port}");
        let arguments = container["args"].as_array().unwrap();
        assert!(arguments.contains(&json!(listen)), "{arguments:?}");
        let declared = &container["ports"][0];
        assert_eq!(declared["containerPort"], port);
        assert_eq!(declared["hostPort"], port);
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let get = &container[probe]["httpGet"];
            assert_eq!(
                (&get["path"], &get["port"]),
                (&json!(path), &declared["name"])
            );
        }
    }
}

#[test]
fn the_secret_of_a_webhook_is_mounted_where_the_daemon_reads_it() {
    let with_webhook = |webhook: Value| render(&json!({ "notifications": { "webhook": webhook } }));
    let without = with_webhook(json!({}));
    let arguments = |objects: &[Value]| -> Vec<String> {
        let arguments = container(objects)["args"].as_array().unwrap().iter();
        let arguments = arguments.map(|argument| argument.as_str().unwrap().to_owned());
        arguments
            .filter(|argument| argument.starts_with("--webhook"))
            .collect()
    };
    assert_eq!(arguments(&without), [""; 0]);
    let with = with_webhook(
        json!({ "secretName": "chat", "format": "slack", "bearer": true, "ca": true }),
    );
    assert_eq!(
        arguments(&with),
        [
            "--webhook-url-file=/etc/arp-monitor-webhook/url",
            "--webhook-format=slack",
            "--webhook-severity=warning",
            "--webhook-per-minute=10",
            "--webhook-bearer-token-file=/etc/arp-monitor-webhook/token",
            "--webhook-ca-file=/etc/arp-monitor-webhook/ca.pem",
        ]
    );
    let pod = &the(&with, "DaemonSet")["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().unwrap().iter();
    let secret = volumes.filter(|volume| volume["secret"]["secretName"] == "chat");
    let secret: Vec<_> = secret.map(|volume| &volume["name"]).collect();
    let mounts = container(&with)["volumeMounts"].as_array().unwrap().iter();
    let mount = mounts.filter(|mount| mount["mountPath"] == "/etc/arp-monitor-webhook");
    let mount: Vec<_> = mount.map(|mount| &mount["name"]).collect();
    assert_eq!((secret.len(), secret), (1, mount));
}

#[test]
fn without_the_role_no_events_are_written() {
    let off = render(&json!({ "kubernetes": { "events": false } }));
    let arguments = container(&off)["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--kubernetes-events=off")));
    let rules = the(&off, "ClusterRole")["rules"].to_string();
    assert!(!rules.contains("events"), "{rules}");
}

#[test]
fn unknown_and_invalid_values_are_refused_by_name() {
    for (values, culprit) in [
        (json!({ "podMontior": { "enabled": true } }), "podMontior"),
        (json!({ "image": { "digest": "latest" } }), "digest"),
        (json!({ "metrics": { "port": 70000 } }), "port"),
        (json!({ "ask": "no" }), "ask"),
        (
            json!({ "notifications": { "webhook": { "url": "https://hooks.example.org" } } }),
            "url",
        ),
        (json!({ "kubernetes": { "enable": false } }), "enable"),
        (
            json!({ "securityContext": { "privileged": true } }),
            "privileged",
        ),
    ] {
        let refusal = Chart::of_this_repository()
            .render(NAME, NAME, &values)
            .unwrap_err()
            .to_string();
        assert!(refusal.contains(culprit), "{refusal}");
    }
}

#[test]
fn a_release_with_another_name_and_namespace_is_consistent() {
    let templates = Chart::of_this_repository()
        .render(
            "edge",
            "network",
            &json!({ "podMonitor": { "enabled": true } }),
        )
        .unwrap();
    for (template, text) in templates {
        if !is_manifest(&template) {
            continue;
        }
        for one in objects(&text).unwrap() {
            assert_eq!(one["metadata"]["name"], "edge-arp-monitor", "{template}");
            let kind = one["kind"].as_str().unwrap();
            if !kind.starts_with("ClusterRole") {
                assert_eq!(one["metadata"]["namespace"], "network", "{template}");
            }
            for subject in one["subjects"].as_array().into_iter().flatten() {
                assert_eq!(subject["name"], "edge-arp-monitor", "{template}");
                assert_eq!(subject["namespace"], "network", "{template}");
            }
        }
    }
}

#[test]
fn the_rules_equal_the_rule_files() {
    let objects = render(&json!({ "prometheusRule": { "enabled": true } }));
    let rules: Vec<_> = objects
        .iter()
        .filter(|one| one["kind"] == "PrometheusRule")
        .map(|one| one["spec"].clone())
        .collect();
    let mut files = Vec::new();
    for entry in fs::read_dir(deploy().join("prometheus")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().ends_with(".rules.yaml") {
            files.push(yaml(&fs::read_to_string(path).unwrap()));
        }
    }
    assert!(!files.is_empty());
    assert_eq!(rules.len(), files.len());
    for file in files {
        assert!(rules.contains(&file), "{file}");
    }
}

/// Parses one YAML document that is no Kubernetes object.
fn yaml(text: &str) -> Value {
    let documents = objects(text).unwrap();
    assert_eq!(documents.len(), 1);
    documents[0].clone()
}

#[test]
fn the_dashboard_equals_the_file() {
    let objects = render(&json!({ "dashboard": { "enabled": true } }));
    let map = objects
        .iter()
        .find(|one| one["metadata"]["labels"]["grafana_dashboard"] == "1")
        .unwrap();
    let data = map["data"].as_object().unwrap();
    assert_eq!(data.len(), 1);
    for (name, contents) in data {
        let file = fs::read_to_string(deploy().join("grafana").join(name)).unwrap();
        assert_eq!(contents.as_str().unwrap().trim(), file.trim(), "{name}");
    }
}
