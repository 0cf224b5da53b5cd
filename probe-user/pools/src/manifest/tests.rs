//! Recognition of objects, and the errors for invalid ones. The contents of objects are tested by the corpus.

use std::fmt::Write as _;

use super::{objects::MAX_OBJECTS, *};
use crate::interval::IntervalError;

fn inventory(text: &str) -> PoolInventory {
    let mut inventory = PoolInventory::default();
    read(&mut inventory, "east", "pools.yaml", text);
    inventory
}

fn pools(text: &str) -> Vec<String> {
    let pools = inventory(text).pools.into_iter();
    pools.map(|pool| pool.name).collect()
}

fn unread(text: &str) -> Vec<String> {
    let unread = inventory(text).unread.into_iter();
    let messages = unread.map(|unread| format!("{}: {}", unread.mark.unwrap().line, unread.error));
    messages.collect()
}

fn pool(name: &str) -> String {
    format!(
        "{{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {{name: {name}}}, \
         spec: {{addresses: [192.0.2.0/24]}}}}"
    )
}

#[test]
fn a_list_in_a_list_is_read() {
    let text = format!(
        "kind: List\nitems:\n- {}\n- {{kind: List, items: [{{kind: List, items: [{}]}}]}}\n",
        pool("a"),
        pool("b")
    );
    assert_eq!(pools(&text), ["a", "b"]);
    assert_eq!(unread(&text), [""; 0]);
}

#[test]
fn items_inherit_kind_from_a_typed_list() {
    let text = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPoolList\nitems:\n\
                - {metadata: {name: a}, spec: {addresses: [192.0.2.0/24]}}\n\
                - {kind: Service, apiVersion: v1, metadata: {name: b}}\n";
    assert_eq!(pools(text), ["a"]);
    assert_eq!(unread(text), [""; 0]);
    // In an untyped list the kind is unknown.
    let text = format!(
        "kind: List\nitems:\n- {}\n- {{metadata: {{name: b}}}}\n",
        pool("a")
    );
    assert_eq!(pools(&text), ["a"]);
    assert_eq!(
        unread(&text),
        ["4: an item of a list is not an object with a kind"]
    );
}

#[test]
fn invalid_object_is_reported() {
    let array = format!("[{}]", pool("a"));
    assert_eq!(pools(&array), [""; 0]);
    assert!(unread(&array)[0].contains("kind List"));
    let items = "kind: IPAddressPoolList\napiVersion: metallb.io/v1beta1\nitems: {a: b}\n";
    assert_eq!(unread(items), ["3: items is not a list"]);
    // A playbook is a list as well, without objects in it.
    let playbook = format!("- name: pools\n  k8s: {{definition: {}}}\n", pool("a"));
    assert_eq!(unread(&playbook), [""; 0]);
}

#[test]
fn wrongly_typed_field_does_not_become_a_default() {
    let object = |metadata: &str, spec: &str| {
        let text = format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {metadata}\nspec: {spec}\n"
        );
        unread(&text)
    };
    let fine = "{name: a}";
    assert_eq!(object(fine, "{avoidBuggyIPs: yes, autoAssign: }"), [""; 0]);
    for (metadata, spec, messages) in [
        ("[1]", "{}", "3: metadata is not a mapping"),
        (
            fine,
            "{avoidBuggyIPs: 'true'}",
            "4: avoidBuggyIPs is not true or false, without quotes",
        ),
        (
            fine,
            "{autoAssign: maybe}",
            "4: autoAssign is not true or false, without quotes",
        ),
    ] {
        assert_eq!(object(metadata, spec), [messages]);
    }
    assert_eq!(
        unread("kind: [IPAddressPool]\napiVersion: metallb.io/v1beta1\n"),
        ["1: kind is not text"]
    );
    assert!(unread("kind: IPAddressPool\n")[0].contains("apiVersion is not set"));
    // The same kind in another API group.
    assert_eq!(
        unread("kind: AddressPool\napiVersion: example.org/v1\n"),
        [""; 0]
    );
}

