//! Parses manifests: finds documents that define pools and advertisements, in all supported formats.
//!
//! Documents of other kinds are ignored.

mod objects;

pub(super) use self::objects::{ManifestObject, ManifestObjects};
use super::{
    model::{
        Advertisement, AdvertisementKind, Labels, ManifestError, Operator, Pool, PoolInventory,
        PoolKind, Requirement, Selector, ServiceScope, SourceLocation, WrittenRange, parts_of,
    },
    yaml::{self, ManifestYamlError, YamlDocument, YamlValue},
};

/// A text without any of these keywords defines no pool. Skipping such files saves time in large trees and avoids
/// errors about unrelated templates.
const KEYWORDS: [&str; 5] = [
    "AddressPool",
    "L2Advertisement",
    "BGPAdvertisement",
    "CiliumLoadBalancerIPPool",
    "kubevip",
];
/// The key of MetalLB's configuration before its custom resources.
const LEGACY_KEYWORD: &str = "address-pools";
/// Sequences that can hide a keyword from a search: escapes in double-quoted text, and line continuations.
const ESCAPES: [&str; 5] = ["\\u", "\\U", "\\x", "\\\n", "\\\r\n"];
/// Limits of the API server, in bytes.
const MAX_OBJECT_NAME_BYTES: usize = 253;
const MAX_NAMESPACE_BYTES: usize = 63;
const MAX_LABEL_KEY_BYTES: usize = 317;
const MAX_LABEL_VALUE_BYTES: usize = 63;

/// Whether a text may define pools or advertisements.
fn is_relevant(text: &str) -> bool {
    KEYWORDS.iter().any(|word| text.contains(word)) || text.contains(LEGACY_KEYWORD)
}

/// Reads a file found in a directory. Errors in files that cannot define pools are ignored.
pub fn read_found(inventory: &mut PoolInventory, cluster: &str, file: &str, text: &str) {
    let is_relevant = is_relevant(text) || {
        let is_escaped = ESCAPES.iter().any(|mark| text.contains(mark));
        let documents = is_escaped.then(|| yaml::documents(text));
        let mut documents = documents.iter().flatten().flatten();
        documents.any(is_marked_relevant)
    };
    if is_relevant {
        read(inventory, cluster, file, text);
    }
}

/// Whether a document may define pools or advertisements.
pub(super) fn is_marked_relevant(document: &YamlDocument) -> bool {
    document.texts().any(is_relevant)
}

/// Reads all pools and advertisements of a file.
pub fn read(inventory: &mut PoolInventory, cluster: &str, file: &str, text: &str) {
    let cluster = inventory.cluster(cluster);
    let file = inventory.file(file);
    for document in yaml::documents(text) {
        match document {
            Ok(document) => ManifestReader { cluster, file }.document(inventory, &document),
            Err(invalid) => inventory.record_unread(file, Some(invalid.mark), invalid.error),
        }
    }
}

/// The cluster and file of the document that is read.
#[derive(Clone, Copy)]
struct ManifestReader {
    cluster: usize,
    file: usize,
}

impl ManifestReader {
    fn document(self, inventory: &mut PoolInventory, document: &YamlDocument) {
        // With aliases, each of many documents may have far more objects than lines.
        let mark = document.root().mark();
        if !is_marked_relevant(document) || !inventory.reserve_parts(self.file, mark, 1) {
            return;
        }
        let duplicates = document.duplicates();
        if !duplicates.is_empty() {
            // Parsers differ in which of the duplicate keys they use.
            for invalid in duplicates {
                inventory.record_unread(self.file, Some(invalid.mark), invalid.error);
            }
            return;
        }
        let objects = ManifestObjects::of(document);
        for (mark, error) in objects.unread {
            inventory.record_unread(self.file, Some(mark), error);
        }
        for object in objects.found {
            if !self.reserve_parts(inventory, object.value, 1) {
                break;
            }
            self.object(inventory, object);
        }
    }

