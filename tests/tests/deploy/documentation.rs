//! The documentation: its links lead to existing files and headings, it names only metrics and alerts that exist,
//! and the crates depend on each other as documented.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use probe_tests::workspace;

/// The pages by their path below the workspace, without code blocks.
fn pages() -> BTreeMap<PathBuf, String> {
    let directories = ["", "docs"].map(|directory| workspace().join(directory));
    let entries = directories
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let prose = text.split("```").step_by(2).collect();
            let name = path.strip_prefix(workspace()).unwrap().to_owned();
            (name, prose)
        })
        .collect()
}

/// The anchors of a page's headings, as Markdown renderers generate them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(anchor_of).collect()
}

fn anchor_of(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let slug = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    slug.collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_to_an_existing_file_and_heading() {
    let pages = pages();
    assert!(pages.len() > 10, "{pages:?}");
    for (page, text) in &pages {
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => normalized(&page.parent().unwrap().join(file)),
            };
            let linked = workspace().join(&target);
            assert!(linked.exists(), "{}: {link}", page.display());
            assert!(
                anchor.is_empty() || anchors(&pages[&target]).contains(anchor),
                "{}: {link}",
                page.display()
            );
        }
    }
}

/// The path without `..`.
fn normalized(path: &Path) -> PathBuf {
    let mut normalized = PathBuf::new();
    for component in path.components() {
        if component == std::path::Component::ParentDir {
            normalized.pop();
        } else {
            normalized.push(component);
        }
    }
    normalized
}

#[test]
fn every_documented_alert_exists() {
    let rules = ["", "-across-nodes", "-kubernetes"].map(|part| {
        let path = workspace().join(format!("deploy/prometheus/arp-monitor{part}.rules.yaml"));
        fs::read_to_string(path).unwrap()
    });
    let alerts: BTreeSet<_> = rules
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    for (page, text) in pages() {
        for name in text.split('`').skip(1).step_by(2) {
            let is_alert = name.starts_with("Arp") && name.chars().all(char::is_alphanumeric);
            // `ArpEvent` and other types of the code are not alerts.
            let is_type = matches!(name, "ArpEvent" | "ArpProbe");
            assert!(
                !is_alert || is_type || alerts.contains(name),
                "{}: {name}",
                page.display()
            );
        }
    }
}

#[test]
fn every_documented_metric_exists() {
    let pages = pages();
    let metrics = &pages[Path::new("docs/metrics.md")];
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for (page, text) in &pages {
        for rest in text.split("arp_monitor_").skip(1) {
            let name: String = rest.chars().take_while(|&c| is_name(c)).collect();
            let row = format!("| `arp_monitor_{name}` |");
            assert!(
                name.is_empty() || metrics.contains(&row),
                "{}: arp_monitor_{name}",
                page.display()
            );
        }
    }
}

/// The crates in the table of the architecture page, with their documented dependencies on crates of the workspace.
fn documented_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = page.split_once("## Crates\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`');
        let manifest = workspace().join(format!("probe-user/{name}/Cargo.toml"));
        let dependencies = cells[2].split(", ").map(str::to_owned).collect();
        manifest.exists().then(|| (name.to_owned(), dependencies))
    })
    .collect()
}

/// The names in the dependency section of a manifest.
fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = workspace().join(format!("probe-user/{name}/Cargo.toml"));
    let manifest = fs::read_to_string(manifest).unwrap();
    let (_, section) = manifest.split_once("\n[dependencies]\n").unwrap();
    let section = section.split("\n[").next().unwrap();
    let names = section
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next());
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_architecture_names_the_crates_that_each_crate_depends_on() {
    let documented = documented_dependencies();
    assert_eq!(documented.len(), 11);
    for (name, expected) in documented {
        let actual: BTreeSet<_> = dependencies(&name)
            .iter()
            .filter_map(|dependency| dependency.strip_prefix("probe-"))
            .map(str::to_owned)
            .collect();
        assert_eq!(actual, expected, "{name}");
    }
}

#[test]
fn pure_crates_use_no_sockets_files_or_async_runtime() {
    let impure = [
        "hyper",
        "kube",
        "libc",
        "nix",
        "reqwest",
        "rtnetlink",
        "rustix",
        "socket2",
        "tokio",
    ];
    for name in ["model", "detect", "pools", "cluster"] {
        let library = workspace().join(format!("probe-user/{name}/src/lib.rs"));
        let library = fs::read_to_string(library).unwrap();
        assert!(library.contains("#![forbid(unsafe_code)]"), "{name}");
        let used = dependencies(name);
        for package in impure {
            assert!(!used.contains(package), "{name} uses {package}");
        }
    }
}