#[test]
fn recursive_and_oversized_lists_are_bounded() {
    let text = format!("&a {{kind: List, items: [{}, *a]}}", pool("a"));
    assert!(unread(&text)[0].contains("nested less deeply"), "{text}");

    let mut text = format!("x: &a0 {}\n", pool("a"));
    for level in 1..8 {
        let below = vec![format!("*a{}", level - 1); 20].join(", ");
        writeln!(text, "x{level}: &a{level} {{kind: List, items: [{below}]}}").unwrap();
    }
    text += "kind: List\nitems: [*a7]\n";
    let inventory = inventory(&text);
    assert_eq!(inventory.unread.len(), 1);
    assert_eq!(
        inventory.unread[0].error,
        ManifestYamlError::TooLarge.into()
    );
    assert!(inventory.pools.len() < MAX_OBJECTS);
}

#[test]
fn data_shared_by_objects_is_stored_once() {
    let labels: Vec<_> = (0..20_000).map(|number| format!("l{number}: x")).collect();
    let wrong = vec!["[x]"; 20_000].join(", ");
    let mut text = format!(
        "x: &l {{{}}}\ny: &s {{addresses: [{wrong}]}}\nkind: List\nitems:\n",
        labels.join(", ")
    );
    for number in 0..2000 {
        writeln!(
            text,
            "- {{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, \
             metadata: {{name: p{number}, labels: *l}}, spec: *s}}"
        )
        .unwrap();
    }
    let inventory = inventory(&text);
    assert!(inventory.pools.len() < 60, "{}", inventory.pools.len());
    let last = inventory.unread.last().unwrap();
    assert_eq!(last.error, ManifestError::LimitExceeded);
}

/// The number of bytes of copied text.
fn text_of(inventory: &PoolInventory) -> usize {
    let of_pool = |pool: &Pool| {
        let labels = pool.labels.iter();
        let labels = labels.map(|(key, value)| key.len() + value.len());
        let ranges = pool.ranges.iter().map(|range| range.text.len());
        let invalid_ranges = pool.invalid_ranges.iter().map(|range| range.text.len());
        let namespace = pool.namespace.as_ref().map_or(0, String::len);
        let lists = labels.chain(ranges).chain(invalid_ranges).sum::<usize>();
        pool.name.len() + namespace + lists
    };
    let of_advertisement = |advertisement: &Advertisement| {
        let names = advertisement.pools.iter().map(|(name, _)| name.len());
        let selectors = advertisement.selectors.iter();
        let requirements = selectors.flat_map(|selector| &selector.requirements);
        let values = requirements
            .map(|one| one.key.len() + one.values.iter().map(String::len).sum::<usize>());
        advertisement.name.len() + names.chain(values).sum::<usize>()
    };
    let pools = inventory.pools.iter().map(of_pool);
    let advertisements = inventory.advertisements.iter().map(of_advertisement);
    pools.chain(advertisements).sum()
}

