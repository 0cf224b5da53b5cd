//! The plain manifests and the kustomize base: the Helm chart rendered with its default values.
//!
//! The chart is the source. The generated files are committed, so that `kubectl apply -f` needs only kubectl; a
//! test compares them.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result};
use probe_tests::Chart;
use serde_json::{Value, json};

/// The name of the release, and so of every object.
const NAME: &str = "arp-monitor";

const HEADER: &str =
    "# Made from deploy/helm/arp-monitor by `cargo xtask manifests`: change it there.\n";

/// The templates of the base, in the order in which they are applied.
const BASE: [&str; 5] = [
    "namespace.yaml",
    "service-account.yaml",
    "rbac.yaml",
    "config.yaml",
    "daemonset.yaml",
];

/// The optional templates, each with its switch in the values.
const EXTRAS: [(&str, &str); 5] = [
    ("dashboard.yaml", "dashboard"),
    ("pod-monitor.yaml", "podMonitor"),
    ("prometheus-rule.yaml", "prometheusRule"),
    ("resource-quota.yaml", "resourceQuota"),
    (
        "security-context-constraints.yaml",
        "securityContextConstraints",
    ),
];

/// Every generated file, by its path below `deploy`.
pub fn generate(chart: &Chart) -> Result<BTreeMap<PathBuf, String>> {
    let rendered = chart.render(NAME, NAME, &values())?;
    let template = |name: &str| {
        let text = rendered.get(name).with_context(|| {
            format!("the chart's template {name} gives nothing with every switch on")
        })?;
        Ok::<_, anyhow::Error>(document(text))
    };
    let mut files = BTreeMap::new();
    let mut all = Vec::new();
    for name in BASE {
        let text = template(name)?;
        files.insert(
            PathBuf::from("kustomize/base").join(name),
            format!("{HEADER}{text}"),
        );
        all.push(text);
    }
    files.insert(
        PathBuf::from("kubernetes/arp-monitor.yaml"),
        format!("{HEADER}{}", all.join("---\n")),
    );
    for (name, _) in EXTRAS {
        let text = format!("{HEADER}{}", template(name)?);
        let directory = PathBuf::from("kustomize").join(name.trim_end_matches(".yaml"));
        files.insert(directory.join(name), text.clone());
        files.insert(PathBuf::from("kubernetes").join(name), text);
    }
    Ok(files)
}

/// The default values with every switch on.
fn values() -> Value {
    let mut values = json!({ "namespace": { "create": true } });
    for (_, switch) in EXTRAS {
        values[switch] = json!({ "enabled": true });
    }
    values
}

/// Cleans a rendered document: removes blank lines of omitted parts and trailing indentation.
fn document(rendered: &str) -> String {
    let text = rendered.trim().trim_start_matches("---").trim();
    text.lines()
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use probe_tests::deploy;

    use super::*;

    #[test]
    fn the_committed_manifests_equal_the_rendered_chart() {
        let generated = generate(&Chart::of_this_repository()).unwrap();
        assert!(generated.len() > BASE.len() + EXTRAS.len());
        for (path, text) in generated {
            let committed = fs::read_to_string(deploy().join(&path));
            let path = path.display();
            assert!(
                committed.is_ok_and(|committed| committed == text),
                "deploy/{path} differs from the rendered chart: run `cargo xtask manifests`"
            );
        }
    }
}
