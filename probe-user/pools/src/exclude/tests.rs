//! Excluding addresses changes nothing else in a pool.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::{PoolInventory, manifest, usage::FamilyCounts};

const POOL: &str = "\
# services of the first floor
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first # floor
  namespace: metallb-system
  uid: 3f0c
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{}'
    note: 'yes'
    text: |
      two
      lines
spec:
  addresses: [192.0.2.0/24, '2001:db8::/126']
  autoAssign: false
  serviceAllocation:
    priority: 50
    namespaceSelectors:
      - matchLabels: {team: a, on: \"true\"}
        matchExpressions: []
      - {}
    namespaces: [one, two]
status:
  assignedIPv4: 3
";

fn interval(text: &str) -> Interval {
    Interval::parse(text).unwrap().0
}

fn only(text: &str, wanted: &str) -> String {
    let mut excluded = exclude(text, interval(wanted)).unwrap();
    assert_eq!(excluded.manifests.len(), 1);
    assert_eq!(excluded.not_in_pools, []);
    excluded.manifests.remove(0)
}

#[test]
fn manifest_is_rewritten_with_new_ranges_only() {
    let expected = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first
  namespace: metallb-system
  annotations:
    note: \"yes\"
    text: \"two\\nlines\\n\"
spec:
  addresses:
  - 192.0.2.0-192.0.2.8
  - 192.0.2.10-192.0.2.255
  - \"2001:db8::/126\"
  autoAssign: false
  serviceAllocation:
    priority: 50
    namespaceSelectors:
    - matchLabels:
        team: a
        on: \"true\"
      matchExpressions: []
    - {}
    namespaces:
    - one
    - two
";
    let written = only(POOL, "192.0.2.9");
    assert_eq!(written, expected, "\n{written}");
}

#[test]
fn ranges_and_ipv6_addresses_are_excluded() {
    let written = only(POOL, "192.0.2.128-192.0.2.255");
    assert!(
        written.contains("\n  - 192.0.2.0/25\n  - \"2001"),
        "{written}"
    );
    let written = only(POOL, "2001:db8::");
    assert!(
        written.contains("  - 192.0.2.0/24\n  - \"2001:db8::1-2001:db8::3\"\n"),
        "{written}"
    );
}

#[test]
fn only_pools_that_have_it_are_printed() {
    let other = POOL.replace("192.0.2.0/24", "198.51.100.0/24");
    let other = other.replace("2001:db8::/126", "2001:db8:1::/126");
    let both = format!("{POOL}---\n{other}---\nkind: Service\n---\na: [\n");
    let excluded = exclude(&both, interval("198.51.100.7")).unwrap();
    assert_eq!(excluded.manifests.len(), 1);
    assert_eq!(excluded.invalid.len(), 1);
    let excluded = exclude(&both, interval("192.0.2.0-198.51.100.7")).unwrap();
    assert_eq!(excluded.manifests.len(), 2);
    assert_eq!(excluded.not_in_pools, [interval("192.0.3.0-198.51.99.255")]);
}

#[test]
fn a_pool_in_a_list_comes_out_of_it() {
    let list = r#"{"kind": "List", "apiVersion": "v1", "items": [{"apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool", "metadata": {"name": "a"}, "spec": {"addresses": ["192.0.2.0/31"]}}]}"#;
    assert_eq!(
        only(list, "192.0.2.0"),
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata:\n  name: a\n\
         spec:\n  addresses:\n  - 192.0.2.1/32\n"
    );
}

#[test]
fn address_outside_all_pools_and_last_address_of_a_pool_are_errors() {
    let error = exclude(POOL, interval("203.0.113.1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "203.0.113.1 is in no IPAddressPool, AddressPool or CiliumLoadBalancerIPPool of the file"
    );
    let one = POOL.replace(", '2001:db8::/126'", "");
    let error = exclude(&one, interval("192.0.0.0/16")).unwrap_err();
    assert_eq!(error, ExcludeError::NothingLeft("first".to_owned()));
}

#[test]
fn pool_expanded_by_aliases_is_rejected() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{below}]").unwrap();
    }
    let bomb = format!("{POOL}{text}");
    let error = exclude(&bomb, interval("192.0.2.9")).unwrap_err();
    assert_eq!(error, ExcludeError::TooLarge("first".to_owned()));
    let itself = format!("{POOL}x: &x {{x: *x}}\n");
    let error = exclude(&itself, interval("192.0.2.9")).unwrap_err();
    assert_eq!(error, ExcludeError::TooLarge("first".to_owned()));
}