#[test]
fn long_text_shared_by_objects_is_stored_once() {
    let long = "x".repeat(1 << 20);
    let many = vec!["*s"; 20_000].join(", ");
    let fine = "metadata: {name: a}";
    let pool = "apiVersion: metallb.io/v1beta1, kind: IPAddressPool";
    let advertisement = "apiVersion: metallb.io/v1beta1, kind: L2Advertisement";
    let short = "addresses: [192.0.2.0/24]";
    for object in [
        format!("{pool}, metadata: {{name: a, labels: {{a: *s}}}}, spec: {{{short}}}"),
        format!("{pool}, metadata: {{name: a, labels: {{*s : a}}}}, spec: {{{short}}}"),
        format!("{pool}, metadata: {{name: *s}}, spec: {{{short}}}"),
        format!("{pool}, metadata: {{name: a, namespace: *s}}, spec: {{{short}}}"),
        format!("{pool}, {fine}, spec: {{addresses: [*s]}}"),
        format!("{pool}, {fine}, spec: {{addresses: [{many}]}}"),
        format!("{pool}, {fine}, spec: {{avoidBuggyIPs: *s}}"),
        format!("{advertisement}, {fine}, spec: {{ipAddressPools: [{many}]}}"),
        format!(
            "{advertisement}, {fine}, spec: {{ipAddressPoolSelectors: \
             [{{matchExpressions: [{{key: *s, operator: In, values: [{many}]}}]}}]}}"
        ),
        format!(
            "{advertisement}, {fine}, spec: {{ipAddressPoolSelectors: \
             [{{matchExpressions: [{{key: a, operator: In, values: [{many}]}}]}}]}}"
        ),
        format!(
            "{advertisement}, {fine}, spec: {{ipAddressPoolSelectors: [{{matchLabels: {{a: *s}}}}]}}"
        ),
        format!(
            "apiVersion: cilium.io/v2, kind: CiliumLoadBalancerIPPool, {fine}, \
             spec: {{blocks: [{{cidr: *s}}, {{start: *s}}, {{start: 192.0.2.1, stop: *s}}]}}"
        ),
        "apiVersion: v1, kind: ConfigMap, metadata: {name: kubevip}, data: {cidr-a: *s}".to_owned(),
        "apiVersion: v1, kind: ConfigMap, metadata: {name: kubevip, labels: {a: *s}}, \
         data: {cidr-a: 192.0.2.0/24}"
            .to_owned(),
    ] {
        let items = vec!["- *o"; 20_000].join("\n");
        let text = format!(
            "w: IPAddressPool\nx: &s {long}\ny: &o {{{object}}}\nkind: List\nitems:\n{items}\n"
        );
        let inventory = inventory(&text);
        let messages =
            |error: &ManifestError| inventory.unread.iter().any(|unread| unread.error == *error);
        assert!(messages(&ManifestError::LimitExceeded), "{object:.200}");
        assert!(text_of(&inventory) < 16_000_000, "{object:.200}");
        assert!(inventory.unread.len() < 1000, "{object:.200}");
    }
}

#[test]
fn data_shared_by_entries_of_an_object_is_stored_once() {
    let labels: Vec<_> = (0..5000).map(|number| format!("l{number}: x")).collect();
    let metadata = |name: &str| format!("{{name: {name}, labels: {{{}}}}}", labels.join(", "));
    let keys: Vec<_> = (0..5000)
        .map(|number| format!("cidr-{number}: 192.0.2.0/24"))
        .collect();
    let kube_vip = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {}\ndata: {{{}}}\n",
        metadata("kubevip"),
        keys.join(", ")
    );
    let entries = vec!["  - *p\n"; 5000].concat();
    let legacy = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {}\ndata:\n  config: |\n    x: &p {{name: a}}\n    \
         address-pools:\n{}",
        metadata("config"),
        entries.replace("  -", "    -")
    );
    let wrong = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config}}\ndata:\n  config: |\n    \
         x: &p {{name: a, addresses: [{}]}}\n    address-pools:\n{}",
        vec!["[x]"; 5000].join(", "),
        entries.replace("  -", "    -")
    );
    for text in [kube_vip, legacy, wrong] {
        let inventory = inventory(&text);
        let last = inventory.unread.last().unwrap();
        assert_eq!(last.error, ManifestError::LimitExceeded, "{text:.200}");
        assert!(inventory.pools.len() < 250, "{}", inventory.pools.len());
        let labels = inventory.pools.iter().map(|pool| pool.labels.len());
        assert!(labels.sum::<usize>() < 1_000_000, "{text:.200}");
    }
}

#[test]
fn overlong_names_and_labels_are_reported() {
    let object = |metadata: &str| {
        let text = format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: a, {metadata}}}\n\
             spec: {{addresses: [192.0.2.0/24]}}\n"
        );
        let messages = unread(&text);
        (inventory(&text).pools.remove(0), messages)
    };
    let x = |number: usize| "x".repeat(number);
    let (pool, messages) = object(&format!(
        "namespace: {}, labels: {{{}: {}}}",
        x(63),
        x(317),
        x(63)
    ));
    assert_eq!(messages, [""; 0]);
    assert_eq!((pool.namespace, pool.labels.len()), (Some(x(63)), 1));
    let (pool, messages) = object(&format!("namespace: {}", x(64)));
    assert_eq!(
        messages,
        ["3: metadata.namespace is not within the length limit of Kubernetes"]
    );
    assert_eq!(pool.namespace, None);
    for (key, value) in [(x(318), x(1)), (x(1), x(64))] {
        let (pool, messages) = object(&format!("labels: {{{key}: {value}}}"));
        let expected = "a label in Kubernetes (a key of up to 317 bytes, a value of up to 63)";
        assert_eq!(
            messages,
            [format!("3: a pair of metadata.labels is not {expected}")]
        );
        assert!(pool.labels.is_empty());
    }
}