    fn object(self, inventory: &mut PoolInventory, object: ManifestObject<'_>) {
        if object.is_known_kind() {
            self.parse_outline(inventory, object.value);
        }
        let pool_kind = object.pool_kind();
        let kind = (object.group(), object.kind);
        let object = object.value;
        match pool_kind {
            Some(PoolKind::Cilium) => return self.cilium(inventory, object),
            Some(kind) => return self.metallb(inventory, object, kind),
            None => {}
        }
        match kind {
            ("metallb.io", "L2Advertisement") => {
                self.advertisement(inventory, object, AdvertisementKind::L2);
            }
            ("metallb.io", "BGPAdvertisement") => {
                self.advertisement(inventory, object, AdvertisementKind::Bgp);
            }
            ("v1", "ConfigMap") => self.config_map(inventory, object),
            _ => {}
        }
    }

    /// Checks the outline that the API server requires of every object.
    fn parse_outline(self, inventory: &mut PoolInventory, object: YamlValue<'_>) {
        let metadata = object.get("metadata").filter(|part| !part.is_null());
        if let Some(metadata) = metadata.filter(|part| !part.is_mapping()) {
            self.record_value_error(inventory, metadata, "metadata", "a mapping");
        }
        let name = object.get_path(&["metadata", "name"]);
        if let Some(name) = name.filter(|name| !name.is_null())
            && !name.text().is_some_and(is_name)
        {
            let expected = "a name in Kubernetes (lower-case letters, digits, - and .)";
            self.record_value_error(inventory, name, "metadata.name", expected);
        }
    }

    fn metallb(self, inventory: &mut PoolInventory, object: YamlValue<'_>, kind: PoolKind) {
        let spec = object.get("spec");
        let Some(mut pool) = self.pool(inventory, object, kind) else {
            return;
        };
        let mut boolean = |key| {
            let value = spec.and_then(|spec| spec.get(key));
            self.boolean(inventory, value, key)
        };
        pool.auto_assign = boolean("autoAssign").unwrap_or(true);
        pool.avoid_buggy_ips = boolean("avoidBuggyIPs").unwrap_or(false);
        let addresses = spec.and_then(|spec| spec.get("addresses"));
        self.addresses(inventory, &mut pool, addresses, "spec.addresses");
        inventory.add_pool(pool);
    }

    fn cilium(self, inventory: &mut PoolInventory, object: YamlValue<'_>) {
        let Some(mut pool) = self.pool(inventory, object, PoolKind::Cilium) else {
            return;
        };
        // Cilium pools are cluster-scoped, even if a tool writes a namespace.
        pool.namespace = None;
        // `cidrs` is the former name of `blocks`.
        for field in ["blocks", "cidrs"] {
            let blocks = object.get_path(&["spec", field]);
            for block in self.list(inventory, blocks, "spec.blocks") {
                self.cilium_block(inventory, &mut pool, block);
            }
        }
        inventory.add_pool(pool);
    }

    fn cilium_block(self, inventory: &mut PoolInventory, pool: &mut Pool, block: YamlValue<'_>) {
        let (cidr, start) = (block.get("cidr"), block.get("start"));
        match (cidr.filter(|cidr| !cidr.is_null()), start) {
            (Some(cidr), _) => self.range(inventory, pool, cidr, "cidr"),
            (None, Some(start)) => {
                let (Some(first), stop) = (start.text(), block.get("stop")) else {
                    return self.record_value_error(inventory, start, "start", "an address");
                };
                // Without `stop` it is one address.
                let stop = stop.filter(|stop| !stop.is_null());
                if let Some(stop) = stop.filter(|stop| stop.text().is_none()) {
                    return self.record_value_error(inventory, stop, "stop", "an address");
                }
                let stop = stop.and_then(YamlValue::text);
                let text = format!("{first}-{}", stop.unwrap_or(first));
                self.parse_written_range(inventory, pool, &text, start);
                let last = pool.ranges.last_mut();
                let last = last.filter(|range| range.location == self.location(start));
                if let (None, Some(range)) = (stop, last) {
                    first.clone_into(&mut range.text);
                }
            }
            (None, None) => {
                self.record_value_error(inventory, block, "a block", "cidr, or start and stop");
            }
        }
    }

