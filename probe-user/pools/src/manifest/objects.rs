//! Collects the objects of a document. Each has an API version and kind, or inherits them from its list.

use super::super::{
    model::{ManifestError, PoolKind},
    yaml::{ManifestYamlError, YamlDocument, YamlMark, YamlValue},
};

/// The resource kinds that are read.
const KNOWN_KINDS: [&str; 5] = [
    "IPAddressPool",
    "AddressPool",
    "L2Advertisement",
    "BGPAdvertisement",
    "CiliumLoadBalancerIPPool",
];
/// Maximum depth of nested lists.
const MAX_LIST_DEPTH: usize = 8;
/// Maximum number of objects per document: with aliases a small document could have any number.
pub(super) const MAX_OBJECTS: usize = 200_000;

/// An object with its API version and kind, which a typed list may declare for all items.
#[derive(Clone, Copy, Debug)]
pub struct ManifestObject<'a> {
    /// The whole object.
    pub value: YamlValue<'a>,
    /// `metallb.io/v1beta1`.
    pub api_version: &'a str,
    /// `IPAddressPool`.
    pub kind: &'a str,
}

impl<'a> ManifestObject<'a> {
    /// `metallb.io`.
    pub fn group(self) -> &'a str {
        let (group, _) = self
            .api_version
            .split_once('/')
            .unwrap_or((self.api_version, ""));
        group
    }

    /// The kind of pool that it defines, if it is a pool resource.
    pub fn pool_kind(self) -> Option<PoolKind> {
        match (self.group(), self.kind) {
            ("metallb.io", "IPAddressPool") => Some(PoolKind::IpAddressPool),
            ("metallb.io", "AddressPool") => Some(PoolKind::AddressPool),
            ("cilium.io", "CiliumLoadBalancerIPPool") => Some(PoolKind::Cilium),
            _ => None,
        }
    }

    /// Whether it is a resource that is read. `ConfigMap`s are not recognised by their kind.
    pub fn is_known_kind(self) -> bool {
        self.pool_kind().is_some()
            || matches!(
                (self.group(), self.kind),
                ("metallb.io", "L2Advertisement" | "BGPAdvertisement")
            )
    }
}

/// The objects of a document: the document itself, or the items of a list and of nested lists.
#[derive(Debug, Default)]
pub struct ManifestObjects<'a> {
    /// The identified objects.
    pub found: Vec<ManifestObject<'a>>,
    /// The invalid entries, with their locations.
    pub unread: Vec<(YamlMark, ManifestError)>,
    visited: usize,
}

impl<'a> ManifestObjects<'a> {
    /// All objects of a document.
    pub fn of(document: &'a YamlDocument) -> Self {
        let mut objects = Self::default();
        let root = document.root();
        let mut items = root.items().into_iter().flatten();
        if items.any(|item| item.get("kind").is_some()) {
            // kubectl does not accept an array of objects.
            let expected = "an object; a list of objects is one of kind List, with items";
            objects.record_value_error(root, "the document", expected);
        } else {
            objects.collect(root, None, 0);
        }
        objects
    }

    /// Collects an object or the items of a list. In a typed list, `known` is their API version and kind.
    fn collect(&mut self, value: YamlValue<'a>, known: Option<(&'a str, &'a str)>, depth: usize) {
        self.visited += 1;
        if self.visited > MAX_OBJECTS {
            if self.visited == MAX_OBJECTS + 1 {
                let error = ManifestYamlError::TooLarge;
                self.unread.push((value.mark(), error.into()));
            }
            return;
        }
        for key in ["kind", "apiVersion"] {
            let said = value.get(key).filter(|said| !said.is_null());
            if let Some(said) = said.filter(|said| said.text().is_none()) {
                return self.record_value_error(said, key, "text");
            }
        }
        let text = |key| value.get(key).and_then(YamlValue::text);
        let (known_version, known_kind) = known.unwrap_or_default();
        let object = ManifestObject {
            value,
            api_version: text("apiVersion").unwrap_or(known_version),
            kind: text("kind").unwrap_or(known_kind),
        };
        let items = value.get("items").filter(|items| !items.is_null());
        let (Some(items), Some(of)) = (items, object.kind.strip_suffix("List")) else {
            if depth > 0 && object.kind.is_empty() {
                self.record_value_error(value, "an item of a list", "an object with a kind");
            } else if KNOWN_KINDS.contains(&object.kind) && object.api_version.is_empty() {
                let expected = "set: metallb.io/v1beta1, or cilium.io/v2";
                self.record_value_error(value, "apiVersion", expected);
            } else {
                self.found.push(object);
            }
            return;
        };
        let known = (!of.is_empty()).then_some((object.api_version, of));
        let list = ManifestObject { kind: of, ..object };
        match items.items() {
            None if of.is_empty() || list.is_known_kind() => {
                self.record_value_error(items, "items", "a list");
            }
            // An unrelated object whose kind ends in List.
            None => self.found.push(object),
            Some(_) if depth == MAX_LIST_DEPTH => {
                self.record_value_error(value, "a list in lists in lists", "nested less deeply");
            }
            Some(items) => items.for_each(|item| self.collect(item, known, depth + 1)),
        }
    }

    fn record_value_error(
        &mut self,
        value: YamlValue<'a>,
        field: &'static str,
        expected: &'static str,
    ) {
        let error = ManifestError::UnexpectedValue { field, expected };
        self.unread.push((value.mark(), error));
    }
}