#[test]
fn overlong_range_is_rejected() {
    let text = format!("'192.0.2.1/32{}'", " ".repeat(300));
    let text = pool("a").replace("192.0.2.0/24", &text);
    let pool = inventory(&text).pools.remove(0);
    assert_eq!(pool.ranges, []);
    assert_eq!(pool.invalid_ranges[0].error, IntervalError::TooLong);
    assert_eq!(pool.invalid_ranges[0].text.len(), 256);
}

#[test]
fn invalid_start_address_affects_only_its_range() {
    let text = "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: a}\n\
                spec: {blocks: [{cidr: 192.0.2.0/28}, {start: 198.51.100.1}, {start: x}]}\n";
    let pool = inventory(text).pools.remove(0);
    let texts: Vec<_> = pool.ranges.iter().map(|range| &*range.text).collect();
    assert_eq!(texts, ["192.0.2.0/28", "198.51.100.1"]);
    assert_eq!(pool.invalid_ranges.len(), 1);
}

#[test]
fn document_with_a_duplicate_key_is_not_evaluated() {
    let twice = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: a}\nspec:\n  \
                 addresses: [192.0.2.0/28]\n  addresses: [198.51.100.0/28]\n";
    assert_eq!(pools(twice), [""; 0]);
    let messages = unread(twice);
    assert!(
        messages[0].starts_with("6: duplicate key \"addresses\", first on line 5"),
        "{messages:?}"
    );
    // A duplicate `kind` is ambiguous as well.
    let kind = "kind: Service\nkind: IPAddressPool\napiVersion: metallb.io/v1beta1\n";
    assert_eq!(unread(kind).len(), 1);
    // Duplicate keys in unrelated objects are ignored.
    assert_eq!(unread("kind: Service\nkind: Service\n"), [""; 0]);
    let legacy = "kind: ConfigMap\napiVersion: v1\ndata:\n  config: |\n    address-pools: []\n    address-pools: []\n";
    assert!(unread(legacy)[0].starts_with("6: duplicate key"));
    let quoted = "kind: ConfigMap\napiVersion: v1\ndata:\n  config: \"address-pools: []\\naddress-pools: []\\n\"\n";
    let messages = unread(quoted);
    assert!(messages[0].contains("first on line 4"), "{messages:?}");
}

#[test]
fn names_are_those_that_objects_can_have() {
    for name in ["a", "a-b.c0", "0", &"a".repeat(253)] {
        assert!(is_name(name), "{name}");
        assert_eq!(unread(&pool(name)), [""; 0]);
    }
    for name in [
        "",
        "A",
        "a_b",
        "-a",
        "a-",
        "a..b",
        ".a",
        "a b",
        "ä",
        "::error::x",
        "a\u{1b}[31m",
        &"a".repeat(254),
    ] {
        assert!(!is_name(name), "{name}");
        let quoted = serde_json::Value::from(name).to_string();
        let messages = unread(&pool(&quoted));
        assert_eq!(messages.len(), 1, "{name}: {messages:?}");
        assert!(
            messages[0].contains("metadata.name is not a name"),
            "{messages:?}"
        );
    }
}

#[test]
fn escaped_kind_is_found_in_a_directory() {
    let found = |text: &str| {
        let mut inventory = PoolInventory::default();
        read_found(&mut inventory, "east", "pools.yaml", text);
        (inventory.pools.len(), inventory.unread.len())
    };
    for kind in ["\"IPAddress\\u0050ool\"", "\"IPAdd\\\n  ressPool\""] {
        let text = pool("a").replace("IPAddressPool", kind);
        assert!(!is_relevant(&text), "{text}");
        assert_eq!(found(&text), (1, 0), "{text}");
    }
    assert_eq!(found("a: \"\\u0041\"\n---\n{{ template }}\n"), (0, 0));
}
