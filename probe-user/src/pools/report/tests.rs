//! What people read, word for word.

use anstream::adapter::strip_str;

use super::*;
use crate::{
    pools::{Inventory, Plan, corpus_tests, judge, manifest},
    report::layout,
};

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

fn report(plan: &str) -> Report {
    let mut inventory = Inventory::default();
    manifest::read(&mut inventory, "east", "clusters/east/pool.yaml", EAST);
    manifest::read(&mut inventory, "west", "clusters/west/pools.yaml", WEST);
    let plan = match plan {
        "" => Plan::default(),
        plan => Plan::read(&mut inventory, "plan.yaml", plan),
    };
    let verdict = judge(&inventory, &plan, 10);
    Report::new(&inventory, &plan, &verdict)
}

fn page(report: &Report, width: usize) -> String {
    let mut out = Vec::new();
    Page::new(width).write(&mut out, report).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_page_says_what_is_wrong_where_and_what_to_do() {
    let expected = "
unread              clusters/west/pools.yaml:11:4
          Cannot read it: not YAML: unclosed bracket '['.
cluster_overlap     192.0.2.60/30
          Error: pool default of cluster east and pool edge of cluster west both
          have 192.0.2.60/30 (4 addresses).
          here      east IPAddressPool default: 192.0.2.0/26
                    clusters/east/pool.yaml:5:15
          and       west IPAddressPool edge: 192.0.2.60-192.0.2.69
                    clusters/west/pools.yaml:4:20
          next      take the addresses out of one pool; probe pools exclude
                    prints it without them
unadvertised_pool
          Warning: no advertisement announces pool edge of cluster west:
          services get its addresses, and nobody answers for them.
          here      west IPAddressPool edge
                    clusters/west/pools.yaml:3:18
          next      add it to an L2Advertisement or a BGPAdvertisement
unadvertised_pool
          Warning: no advertisement announces pool spare of cluster west:
          services get its addresses, and nobody answers for them.
          here      west IPAddressPool spare
                    clusters/west/pools.yaml:8:18
          next      add it to an L2Advertisement or a BGPAdvertisement

CLUSTER  POOL       IPV4  IPV6
east     default      64  2^64
west     edge         10     0
west     spare         9     0
west     (2 pools)    19     0
3 pools in 2 clusters: 1 error, 2 warnings; not everything could be read.
";
    let shown = strip_str(&page(&report(""), 80)).to_string();
    assert_eq!(shown, expected.trim_start_matches('\n'), "\n{shown}");
}

#[test]
fn with_a_plan_it_says_how_much_of_it_is_used() {
    let shown = strip_str(&page(&report(PLAN), 80)).to_string();
    let expected = "
CLUSTER  POOL       IPV4  IPV6      OF PLAN
east     default      64  2^64  50 %, < 1 %
west     edge         10     0
";
    assert!(shown.contains(expected), "\n{shown}");
}

#[test]
fn only_paths_are_wider_than_the_page() {
    for case in corpus_tests::cases() {
        let (inventory, plan, verdict) = corpus_tests::judged(&case);
        let report = Report::new(&inventory, &plan, &verdict);
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
fn colour_says_nothing_that_the_words_do_not() {
    let shown = page(&report(""), 80);
    assert!(shown.contains("\u{1b}["), "{shown}");
    for word in ["Error:", "Warning:", "Cannot read it:"] {
        assert!(shown.contains(word), "{shown}");
    }
}

#[test]
fn what_is_not_listed_is_said() {
    let report = Report {
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
fn numbers_are_exact_until_nobody_can_read_them() {
    for (number, text) in [
        (0, "0"),
        (1 << 32, "4294967296"),
        (1 << 64, "2^64"),
        ((1 << 64) + 1, "over 2^64"),
        (u128::MAX, "2^128"),
    ] {
        assert_eq!(words::amount(number), text);
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
        path.clone_into(&mut report.findings[0].places[0].file);
        let log = sarif(&report);
        let place = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], uri);
    }
}
