//! The Prometheus rules: they load, each alert fires exactly when it should, and each has a section in the runbook.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{prometheus_program, workspace};

fn deployed() -> PathBuf {
    workspace().join("deploy/prometheus")
}

fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(end))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no *{end} in {}", directory.display());
    files
}

fn rules() -> String {
    let files = files(&deployed(), ".rules.yaml");
    files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect()
}

fn run(program: &str, words: &[&str], files: &[PathBuf]) {
    let output = Command::new(prometheus_program(program).unwrap())
        .args(words)
        .args(files)
        .output()
        .unwrap();
    let messages = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{program} {words:?}:\n{}",
        String::from_utf8_lossy(&messages)
    );
}

/// The values of a field, given its name with a colon.
fn values<'a>(text: &'a str, field: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(field))
        .map(str::trim)
        .collect()
}

#[test]
fn prometheus_accepts_the_rules() {
    let files = files(&deployed(), ".rules.yaml");
    run("promtool", &["check", "rules"], &files);
}

#[test]
fn each_alert_fires_exactly_when_expected() {
    let tests = files(&deployed().join("tests"), ".test.yaml");
    run("promtool", &["test", "rules"], &tests);
}

#[test]
fn every_alert_has_a_test_that_fires_and_one_that_does_not() {
    let tests: String = files(&deployed().join("tests"), ".test.yaml")
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let alerts = values(&rules(), "alert:")
        .into_iter()
        .map(str::to_owned)
        .collect::<BTreeSet<_>>();
    for alert in alerts {
        let checks: Vec<_> = tests
            .split("- eval_time:")
            .filter(|check| values(check, "alertname:").first() == Some(&alert.as_str()))
            .collect();
        let (silent, fires): (Vec<_>, Vec<_>) = checks
            .into_iter()
            .partition(|check| check.contains("exp_alerts: []"));
        assert!(
            !silent.is_empty(),
            "no test expects that {alert} does not fire"
        );
        assert!(!fires.is_empty(), "no test expects that {alert} fires");
    }
}

#[test]
fn alertmanager_accepts_the_inhibitions() {
    let directory = tempfile::tempdir().unwrap();
    let snippet = fs::read_to_string(deployed().join("alertmanager-inhibit.yaml")).unwrap();
    let file = directory.path().join("alertmanager.yml");
    let minimum = "route: {receiver: none}\nreceivers: [{name: none}]\n";
    fs::write(&file, format!("{minimum}{snippet}")).unwrap();
    run("amtool", &["check-config"], &[file]);
    let known = values(&rules(), "alert:")
        .into_iter()
        .map(str::to_owned)
        .collect::<BTreeSet<_>>();
    for list in snippet.lines().filter(|line| line.contains("alertname")) {
        let names = list.split('"').nth(1).unwrap();
        for name in names.split('|') {
            assert!(known.contains(name), "{name} is not an alert");
        }
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_with_its_owner() {
    let rules = rules();
    let runbook = fs::read_to_string(workspace().join("docs/runbook.md")).unwrap();
    let alerts = values(&rules, "alert:");
    let links = values(&rules, "runbook:");
    assert_eq!(alerts.len(), links.len(), "an alert without a runbook");
    for (alert, link) in alerts.into_iter().zip(links) {
        let (file, anchor) = link.split_once('#').unwrap();
        assert_eq!(file, "docs/runbook.md", "{alert}");
        let section = runbook
            .split("\n## ")
            .find(|section| anchor_of(section.lines().next().unwrap()) == anchor)
            .unwrap_or_else(|| panic!("the runbook has no section {anchor} for {alert}"));
        assert!(
            section.contains(&format!("`{alert}`")),
            "{alert} in {anchor}"
        );
    }
}

/// The anchor of a heading, as Markdown renderers generate it.
fn anchor_of(heading: &str) -> String {
    heading.trim().to_lowercase().replace(' ', "-")
}

#[test]
fn the_rules_use_only_existing_metrics() {
    let documented = fs::read_to_string(workspace().join("docs/metrics.md")).unwrap();
    let rules = rules();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for rest in rules.split("arp_monitor_").skip(1) {
        let name: String = rest.chars().take_while(|&c| is_name(c)).collect();
        let row = format!("| `arp_monitor_{name}` |");
        assert!(documented.contains(&row), "arp_monitor_{name}");
    }
}