#[test]
fn long_text_repeated_by_aliases_is_rejected() {
    let long = "x".repeat(1 << 20);
    let too_large = ExcludeError::TooLarge("first".to_owned());
    let many = vec!["*s"; 20_000].join(", ");
    let listed = format!("{POOL}a: &s {long}\nb: [{many}]\n");
    let error = exclude(&listed, interval("192.0.2.9")).unwrap_err();
    assert_eq!(error, too_large);
    let keys: Vec<_> = (0..20_000).map(|number| format!("k{number}: *s")).collect();
    let mapped = format!("{POOL}a: &s {long}\nb: {{{}}}\n", keys.join(", "));
    let error = exclude(&mapped, interval("192.0.2.9")).unwrap_err();
    assert_eq!(error, too_large);
    // Each manifest is within the limit, and their sum exceeds it.
    let items = vec!["- *p"; 20_000].join("\n");
    let pools = format!(
        "x: &p {{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {{name: first}}, \
         spec: {{addresses: [192.0.2.0/24]}}, note: {long}}}\nkind: List\nitems:\n{items}\n"
    );
    let error = exclude(&pools, interval("192.0.2.9")).unwrap_err();
    assert_eq!(error, too_large);
    let few = pools.replace(&items, "- *p\n- *p");
    let excluded = exclude(&few, interval("192.0.2.9")).unwrap();
    assert_eq!(excluded.manifests.len(), 2);
}

#[test]
fn oversized_manifest_is_not_split() {
    let long = "x".repeat(1 << 20);
    let many = vec!["*s"; 20_000].join(", ");
    let text = format!("x: &s {long}\n{POOL}").replace("[192", &format!("[{many}, 192"));
    let excluded = exclude(&text, interval("192.0.2.9")).unwrap();
    assert_eq!(excluded.manifests, [""; 0]);
    let errors: Vec<_> = excluded
        .invalid
        .into_iter()
        .map(|(_, error)| error)
        .collect();
    assert_eq!(errors, [ManifestError::LimitExceeded]);
    // Documents of a few hundred bytes each, with more invalid objects than the limit.
    let mut document = "x0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..6 {
        let below = vec![format!("*l{}", level - 1); 10].join(", ");
        let below = below.replace("*l0", "{kind: List, items: *a0}");
        writeln!(
            document,
            "x{level}: &l{level} {{kind: List, items: [{below}]}}"
        )
        .unwrap();
    }
    document += "y: IPAddressPool\nkind: List\nitems: [*l5]\n---\n";
    let excluded = exclude(&document.repeat(50), interval("192.0.2.9")).unwrap();
    let errors: Vec<_> = excluded
        .invalid
        .into_iter()
        .map(|(_, error)| error)
        .collect();
    assert_eq!(errors, [ManifestError::LimitExceeded]);
}

const BLUE: &str = "\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: blue}
spec:
  blocks:
  - cidr: 192.0.2.0/28
  - {start: 198.51.100.1, stop: 198.51.100.9}
  - start: 203.0.113.7
  - cidr: 2001:db8::/64
  serviceSelector: {matchLabels: {color: blue}}
";

#[test]
fn blocks_of_cilium_are_split_into_ranges() {
    let split = only(BLUE, "192.0.2.5");
    let expected = "\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata:
  name: blue
spec:
  blocks:
  - start: 192.0.2.0
    stop: 192.0.2.4
  - start: 192.0.2.6
    stop: 192.0.2.15
  - start: 198.51.100.1
    stop: 198.51.100.9
  - start: 203.0.113.7
  - cidr: 2001:db8::/64
  serviceSelector:
    matchLabels:
      color: blue
";
    assert_eq!(split, expected, "\n{split}");
    let duplicate = only(&split, "198.51.100.4-198.51.100.9");
    assert!(
        duplicate.contains("- start: 198.51.100.1\n    stop: 198.51.100.3\n  - start: 203"),
        "{duplicate}"
    );
    let single = only(BLUE, "203.0.113.7");
    assert!(!single.contains("203.0.113"), "{single}");
    let six = only(BLUE, "2001:db8::");
    assert!(
        six.contains("- start: \"2001:db8::1\"\n    stop: \"2001:db8::ffff:ffff:ffff:ffff\"\n"),
        "{six}"
    );
}

#[test]
fn first_and_last_address_reserved_by_cilium_stay_reserved() {
    let keeps = format!("{BLUE}  allowFirstLastIPs: \"No\"\n");
    let split = only(&keeps, "192.0.2.5");
    assert!(
        split.contains(
            "- start: 192.0.2.1\n    stop: 192.0.2.4\n  - start: 192.0.2.6\n    stop: 192.0.2.14\n"
        ),
        "{split}"
    );
    // In ranges it reserves nothing.
    let split = only(&keeps, "198.51.100.4");
    assert!(split.contains("- start: 198.51.100.1\n"), "{split}");
    assert!(split.contains("- cidr: 192.0.2.0/28\n"), "{split}");
}

