//! `probe pools`: manifests checked as in CI, without root and without a network.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
};

use probe_tests::install;
use serde_json::Value;
use tempfile::TempDir;

const EAST: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: default, namespace: metallb-system}
spec:
  avoidBuggyIPs: true
  addresses:
  - 192.0.2.0/26
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
";
const BROKEN: &str = "kind: IPAddressPool\nmetadata: [\n";
const TEMPLATE: &str = "{{- range .Values.pools }}\nkind: IPAddressPool\n{{- end }}\n";

/// A repository of manifests.
struct Repository {
    folder: TempDir,
}

impl Repository {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { folder }
    }

    /// Runs `probe pools` in it as an unprivileged user and without a network.
    fn pools(&self, words: &[&str], stdin: &str) -> Output {
        let public = public_copy(self.folder.path());
        let mut child = Command::new("unshare")
            .args(["--net", "--", "setpriv"])
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(public)
            .arg("pools")
            .args(words)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A program that does not read its standard input closes it.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        child.wait_with_output().unwrap()
    }

    fn ends_with(&self, status: i32, words: &[&str]) -> String {
        let output = self.pools(words, "");
        assert_eq!(output.status.code(), Some(status), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, status: i32, words: &[&str]) -> Value {
        let words = [&["check", "-o", "json"], words].concat();
        serde_json::from_str(&self.ends_with(status, &words)).unwrap()
    }
}

/// A copy of the binary that any user may run, hidden from a walk through the directory.
fn public_copy(folder: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = folder.join(".bin");
    let copy = directory.join("probe");
    if !copy.exists() {
        fs::create_dir_all(&directory).unwrap();
        install(&copy).unwrap();
        for path in [folder, &directory] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    copy
}

fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    let codes = findings
        .iter()
        .map(|finding| finding["finding"].as_str().unwrap());
    codes.collect()
}

