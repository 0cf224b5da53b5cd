//! The exact text for people.

use std::fs;

use anstream::adapter::strip_str;
use probe_pools::{
    AddressPlan, PoolFindingCode, PoolInventory, check_pools,
    corpus::{self, cases, files},
    manifest,
};
use proptest::prelude::*;

use super::*;
use crate::layout;

const EAST: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: default}
spec:
  addresses: [192.0.2.0/26, 2001:db8::/64]
  avoidBuggyIPs: true
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all}
";
const WEST: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: edge}
spec: {addresses: [192.0.2.60-192.0.2.69]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: spare}
spec: {addresses: [198.51.100.1-198.51.100.9]}
---
a: [
";
const PLAN: &str = "clusters: {east: {ranges: [192.0.2.0/25, 2001:db8::/56]}}\n";

fn report(plan: &str) -> PoolsReport {
    let mut inventory = PoolInventory::default();
    manifest::read(&mut inventory, "east", "clusters/east/pool.yaml", EAST);
    manifest::read(&mut inventory, "west", "clusters/west/pools.yaml", WEST);
    let plan = match plan {
        "" => AddressPlan::default(),
        plan => AddressPlan::read(&mut inventory, "plan.yaml", plan),
    };
    let evaluation = check_pools(&inventory, &plan, 10);
    PoolsReport::new(&inventory, &plan, &evaluation)
}

fn page(report: &PoolsReport, width: usize) -> String {
    let mut out = Vec::new();
    ReportPrinter::new(width).write(&mut out, report).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn page_contains_problem_location_and_fix() {
    let expected = "
unread              clusters/west/pools.yaml:11:4
          Cannot read it: not YAML: unclosed bracket '['.
cluster_overlap     192.0.2.60/30
          Error: pool default of cluster east and pool edge of cluster west both
          contain 192.0.2.60/30 (4 addresses).
          here      east IPAddressPool default: 192.0.2.0/26
                    clusters/east/pool.yaml:5:15
          and       west IPAddressPool edge: 192.0.2.60-192.0.2.69
                    clusters/west/pools.yaml:4:20
          next      exclude the addresses from one pool; probe pools exclude
                    prints the new manifest
unadvertised_pool
          Warning: no advertisement announces pool edge of cluster west:
          services get its addresses, and no host replies for them.
          here      west IPAddressPool edge
                    clusters/west/pools.yaml:3:18
          next      add it to an L2Advertisement or a BGPAdvertisement
unadvertised_pool
          Warning: no advertisement announces pool spare of cluster west:
          services get its addresses, and no host replies for them.
          here      west IPAddressPool spare
                    clusters/west/pools.yaml:8:18
          next      add it to an L2Advertisement or a BGPAdvertisement

CLUSTER  POOL       IPV4  IPV6
east     default      63  2^64
west     edge         10     0
west     spare         9     0
west     (2 pools)    19     0
3 pools in 2 clusters: 1 error, 2 warnings; not everything could be read.
";
    let shown = strip_str(&page(&report(""), 80)).to_string();
    assert_eq!(shown, expected.trim_start_matches('\n'), "\n{shown}");
}

#[test]
fn plan_usage_is_shown() {
    let shown = strip_str(&page(&report(PLAN), 80)).to_string();
    let expected = "
CLUSTER  POOL       IPV4  IPV6      OF PLAN
east     default      63  2^64  49 %, < 1 %
west     edge         10     0
";
    assert!(shown.contains(expected), "\n{shown}");
}

/// What a stranger can put into manifests, a plan and the names of files.
const HOSTILE: &str = r#"
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: "a\e[31mX\n::error::injected ::warning::it ##[error]x", namespace: "\x9b2J"}
spec: {addresses: [192.0.2.0/24, "\r\n::error::r", "192.0.2.1-\e]0;title\a", "{0}"], addresses2: "\u202e"}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: "\n::error::adv"}
spec: {ipAddressPools: ["\n::set-output name=a::b"], ipAddressPoolSelectors: [{matchLabels: {"\n": "\n"}}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: twice}
spec: {"\n::error::k": 1, "\n::error::k": 2}
"#;
const HOSTILE_PLAN: &str = r#"
clusters: {"\n::error::c": {ranges: [192.0.2.0/24, "\n::error::q"]}, "\e[2J": {ranges: [192.0.2.0/25]}}
reserved: [{range: 192.0.2.7, name: "\n::error::gateway"}]
"#;

#[test]
fn untrusted_text_is_escaped() {
    let mut inventory = PoolInventory::default();
    for cluster in ["\n::error::c", "e\u{1b}[31m"] {
        let file = format!("{cluster}/\r\n::error file=x::pool.yaml");
        manifest::read(&mut inventory, cluster, &file, HOSTILE);
    }
    let plan = AddressPlan::read(&mut inventory, "\n::error::plan.yaml", HOSTILE_PLAN);
    let evaluation = check_pools(&inventory, &plan, 10);
    let report = PoolsReport::new(&inventory, &plan, &evaluation);
    let codes: Vec<_> = report.findings.iter().map(|one| one.finding).collect();
    for code in [
        PoolFindingCode::ClusterOverlap,
        PoolFindingCode::ReservedOverlap,
        PoolFindingCode::PlanOverlap,
        PoolFindingCode::NotInPlan,
        PoolFindingCode::InvalidRange,
        PoolFindingCode::UnknownPool,
        PoolFindingCode::IdleSelector,
    ] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    assert!(report.unread.len() >= 4, "{:?}", report.unread);
    let log = sarif(&report);
    let mut messages: Vec<_> = report.findings.iter().map(|one| &*one.message).collect();
    messages.extend(report.unread.iter().map(|one| &*one.reason));
    for result in log["runs"][0]["results"].as_array().unwrap() {
        let related = result["relatedLocations"].as_array().unwrap().iter();
        messages.extend(related.map(|one| one["message"]["text"].as_str().unwrap()));
    }
    let pages = [60, 61, 67, 80, 120].map(|width| strip_str(&page(&report, width)).to_string());
    let coloured = page(&report, 80);
    assert_eq!(
        strip_str(&coloured).to_string(),
        pages[3],
        "only our colours"
    );
    for text in pages.iter().map(String::as_str).chain(messages) {
        for line in text.lines() {
            assert!(!line.trim_start().starts_with("::error"), "{text}");
            assert!(!line.trim_start().starts_with("::set"), "{text}");
            assert!(!line.contains("##["), "{text}");
            assert!(!line.contains(char::is_control), "{text:?}");
        }
    }
}

#[test]
fn plan_lists_its_clusters() {
    let clusters = |number: usize| {
        let names: Vec<_> = (0..number).map(|index| format!("c{index}: {{}}")).collect();
        let plan = format!("clusters: {{{}}}\n", names.join(", "));
        let report = report(&plan);
        let mut findings = report.findings.iter();
        let found = findings
            .find(|one| one.finding == PoolFindingCode::NotInPlan)
            .unwrap();
        assert_eq!(found.level, probe_pools::PoolFindingLevel::Error);
        let (_, known) = found.message.split_once("it contains ").unwrap();
        known.to_owned()
    };
    assert_eq!(clusters(1), "c0");
    assert_eq!(clusters(3), "c0, c1 and c2");
    assert_eq!(
        clusters(13),
        "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 3 more"
    );
}

#[test]
fn excluding_is_recommended_only_where_it_works() {
    let cilium = "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: c}\n\
                  spec: {blocks: [{cidr: 192.0.2.8/29}]}\n";
    let kube_vip = |range: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: kubevip}}\ndata: {{range-a: {range}}}\n"
        )
    };
    let next = |one: &str, other: &str| {
        let mut inventory = PoolInventory::default();
        manifest::read(&mut inventory, "one", "one.yaml", one);
        manifest::read(&mut inventory, "other", "other.yaml", other);
        let plan = AddressPlan::default();
        let evaluation = check_pools(&inventory, &plan, 10);
        let report = PoolsReport::new(&inventory, &plan, &evaluation);
        let mut findings = report.findings.iter();
        let found = findings.find(|one| one.finding == PoolFindingCode::ClusterOverlap);
        found.unwrap().next
    };
    assert!(next(EAST, cilium).ends_with("probe pools exclude prints the new manifest"));
    assert!(next(EAST, &kube_vip("192.0.2.1-192.0.2.9")).contains("for the custom resource"));
    let manual_ranges = next(
        &kube_vip("192.0.2.1-192.0.2.9"),
        &kube_vip("192.0.2.9-192.0.2.10"),
    );
    assert!(!manual_ranges.contains("exclude"), "{manual_ranges}");
}