    fn config_map(self, inventory: &mut PoolInventory, object: YamlValue<'_>) {
        let name = object
            .get_path(&["metadata", "name"])
            .and_then(YamlValue::text);
        let Some(data) = object.get("data") else {
            return;
        };
        if name == Some("kubevip") {
            for (key, value) in data.entries() {
                // With aliases, many entries may share one text.
                let texts = [key, value].into_iter().filter_map(YamlValue::text);
                let parts = 1 + texts.map(parts_of).sum::<usize>();
                if !self.reserve_parts(inventory, key, parts) {
                    break;
                }
                self.kube_vip(inventory, object, key, value);
            }
        } else if let Some(config) = data.get("config") {
            self.legacy(inventory, object, config);
        }
    }

    /// One entry of kube-vip's configuration: `cidr-NAMESPACE` or `range-NAMESPACE`, lists with commas.
    fn kube_vip(
        self,
        inventory: &mut PoolInventory,
        object: YamlValue<'_>,
        key: YamlValue<'_>,
        value: YamlValue<'_>,
    ) {
        let Some(name) = key.text() else { return };
        if !(name.starts_with("cidr-") || name.starts_with("range-")) {
            return;
        }
        let Some(list) = value.text() else {
            return self.record_value_error(
                inventory,
                value,
                "a kube-vip pool",
                "a list with commas",
            );
        };
        if name.len() > MAX_OBJECT_NAME_BYTES {
            return self.record_value_error(
                inventory,
                key,
                "a key of kubevip",
                "of up to 253 bytes",
            );
        }
        let Some(mut pool) = self.pool(inventory, object, PoolKind::KubeVip) else {
            return;
        };
        name.clone_into(&mut pool.name);
        pool.location = self.location(key);
        for text in list.split(',').map(str::trim) {
            // kube-vip's keyword for an address from DHCP.
            if !text.is_empty() && text != "0.0.0.0/32" {
                if !self.reserve_parts(inventory, value, 1) {
                    break;
                }
                self.parse_written_range(inventory, &mut pool, text, value);
            }
        }
        inventory.add_pool(pool);
    }

    /// Reads MetalLB's configuration before its custom resources: YAML in a `ConfigMap`.
    fn legacy(self, inventory: &mut PoolInventory, object: YamlValue<'_>, config: YamlValue<'_>) {
        let Some(text) = config.text().filter(|text| text.contains(LEGACY_KEYWORD)) else {
            return;
        };
        // With aliases, many objects may share one text.
        if !self.reserve_parts(inventory, config, parts_of(text)) {
            return;
        }
        let offset = config.block_offset();
        for document in yaml::documents(text) {
            let document = match document {
                Ok(document) => document.nested(offset.unwrap_or_default()),
                Err(invalid) => {
                    inventory.record_unread(self.file, Some(config.mark()), invalid.error);
                    continue;
                }
            };
            let duplicates = document.duplicates();
            if !duplicates.is_empty() {
                for invalid in duplicates {
                    let (mark, error) = match (offset, invalid.error) {
                        (None, ManifestYamlError::Duplicate { key, .. }) => {
                            let mark = config.mark();
                            (mark, ManifestYamlError::duplicate(&key, mark.line))
                        }
                        (_, error) => (invalid.mark, error),
                    };
                    inventory.record_unread(self.file, Some(mark), error);
                }
                continue;
            }
            let pools = document.root().get("address-pools");
            for entry in self.list(inventory, pools, "address-pools") {
                let name = entry.get("name");
                let Some(mut pool) = self.pool(inventory, object, PoolKind::MetallbConfigMap)
                else {
                    return;
                };
                let text = name.and_then(|name| {
                    self.name_text(inventory, name, "the name of a pool", MAX_OBJECT_NAME_BYTES)
                });
                text.unwrap_or_default().clone_into(&mut pool.name);
                let mut boolean = |key| self.boolean(inventory, entry.get(key), key);
                pool.location = self.location(name.unwrap_or(entry));
                pool.auto_assign = boolean("auto-assign").unwrap_or(true);
                pool.avoid_buggy_ips = boolean("avoid-buggy-ips").unwrap_or(false);
                self.addresses(inventory, &mut pool, entry.get("addresses"), "addresses");
                if offset.is_none() {
                    // The text is not a block scalar: its lines differ from those of the file.
                    let location = self.location(config);
                    pool.location = location;
                    pool.ranges
                        .iter_mut()
                        .for_each(|range| range.location = location);
                    pool.invalid_ranges
                        .iter_mut()
                        .for_each(|range| range.location = location);
                }
                inventory.add_pool(pool);
            }
        }
    }