#[test]
fn separate_pools_of_clusters_are_valid() {
    let west = EAST.replace("192.0.2.0/26", "192.0.2.64/26");
    let repository = Repository::new(&[("east/pool.yaml", EAST), ("west/a/b/pool.yml", &west)]);
    let shown = repository.ends_with(0, &["check", "east", "west"]);
    assert!(
        shown.contains("2 pools in 2 clusters: nothing wrong."),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn an_overlap_exits_1_and_names_both_locations() {
    let repository = Repository::new(&[
        ("clusters/east/pool.yaml", EAST),
        ("clusters/west/pool.yaml", EAST),
    ]);
    let shown = repository.ends_with(1, &["check", "clusters/east", "clusters/west/"]);
    for word in [
        "cluster_overlap     192.0.2.0/26\n",
        "clusters/east/pool.yaml:7:5\n",
        "clusters/west/pool.yaml:7:5\n",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    // One cluster, if the files belong to one.
    let report = repository.json(
        1,
        &[
            "--cluster",
            "x=clusters/east",
            "--cluster",
            "x=clusters/west",
        ],
    );
    assert_eq!(codes(&report), ["pool_overlap", "duplicate_pool"]);
}

#[test]
fn helm_output_is_read_from_standard_input() {
    let repository = Repository::new(&[("west.yaml", EAST)]);
    let text = format!("---\n# Source: pools/templates/a.yaml\n{EAST}");
    let output = repository.pools(&["check", "-", "west.yaml", "-o", "json"], &text);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let places = report["findings"][0]["locations"].as_array().unwrap();
    assert_eq!(places[0]["file"], "stdin");
    assert_eq!(places[0]["line"], 9);
    assert_eq!(places[1]["file"], "west.yaml");
    // A pipe whose writer failed.
    let output = repository.pools(&["check", "-"], "");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let output = repository.pools(&["check", "-", "-"], EAST);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn an_unreadable_file_exits_4_and_the_others_are_still_checked() {
    let broken = format!(
        "{EAST}---\n{BROKEN}---\n{}",
        EAST.replace("default", "again")
    );
    let repository = Repository::new(&[("east/pool.yaml", &broken), ("plan.yaml", "nodes: 7\n")]);
    let report = repository.json(4, &["east", "none", "--plan", "plan.yaml"]);
    assert_eq!(report["complete"], false);
    assert_eq!(codes(&report), ["pool_overlap"]);
    let unread = report["unread"].as_array().unwrap();
    let files: Vec<_> = unread
        .iter()
        .map(|one| one["file"].as_str().unwrap())
        .collect();
    assert_eq!(files, ["east/pool.yaml", "none", "plan.yaml"]);
    assert_eq!(unread[0]["line"], 14);
    assert!(
        unread[1]["reason"]
            .as_str()
            .unwrap()
            .contains("No such file")
    );
}

#[test]
fn a_template_is_sent_through_helm() {
    let repository = Repository::new(&[("templates/pools.yaml", TEMPLATE)]);
    let shown = repository.ends_with(4, &["check", "templates"]);
    let words: Vec<_> = shown.split_whitespace().collect();
    assert!(
        words
            .join(" ")
            .contains("helm template CHART | probe pools check -"),
        "{shown}"
    );
}

#[test]
fn files_without_pools_are_ignored() {
    let repository = Repository::new(&[
        ("east/pool.yaml", EAST),
        (
            "east/chart/templates/web.yaml",
            "a: {{ .Values.a }}\n{{- end }}\n",
        ),
        ("east/broken.json", "{"),
        ("east/notes.txt", "IPAddressPool {{"),
        ("east/.git/x.yaml", BROKEN),
        (
            "east/service.yaml",
            "apiVersion: v1\nkind: Service\nspec: {}\n",
        ),
    ]);
    repository.ends_with(0, &["check", "east"]);
    // A file that is named explicitly is read.
    repository.ends_with(4, &["check", "east", "east/broken.json"]);
}

#[test]
fn links_to_directories_are_followed_once_even_in_a_cycle() {
    let repository = Repository::new(&[
        ("shared/pool.yaml", EAST),
        ("east/kustomization.yaml", "a: b"),
    ]);
    let at = |path: &str| repository.folder.path().join(path);
    symlink("../shared", at("east/base")).unwrap();
    symlink("../shared", at("east/again")).unwrap();
    symlink("..", at("shared/up")).unwrap();
    let report = repository.json(0, &["east"]);
    assert_eq!(report["pools"].as_array().unwrap().len(), 1);
    assert_eq!(report["pools"][0]["file"], "east/again/pool.yaml");
    // Devices are not read, because reading them may block.
    symlink("/dev/zero", at("east/zero.yaml")).unwrap();
    let report = repository.json(4, &["east"]);
    let unread = &report["unread"][0];
    assert_eq!(unread["file"], "east/zero.yaml");
    assert_eq!(unread["reason"], "not a regular file");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let many: Vec<_> = (0..300)
        .map(|index| EAST.replace("default", &format!("p{index}")))
        .collect();
    let repository = Repository::new(&[("east.yaml", &many.join("---\n"))]);
    let mut child = Command::new(public_copy(repository.folder.path()))
        .args(["pools", "check", "east.yaml"])
        .current_dir(repository.folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_violation_of_the_address_plan_exits_1() {
    let plan = "clusters: {east: {ranges: [192.0.2.0/27]}}\ndhcp: [192.0.2.9]\n";
    let repository = Repository::new(&[("east/pool.yaml", EAST), ("plan.yaml", plan)]);
    let report = repository.json(1, &["east", "--plan", "plan.yaml"]);
    assert_eq!(codes(&report), ["reserved_overlap", "outside_plan"]);
    let east = &report["clusters"][0];
    assert_eq!(east["planned"]["ipv4"], 32);
    // The pool excludes .0.
    assert_eq!(east["planned_used"]["ipv4"], 31);
    assert_eq!(east["addresses"]["ipv4"], 63);
}

#[test]
fn warnings_exit_0_unless_strict_is_set() {
    let (pool, _) = EAST.split_once("---\n").unwrap();
    let repository = Repository::new(&[("east.yaml", pool)]);
    let report = repository.json(0, &["east.yaml"]);
    assert_eq!(codes(&report), ["unadvertised_pool"]);
    repository.json(1, &["east.yaml", "--strict"]);
}

#[test]
fn sarif_names_rule_file_and_line() {
    let repository = Repository::new(&[("a b/pool.yaml", EAST), ("west.yaml", EAST)]);
    let shown = repository.ends_with(1, &["check", "a b", "west.yaml", "-o", "sarif"]);
    let log: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "cluster_overlap");
    let directory = &result["locations"][0]["physicalLocation"];
    assert_eq!(directory["artifactLocation"]["uri"], "a%20b/pool.yaml");
    assert_eq!(directory["region"]["startLine"], 7);
}

#[test]
fn an_excluded_address_leaves_a_valid_pool() {
    let repository = Repository::new(&[("pool.yaml", EAST)]);
    let split = repository.ends_with(0, &["exclude", "192.0.2.9", "pool.yaml"]);
    assert!(
        split.contains("\n  - 192.0.2.0-192.0.2.8\n  - 192.0.2.10-192.0.2.63\n"),
        "{split}"
    );
    let plan = "reserved: [192.0.2.9]\n";
    let advertisement = EAST.split_once("---\n").unwrap().1;
    let repository = Repository::new(&[
        ("east/pool.yaml", &split),
        ("east/l2.yaml", advertisement),
        ("plan.yaml", plan),
    ]);
    repository.ends_with(0, &["check", "east", "--plan", "plan.yaml"]);
}

#[test]
fn an_address_outside_of_all_pools_cannot_be_excluded() {
    let repository = Repository::new(&[("pool.yaml", EAST)]);
    for (words, status, why) in [
        (
            ["exclude", "198.51.100.9", "pool.yaml"],
            4,
            "198.51.100.9 is in no IPAddressPool, AddressPool or CiliumLoadBalancerIPPool",
        ),
        (
            ["exclude", "192.0.2.0/24", "pool.yaml"],
            4,
            "delete it instead",
        ),
        (["exclude", "192.0.2.9", "none.yaml"], 4, "No such file"),
        (
            ["exclude", "192.0.2.9-192.0.2.1", "pool.yaml"],
            2,
            "in the right order",
        ),
    ] {
        let output = repository.pools(&words, "");
        assert_eq!(output.status.code(), Some(status), "{words:?}: {output:?}");
        let messages = String::from_utf8(output.stderr).unwrap();
        assert!(messages.contains(why), "{messages}");
    }
}

#[test]
fn a_duplicate_key_exits_4_in_manifests_and_in_the_plan() {
    let twice = EAST.replace(
        "- 192.0.2.0/26",
        "- 192.0.2.0/28\n  addresses:\n  - 198.51.100.0/28",
    );
    let plan = "clusters:\n  east: {ranges: [192.0.2.0/24]}\n  east: {ranges: []}\n";
    let repository = Repository::new(&[
        ("twice/pool.yaml", &twice),
        ("east/pool.yaml", EAST),
        ("plan.yaml", plan),
    ]);
    let report = repository.json(4, &["twice"]);
    assert_eq!(report["unread"][0]["line"], 8);
    assert_eq!(report["pools"], Value::Array(Vec::new()));
    let shown = repository.ends_with(4, &["check", "twice"]);
    assert!(shown.contains("twice/pool.yaml:8:3\n"), "{shown}");
    let report = repository.json(4, &["east", "--plan", "plan.yaml"]);
    assert_eq!(report["unread"][0]["file"], "plan.yaml");
    assert_eq!(report["unread"][0]["line"], 3);
    let output = repository.pools(&["exclude", "192.0.2.9", "twice/pool.yaml"], "");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(
        messages.contains("twice/pool.yaml:8:3: duplicate key"),
        "{messages}"
    );
}

#[test]
fn the_plan_applies_to_every_path_of_the_directory() {
    let plan = "clusters: {east: {ranges: [198.51.100.0/24]}, west: {}}\n";
    let repository = Repository::new(&[
        ("east/pool.yaml", EAST),
        ("east-prod/pool.yaml", EAST),
        ("plan.yaml", plan),
        ("empty.yaml", "# later\n"),
    ]);
    let report = repository.json(1, &["east", "--plan", "plan.yaml"]);
    assert_eq!(codes(&report), ["outside_plan"]);
    let report = repository.json(1, &["east-prod", "--plan", "plan.yaml"]);
    assert_eq!(codes(&report), ["not_in_plan"]);
    assert_eq!(report["findings"][0]["level"], "error");
    let message = report["findings"][0]["message"].as_str().unwrap();
    assert!(message.ends_with("it contains east and west"), "{message}");
    let shown = repository.ends_with(
        1,
        &["check", "east-prod", "--plan", "plan.yaml", "-o", "sarif"],
    );
    let log: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(log["runs"][0]["results"][0]["level"], "error");
    let report = repository.json(4, &["east", "--plan", "empty.yaml"]);
    let reason = report["unread"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("the plan is empty"), "{reason}");
}

#[test]
fn control_characters_in_a_manifest_are_escaped() {
    let hostile = EAST
        .replace("name: default", "name: \"x\\n::error::injected \\e[31m\"")
        .replace("- 192.0.2.0/26", "- \"192.0.2.0/26\\r\\n::error::range\"");
    let repository = Repository::new(&[
        ("east/pool.yaml", &hostile),
        ("west/\n::error::file.yaml", EAST),
        ("west/all.yaml", EAST),
    ]);
    for words in [
        &["check", "east", "west"] as &[&str],
        &["free", "--no-probe", "east"],
        &["free", "--no-probe", "east", "--pool", "\n::error::pool"],
        &["exclude", "192.0.2.0/24", "east/pool.yaml"],
        &["exclude", "192.0.2.0/24", "west/\n::error::file.yaml"],
    ] {
        let output = repository.pools(words, "");
        assert_ne!(output.status.code(), Some(0), "{words:?}: {output:?}");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("probe: ") || text.contains("pools in 2 clusters"));
        for line in text.lines() {
            assert!(!line.trim_start().starts_with("::"), "{words:?}: {text}");
            assert!(!line.contains(char::is_control), "{words:?}: {text:?}");
        }
    }
}

#[test]
fn free_addresses_are_valid_by_the_schema_and_omit_excluded_ones() {
    let schema = include_str!("../../../docs/free.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    let large = EAST.replace("192.0.2.0/26", "10.0.0.0/8");
    let repository = Repository::new(&[("east.yaml", EAST), ("large.yaml", &large)]);
    let words = ["free", "--no-probe", "east.yaml", "-o", "json"];
    let free: Value = serde_json::from_str(&repository.ends_with(0, &words)).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(&free)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(free["pools"][0]["addresses"], 63);
    // The number that `check` counts.
    let report = repository.json(0, &["east.yaml"]);
    assert_eq!(report["pools"][0]["addresses"]["ipv4"], 63);
    let words = ["free", "--no-probe", "large.yaml", "--count", "256"];
    let shown = repository.ends_with(0, &words);
    let last: Vec<_> = shown.lines().skip(252).collect();
    assert_eq!(last, ["10.0.0.253", "10.0.0.254", "10.0.1.1", "10.0.1.2"]);
    let huge = EAST.replace("192.0.2.0/26", "0.0.0.0/0");
    let repository = Repository::new(&[("huge.yaml", &huge)]);
    let output = repository.pools(&["free", "--no-probe", "huge.yaml"], "");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(messages.contains("--count"), "{messages}");
}

#[test]
fn pools_in_a_config_map_are_named_and_exit_4() {
    let kube_vip = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubevip}\n\
                    data: {range-shop: 192.0.2.9-192.0.2.10}\n";
    let both = format!("{EAST}{kube_vip}");
    let repository = Repository::new(&[("both.yaml", &both), ("kube-vip.yaml", kube_vip)]);
    for (file, manifests) in [("both.yaml", 1), ("kube-vip.yaml", 0)] {
        let output = repository.pools(&["exclude", "192.0.2.9", file], "");
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.matches("kind: ").count(), manifests, "{printed}");
        let messages = String::from_utf8(output.stderr).unwrap();
        let expected =
            "192.0.2.9 is in pool range-shop of a kube-vip ConfigMap: remove it there manually";
        assert!(messages.contains(expected), "{messages}");
    }
}

#[test]
fn blocks_of_cilium_can_be_split_too() {
    let cilium = "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: blue}\n\
                  spec: {blocks: [{cidr: 192.0.2.0/28}]}\n";
    let repository = Repository::new(&[("blue.yaml", cilium), ("east.yaml", EAST)]);
    let report = repository.json(1, &["blue.yaml", "east.yaml"]);
    let next = report["findings"][0]["next"].as_str().unwrap();
    assert!(next.contains("probe pools exclude"), "{next}");
    let split = repository.ends_with(0, &["exclude", "192.0.2.0-192.0.2.7", "blue.yaml"]);
    let repository = Repository::new(&[("blue.yaml", &split)]);
    let report = repository.json(0, &["blue.yaml"]);
    assert_eq!(report["pools"][0]["addresses"]["ipv4"], 8);
}