#[test]
fn only_paths_are_wider_than_the_page() {
    for case in corpus::cases() {
        let (inventory, plan, evaluation) = corpus::evaluated(&case);
        let report = PoolsReport::new(&inventory, &plan, &evaluation);
        for width in [60, 80, 120] {
            let shown = strip_str(&page(&report, width)).to_string();
            assert!(!shown.is_empty());
            for line in shown.lines().filter(|line| !line.contains(".yaml:")) {
                assert!(layout::width_of(line) <= width, "{width}: {line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }
}

#[test]
fn colour_carries_no_information_of_its_own() {
    let shown = page(&report(""), 80);
    assert!(shown.contains("\u{1b}["), "{shown}");
    for word in ["Error:", "Warning:", "Cannot read it:"] {
        assert!(shown.contains(word), "{shown}");
    }
}

#[test]
fn unlisted_findings_are_counted_in_the_page() {
    let report = PoolsReport {
        more: 1234,
        ..report("")
    };
    let shown = page(&report, 80);
    assert!(
        shown.contains("1234 more overlaps are not listed"),
        "{shown}"
    );
    assert!(shown.contains("1235 errors"), "{shown}");
    let log = sarif(&report);
    let said = &log["runs"][0]["invocations"][0]["toolExecutionNotifications"];
    assert!(said.to_string().contains("1234 more overlaps"), "{said}");
}

#[test]
fn numbers_are_exact_up_to_a_readable_length() {
    for (number, text) in [
        (0, "0"),
        (1 << 32, "4294967296"),
        (1 << 64, "2^64"),
        ((1 << 64) + 1, "over 2^64"),
        (u128::MAX, "2^128"),
    ] {
        assert_eq!(text::amount(number), text);
    }
}

#[test]
fn a_path_becomes_a_uri() {
    let mut report = report("");
    report.findings.truncate(1);
    for (path, uri) in [
        ("./a b/ü#.yaml", "a%20b/%C3%BC%23.yaml"),
        ("/etc/pools.yaml", "file:///etc/pools.yaml"),
    ] {
        path.clone_into(&mut report.findings[0].locations[0].file);
        let log = sarif(&report);
        let location = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], uri);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A damaged manifest still yields a report.
    #[test]
    fn damaged_report_causes_no_panic(
        which: prop::sample::Index,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..30_usize, ".{0,6}"), 1..8),
    ) {
        let case = which.get(&cases()).clone();
        let all = files(&case, &case);
        let mut inventory = PoolInventory::default();
        let mut plan = AddressPlan::default();
        for file in all {
            let mut text: Vec<char> = fs::read_to_string(case.join(&file)).unwrap().chars().collect();
            for (at, length, instead) in &cuts {
                let at = at.index(text.len() + 1);
                let end = (at + length).min(text.len());
                text.splice(at..end, instead.chars());
            }
            let text: String = text.into_iter().collect();
            if file.ends_with("plan.yaml") {
                plan = AddressPlan::read(&mut inventory, "plan.yaml", &text);
            } else {
                manifest::read(&mut inventory, "one", "one.yaml", &text);
                let _ = exclude("192.0.2.10/31", &text);
            }
        }
        let evaluation = check_pools(&inventory, &plan, 10);
        let report = PoolsReport::new(&inventory, &plan, &evaluation);
        let mut out = Vec::new();
        ReportPrinter::new(60).write(&mut out, &report).unwrap();
        prop_assert!(!out.is_empty());
    }
}

fn exclude(range: &str, text: &str) -> bool {
    let (wanted, _) = probe_pools::interval::Interval::parse(range).unwrap();
    probe_pools::exclude::exclude(text, wanted).is_ok()
}