    fn advertisement(
        self,
        inventory: &mut PoolInventory,
        object: YamlValue<'_>,
        kind: AdvertisementKind,
    ) {
        let Some(identity) = self.pool(inventory, object, PoolKind::IpAddressPool) else {
            return;
        };
        let spec = |key| object.get_path(&["spec", key]);
        let mut pools = Vec::new();
        for name in self.list(inventory, spec("ipAddressPools"), "spec.ipAddressPools") {
            let field = "a name in spec.ipAddressPools";
            if name.text().is_none() {
                self.record_value_error(inventory, name, field, "text");
            } else if let Some(text) = self.name_text(inventory, name, field, MAX_OBJECT_NAME_BYTES)
            {
                pools.push((text.to_owned(), self.location(name)));
            }
        }
        let field = "spec.ipAddressPoolSelectors";
        let mut selectors = Vec::new();
        for selector in self.list(inventory, spec("ipAddressPoolSelectors"), field) {
            selectors.extend(self.selector(inventory, selector));
        }
        let services = self.service_scope(inventory, spec("serviceSelectors"));
        inventory.add_advertisement(Advertisement {
            cluster: self.cluster,
            kind,
            namespace: identity.namespace,
            name: identity.name,
            location: identity.location,
            pools,
            selectors,
            services,
        });
    }

    fn service_scope(
        self,
        inventory: &mut PoolInventory,
        selectors: Option<YamlValue<'_>>,
    ) -> ServiceScope {
        let Some(list) = selectors.filter(|list| !list.is_null()) else {
            return ServiceScope::All;
        };
        let items = self.list(inventory, Some(list), "spec.serviceSelectors");
        let number = items.len();
        let read: Vec<_> = items
            .into_iter()
            .filter_map(|selector| self.selector(inventory, selector))
            .collect();
        if read.len() < number || list.items().is_none() {
            ServiceScope::Unknown
        } else if read.is_empty() {
            ServiceScope::All
        } else {
            ServiceScope::Selected(read)
        }
    }

