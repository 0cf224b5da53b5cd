//! `docs/metrics.md` names every metric, with its type and labels, and no other.

use std::collections::BTreeMap;

use prometheus::{core::Collector as _, process_collector::ProcessCollector};

use super::list;

const DOCUMENT: &str = include_str!("../../../../../docs/metrics.md");

/// Type and labels.
type MetricShape = (String, Vec<String>);

/// The rows of its tables of metrics: name, type, labels, meaning.
fn documented() -> BTreeMap<String, MetricShape> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    let metrics = rows.filter_map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else {
            return None;
        };
        assert!(!meaning.is_empty(), "{row}");
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        let shape = (kind.to_owned(), labels.collect());
        Some((name.trim_matches('`').to_owned(), shape))
    });
    metrics.collect()
}

fn exported() -> BTreeMap<String, MetricShape> {
    let own = list::ALL.iter().map(|metric| {
        let labels = metric.labels.iter().map(ToString::to_string).collect();
        (
            metric.name.to_owned(),
            (metric.kind.prometheus_type().to_owned(), labels),
        )
    });
    let of_the_process = ProcessCollector::for_self()
        .collect()
        .into_iter()
        .map(|family| {
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            (family.name().to_owned(), (kind, Vec::new()))
        });
    own.chain(of_the_process).collect()
}

#[test]
fn documentation_lists_exactly_the_exported_metrics() {
    assert_eq!(documented(), exported());
}

#[test]
fn names_and_helps_follow_the_conventions() {
    for metric in list::ALL {
        let name = metric.name;
        let is_counter = metric.kind == super::family::MetricKind::Counter;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        assert!(
            metric.help.ends_with('.') && !metric.help.contains('\n'),
            "{name}"
        );
        for label in metric.labels {
            let others = [
                "namespace",
                "service",
                "pod",
                "node",
                "instance",
                "job",
                "le",
            ];
            assert!(!others.contains(label), "{name} has the label {label}");
        }
    }
    let names: std::collections::BTreeSet<_> = list::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), list::ALL.len());
}