#[test]
fn unwritable_pool_is_reported_with_a_fix() {
    let old = "apiVersion: cilium.io/v2alpha1\nkind: CiliumLoadBalancerIPPool\n\
               metadata: {name: old}\nspec: {cidrs: [{cidr: 192.0.2.0/28}]}\n";
    let error = exclude(old, interval("192.0.2.1")).unwrap_err();
    assert_eq!(error, ExcludeError::DeprecatedField("old".to_owned()));
    let kube_vip = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubevip}\n\
                    data: {range-shop: 192.0.2.1-192.0.2.9}\n";
    let excluded = exclude(kube_vip, interval("192.0.2.0/30")).unwrap();
    assert_eq!(excluded.manifests, [""; 0]);
    let entry = "pool range-shop of a kube-vip ConfigMap".to_owned();
    assert_eq!(
        excluded.manual_ranges,
        [(interval("192.0.2.1-192.0.2.3"), entry)]
    );
    assert_eq!(excluded.not_in_pools, [interval("192.0.2.0")]);
    let twice = POOL.replace("  autoAssign", "  addresses: []\n  autoAssign");
    let excluded = exclude(&twice, interval("192.0.2.9")).unwrap();
    assert_eq!(excluded.manifests, [""; 0]);
    assert!(
        excluded.invalid[0]
            .1
            .to_string()
            .contains("duplicate key \"addresses\"")
    );
}

#[test]
fn addresses_from_a_merge_are_not_reported_as_removed() {
    let merged = "a: &a {addresses: [192.0.2.0/28]}\napiVersion: metallb.io/v1beta1\n\
                  kind: IPAddressPool\nmetadata: {name: m}\nspec: {<<: *a}\n";
    let error = exclude(merged, interval("192.0.2.1")).unwrap_err();
    assert_eq!(error, ExcludeError::Merged("m".to_owned()));
    let aliased = merged.replace("{<<: *a}", "*a");
    assert!(
        only(&aliased, "192.0.2.0").contains("spec:\n  addresses:\n  - 192.0.2.1-192.0.2.15\n")
    );
}

#[test]
fn kind_of_a_typed_list_is_written_with_each_item() {
    let list = "kind: AddressPoolList\napiVersion: metallb.io/v1beta1\nitems:\n\
                - {metadata: {name: a}, spec: {addresses: [192.0.2.0/31, [x]], protocol: layer2}}\n";
    assert_eq!(
        only(list, "192.0.2.0"),
        "apiVersion: metallb.io/v1beta1\nkind: AddressPool\nmetadata:\n  name: a\n\
         spec:\n  addresses:\n  - 192.0.2.1/32\n  -\n    - x\n  protocol: layer2\n"
    );
}

#[test]
fn no_control_characters_in_the_output() {
    let hostile = POOL.replace("note: 'yes'", "note: \"a\\e[31m\\x9b2J\\x7f\\x85\\n\"");
    let written = only(&hostile, "192.0.2.9");
    assert!(
        !written.contains(|letter: char| letter.is_control() && letter != '\n'),
        "{written:?}"
    );
    let text = crate::yaml::documents(&written);
    let document = text[0].as_ref().unwrap();
    let note = document
        .root()
        .get_path(&["metadata", "annotations", "note"]);
    assert_eq!(
        note.and_then(YamlValue::text),
        Some("a\u{1b}[31m\u{9b}2J\u{7f}\u{85}\n")
    );
}

proptest! {
    #[test]
    fn remaining_and_excluded_addresses_make_up_the_pool(
        pool in prop::collection::vec((any::<u8>(), any::<u8>()), 1..6),
        out in (any::<u8>(), any::<u8>()),
    ) {
        let range = |(one, other): (u8, u8)| {
            let (first, last) = (one.min(other), one.max(other));
            format!("192.0.2.{first}-192.0.2.{last}")
        };
        let ranges: Vec<_> = pool.into_iter().map(range).collect();
        let text = format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: p}}\n\
             spec: {{addresses: [{}]}}\n",
            ranges.join(", ")
        );
        let all: Vec<_> = ranges.iter().map(|text| interval(text)).collect();
        let wanted = interval(&range(out));
        let expected: Vec<_> = merged(all.clone()).iter().flat_map(|one| one.without(&wanted)).collect();
        match exclude(&text, wanted) {
            Ok(excluded) => {
                let mut inventory = PoolInventory::default();
                manifest::read(&mut inventory, "c", "f", &excluded.manifests[0]);
                let left = inventory.pools[0].ranges.iter().map(|range| range.interval).collect();
                prop_assert_eq!(merged(left), expected);
                let excluded = FamilyCounts::of(vec![wanted]).v4 - FamilyCounts::of(excluded.not_in_pools).v4;
                let before = FamilyCounts::of(all).v4;
                let after = FamilyCounts::of(merged(inventory.pools[0].ranges.iter().map(|range| range.interval).collect())).v4;
                prop_assert_eq!(before - after, excluded);
            }
            Err(ExcludeError::NotInPools(_)) => prop_assert_eq!(merged(all), expected),
            Err(ExcludeError::NothingLeft(_)) => prop_assert_eq!(expected, []),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