    fn selector(self, inventory: &mut PoolInventory, selector: YamlValue<'_>) -> Option<Selector> {
        let labels = selector.get("matchLabels");
        let labels = self.labels(inventory, labels, "a pair of matchLabels");
        let mut requirements: Vec<_> = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key,
                operator: Operator::In,
                values: vec![value],
            })
            .collect();
        for expression in self.list(
            inventory,
            selector.get("matchExpressions"),
            "matchExpressions",
        ) {
            let text = |key| expression.get(key).and_then(YamlValue::text);
            let operator = match text("operator") {
                Some("In") => Operator::In,
                Some("NotIn") => Operator::NotIn,
                Some("Exists") => Operator::Exists,
                Some("DoesNotExist") => Operator::DoesNotExist,
                _ => {
                    let expected = "In, NotIn, Exists or DoesNotExist";
                    self.record_value_error(inventory, expression, "operator", expected);
                    return None;
                }
            };
            let key = match expression.get("key") {
                Some(key) if key.text().is_some() => {
                    self.name_text(inventory, key, "key", MAX_LABEL_KEY_BYTES)?
                }
                _ => "",
            };
            let mut values = Vec::new();
            for value in self.list(inventory, expression.get("values"), "values") {
                if value.text().is_some() {
                    let text =
                        self.name_text(inventory, value, "a value", MAX_LABEL_VALUE_BYTES)?;
                    values.push(text.to_owned());
                }
            }
            requirements.push(Requirement {
                key: key.to_owned(),
                operator,
                values,
            });
        }
        Some(Selector {
            location: self.location(selector),
            requirements,
        })
    }

    /// An empty pool of this object; `None` beyond the limit.
    fn pool(
        self,
        inventory: &mut PoolInventory,
        object: YamlValue<'_>,
        kind: PoolKind,
    ) -> Option<Pool> {
        let metadata = |key| object.get_path(&["metadata", key]);
        let name = metadata("name");
        let text = name.and_then(YamlValue::text).unwrap_or_default();
        if !self.reserve_parts(inventory, object, 1 + parts_of(text)) {
            return None;
        }
        // Longer names have been reported already where they matter.
        let text = Some(text).filter(|text| text.len() <= MAX_OBJECT_NAME_BYTES);
        let namespace = metadata("namespace").filter(|namespace| namespace.text().is_some());
        let namespace = namespace.and_then(|namespace| {
            self.name_text(
                inventory,
                namespace,
                "metadata.namespace",
                MAX_NAMESPACE_BYTES,
            )
        });
        Some(Pool {
            cluster: self.cluster,
            kind,
            namespace: namespace.map(str::to_owned),
            name: text.unwrap_or_default().to_owned(),
            labels: self.labels(inventory, metadata("labels"), "a pair of metadata.labels"),
            location: self.location(name.unwrap_or(object)),
            ranges: Vec::new(),
            invalid_ranges: Vec::new(),
            auto_assign: true,
            avoid_buggy_ips: false,
        })
    }

    /// Parses labels; pairs that exceed the limits are reported.
    fn labels(
        self,
        inventory: &mut PoolInventory,
        labels: Option<YamlValue<'_>>,
        field: &'static str,
    ) -> Labels {
        let mut read = Labels::new();
        for (key, value) in labels.into_iter().flat_map(YamlValue::entries) {
            let [name, text] = [key, value].map(YamlValue::text);
            let parts = [name, text].into_iter().flatten().map(parts_of);
            if !self.reserve_parts(inventory, key, 1 + parts.sum::<usize>()) {
                break;
            }
            let (Some(name), Some(text)) = (name, text) else {
                continue;
            };
            if name.len() > MAX_LABEL_KEY_BYTES || text.len() > MAX_LABEL_VALUE_BYTES {
                let expected =
                    "a label in Kubernetes (a key of up to 317 bytes, a value of up to 63)";
                let long = if name.len() > MAX_LABEL_KEY_BYTES {
                    key
                } else {
                    value
                };
                self.record_value_error(inventory, long, field, expected);
                continue;
            }
            read.insert(name.to_owned(), text.to_owned());
        }
        read
    }

    /// The text of a name, within the limit; a longer one is reported.
    fn name_text<'a>(
        self,
        inventory: &mut PoolInventory,
        value: YamlValue<'a>,
        field: &'static str,
        limit: usize,
    ) -> Option<&'a str> {
        let text = value.text()?;
        if text.len() > limit {
            self.record_value_error(
                inventory,
                value,
                field,
                "within the length limit of Kubernetes",
            );
            return None;
        }
        self.reserve_parts(inventory, value, parts_of(text))
            .then_some(text)
    }

    fn reserve_parts(
        self,
        inventory: &mut PoolInventory,
        value: YamlValue<'_>,
        parts: usize,
    ) -> bool {
        inventory.reserve_parts(self.file, value.mark(), parts)
    }

    fn addresses(
        self,
        inventory: &mut PoolInventory,
        pool: &mut Pool,
        addresses: Option<YamlValue<'_>>,
        field: &'static str,
    ) {
        for address in self.list(inventory, addresses, field) {
            self.range(inventory, pool, address, "an address range");
        }
    }

    /// Reads one range.
    fn range(
        self,
        inventory: &mut PoolInventory,
        pool: &mut Pool,
        value: YamlValue<'_>,
        field: &'static str,
    ) {
        match value.text() {
            Some(text) => self.parse_written_range(inventory, pool, text, value),
            None => self.record_value_error(inventory, value, field, "text"),
        }
    }

    fn parse_written_range(
        self,
        inventory: &mut PoolInventory,
        pool: &mut Pool,
        text: &str,
        value: YamlValue<'_>,
    ) {
        if !self.reserve_parts(inventory, value, parts_of(text)) {
            return;
        }
        if text.contains("{{") {
            return self.is_template(inventory, value);
        }
        match WrittenRange::parse(text, self.location(value)) {
            Ok(range) => pool.ranges.push(range),
            Err(range) => pool.invalid_ranges.push(range),
        }
    }

    /// Reads an optional boolean.
    fn boolean(
        self,
        inventory: &mut PoolInventory,
        value: Option<YamlValue<'_>>,
        field: &'static str,
    ) -> Option<bool> {
        let value = value.filter(|value| !value.is_null())?;
        if value.boolean().is_none() {
            self.record_value_error(inventory, value, field, "true or false, without quotes");
        }
        value.boolean()
    }

    /// The items of a list, up to the limit; empty if it is not a list.
    fn list<'a>(
        self,
        inventory: &mut PoolInventory,
        list: Option<YamlValue<'a>>,
        field: &'static str,
    ) -> Vec<YamlValue<'a>> {
        let Some(list) = list.filter(|list| !list.is_null()) else {
            return Vec::new();
        };
        let Some(items) = list.items() else {
            self.record_value_error(inventory, list, field, "a list");
            return Vec::new();
        };
        items
            .take_while(|&item| self.reserve_parts(inventory, item, 1))
            .collect()
    }

    fn record_value_error(
        self,
        inventory: &mut PoolInventory,
        value: YamlValue<'_>,
        field: &'static str,
        expected: &'static str,
    ) {
        // The search is limited because aliases may repeat the value.
        let parts = value.text().map_or(0, parts_of);
        if !self.reserve_parts(inventory, value, parts) {
            return;
        }
        if is_placeholder(value) {
            return self.is_template(inventory, value);
        }
        let error = ManifestError::UnexpectedValue { field, expected };
        inventory.record_unread(self.file, Some(value.mark()), error);
    }

    fn is_template(self, inventory: &mut PoolInventory, value: YamlValue<'_>) {
        let error = ManifestYamlError::Template;
        inventory.record_unread(self.file, Some(value.mark()), error);
    }

    fn location(self, value: YamlValue<'_>) -> SourceLocation {
        SourceLocation {
            file: self.file,
            mark: value.mark(),
        }
    }
}

/// Whether this is a valid object name: an RFC 1123 subdomain.
fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX_OBJECT_NAME_BYTES
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(is_inner)
        })
}

/// Whether a value is the result of parsing `{{ … }}` as YAML: a mapping whose first key is a mapping.
fn is_placeholder(value: YamlValue<'_>) -> bool {
    let mut entries = value.entries();
    let is_placeholder = entries.next().is_some_and(|(key, _)| key.is_mapping());
    is_placeholder || value.text().is_some_and(|text| text.contains("{{"))
}

#[cfg(test)]
mod tests;
