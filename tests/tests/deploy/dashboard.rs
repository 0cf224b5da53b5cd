//! The dashboard: valid by Grafana's own types, and every panel shows data.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    process::{Command, Output},
    time::Duration,
};

use anyhow::Result;
use probe_tests::{
    DaemonSocket, INTERFACE, Kubernetes, Lab, Monitoring, dashboard_tools, eventually,
    install_metallb, metallb, namespace, pool, python_tool, service, workspace,
};
use serde_json::{Value, json};

/// Timeout for a Lease, the grace period of drift, two scrapes and an evaluation on a busy machine.
const PANEL_TIMEOUT: Duration = Duration::from_secs(90);

/// Creates a cluster with a pool, a service with one of its addresses, and a service that waits for a missing pool.
fn fill(kubernetes: &Kubernetes) -> Result<()> {
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&pool("production", &["192.0.2.240/28"]))?;
    api.create(&metallb("L2Advertisement", "all", &json!({})))?;
    api.create(&namespace("shop"))?;
    let frontend = service("shop", "frontend");
    api.create(&frontend)?;
    api.assign(&frontend, &["192.0.2.240"])?;
    let mut waiting = service("shop", "waiting");
    waiting["metadata"]["annotations"] = json!({ "metallb.io/address-pool": "gone" });
    api.create(&waiting).map(drop)
}

fn text() -> String {
    fs::read_to_string(workspace().join("deploy/grafana/arp-monitor.json")).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&text()).unwrap()
}

/// The output of TypeScript for a dashboard.
fn check(dashboard: &str) -> Output {
    let tools = dashboard_tools().unwrap();
    let directory = tempfile::tempdir().unwrap();
    symlink(
        tools.join("node_modules"),
        directory.path().join("node_modules"),
    )
    .unwrap();
    let types = workspace().join("tests/dashboard/types.ts");
    fs::copy(types, directory.path().join("types.ts")).unwrap();
    let source = format!(
        "import type {{ Checked }} from \"./types\";\nexport const dashboard: Checked = {dashboard};\n"
    );
    fs::write(directory.path().join("dashboard.ts"), source).unwrap();
    Command::new(python_tool("node").unwrap())
        .args(["node_modules/typescript/bin/tsc", "--strict", "--noEmit"])
        .args(["--target", "es2022", "--module", "esnext"])
        .args(["--moduleResolution", "bundler", "--skipLibCheck"])
        .arg("dashboard.ts")
        .current_dir(directory.path())
        .output()
        .unwrap()
}

#[test]
fn the_dashboard_conforms_to_grafanas_types() {
    let output = check(&text());
    let messages = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{messages}");
}

#[test]
fn grafanas_types_reject_an_invalid_dashboard() {
    let text = text();
    for (right, wrong) in [
        ("\"mode\": \"absolute\"", "\"mode\": \"absolut\""),
        ("\"showHeader\"", "\"showHeaders\""),
        ("\"drawStyle\": \"line\"", "\"drawStyle\": \"lines\""),
        ("\"expr\"", "\"query\""),
    ] {
        assert!(text.contains(right), "{right}");
        let output = check(&text.replace(right, wrong));
        assert!(!output.status.success(), "{wrong} is accepted");
    }
}

#[test]
fn panels_have_unique_ids_and_do_not_overlap() {
    let dashboard = dashboard();
    let (mut numbers, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let directory = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in directory("x")..directory("x") + directory("w") {
            for y in directory("y")..directory("y") + directory("h") {
                assert!(x < 24 && taken.insert((x, y)), "{panel}");
            }
        }
    }
}

/// Every query of every panel, with the panel's title.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels
        .filter(|panel| panel["type"] != "row")
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap();
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title} has no data");
            targets.iter().map(move |target| {
                let expression = target["expr"].as_str().unwrap();
                (title.to_owned(), expression.to_owned())
            })
        })
        .collect()
}

/// The metrics that provide the values of the variables.
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    variables
        .filter_map(|variable| {
            let query = variable["query"]["query"].as_str()?;
            let values = query.strip_prefix("label_values(")?.strip_suffix(')')?;
            let (metric, _label) = values.rsplit_once(',')?;
            Some((format!("variable {}", variable["name"]), metric.to_owned()))
        })
        .collect()
}

/// Replaces the variables as Grafana does, with the time span of the test.
fn with_variables(expression: &str) -> String {
    let filled = expression
        .replace("$__rate_interval", "10s")
        .replace("$segment", ".*")
        .replace("$ip", ".*");
    assert!(!filled.contains('$'), "an unknown variable in {filled}");
    filled
}

fn has_data(monitoring: &Monitoring<'_>, title: &str, expression: &str) {
    let expression = with_variables(expression);
    let what = format!("{title} to show something: {expression}");
    eventually(&what, PANEL_TIMEOUT, || {
        let result = monitoring.query(&expression)?;
        let is_number = |value: &str| value.parse::<f64>().is_ok_and(f64::is_finite);
        let shown = result.iter().any(|series| is_number(&series.value.1));
        Ok(shown.then_some(()))
    })
    .unwrap();
}

#[test]
fn every_panel_shows_data_of_a_daemon_with_a_conflict_in_a_cluster() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let kubernetes = lab.kubernetes().unwrap();
    fill(&kubernetes).unwrap();
    let account = kubernetes.deployed_account().unwrap();
    let access = kubernetes.deploy_to(&hosts.client, &account).unwrap();
    let directory = DaemonSocket::new().unwrap();
    let usual = [
        "-i",
        INTERFACE,
        "--attach",
        "native",
        "--track",
        "192.0.2.0/24",
    ];
    let own = ["--socket", directory.argument(), "--drift-after", "2s"];
    let daemon = hosts
        .client
        .daemon_under(&access.words(), &[&usual[..], &own].concat())
        .unwrap();
    daemon.wait_until_ready().unwrap();
    let monitoring = hosts.client.monitoring().unwrap();
    eventually("the daemon to be scraped", PANEL_TIMEOUT, || {
        let scraped = monitoring.query("arp_monitor_build_info")?;
        Ok((!scraped.is_empty()).then_some(()))
    })
    .unwrap();
    hosts.resolve().unwrap();
    daemon.wait_for_finding("conflict", PANEL_TIMEOUT).unwrap();
    let dashboard = dashboard();
    let (queries, variables) = (queries(&dashboard), variables(&dashboard));
    assert!(queries.len() > 20 && variables.len() == 2);
    let mut retried = false;
    for (title, expression) in queries.iter().chain(&variables) {
        // A quantile without observations is NaN: frames must arrive while it is evaluated.
        if expression.contains("histogram_quantile") && !retried {
            hosts.resolve().unwrap();
            retried = true;
        }
        has_data(&monitoring, title, expression);
    }
}

#[test]
fn the_dashboard_uses_only_existing_metrics() {
    let documented = fs::read_to_string(workspace().join("docs/metrics.md")).unwrap();
    let text = text();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for rest in text.split("arp_monitor_").skip(1) {
        let name: String = rest.chars().take_while(|&c| is_name(c)).collect();
        let name = name.trim_end_matches("_bucket");
        let row = format!("| `arp_monitor_{name}` |");
        assert!(documented.contains(&row), "arp_monitor_{name}");
    }
}
