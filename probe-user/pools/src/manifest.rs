//! Manifests: which documents define pools and advertisements, in whose words.
//!
//! Documents of other kinds are none of our business and left alone.

mod objects;

pub(super) use self::objects::{ManifestObject, ManifestObjects};
use super::{
    model::{
        Advertisement, AdvertisementKind, Labels, ManifestError, Operator, Pool, PoolInventory,
        PoolKind, Requirement, Selector, ServiceScope, SourceLocation, WrittenRange, parts_of,
    },
    yaml::{self, ManifestYamlError, YamlDocument, YamlValue},
};

/// A text with none of these words defines no pool. They spare large trees of other files, and their owners
/// complaints about templates that have nothing to do with addresses.
const WORDS: [&str; 5] = [
    "AddressPool",
    "L2Advertisement",
    "BGPAdvertisement",
    "CiliumLoadBalancerIPPool",
    "kubevip",
];
/// What MetalLB's configuration before its resources has.
const LEGACY_WORD: &str = "address-pools";
/// What may hide a word from a search: escapes of double-quoted text, and lines that go on.
const ESCAPES: [&str; 5] = ["\\u", "\\U", "\\x", "\\\n", "\\\r\n"];
/// As the API server has it.
const LONGEST_OBJECT_NAME: usize = 253;
const LONGEST_NAMESPACE: usize = 63;
const LONGEST_LABEL_KEY: usize = 317;
const LONGEST_LABEL_VALUE: usize = 63;

/// Whether a text may define pools or advertisements.
fn is_relevant(text: &str) -> bool {
    WORDS.iter().any(|word| text.contains(word)) || text.contains(LEGACY_WORD)
}

/// Reads a file that nobody named: one that cannot define pools may be as broken as it likes.
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
            Err(broken) => inventory.record_unread(file, Some(broken.mark), broken.error),
        }
    }
}

/// Where what is read belongs.
#[derive(Clone, Copy)]
struct ManifestReader {
    cluster: usize,
    file: usize,
}

impl ManifestReader {
    fn document(self, inventory: &mut PoolInventory, document: &YamlDocument) {
        // By aliases, each of many documents may have far more objects than it has lines.
        let mark = document.root().mark();
        if !is_marked_relevant(document) || !inventory.reserve_parts(self.file, mark, 1) {
            return;
        }
        let duplicates = document.duplicates();
        if !duplicates.is_empty() {
            // Which of them counts depends on who reads it.
            for broken in duplicates {
                inventory.record_unread(self.file, Some(broken.mark), broken.error);
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

    /// What every object has to be like: else whoever applies it is refused.
    fn parse_outline(self, inventory: &mut PoolInventory, object: YamlValue<'_>) {
        let metadata = object.get("metadata").filter(|part| !part.is_null());
        if let Some(metadata) = metadata.filter(|part| !part.is_mapping()) {
            self.record_shape_error(inventory, metadata, "metadata", "a mapping");
        }
        let name = object.get_path(&["metadata", "name"]);
        if let Some(name) = name.filter(|name| !name.is_null())
            && !name.text().is_some_and(is_name)
        {
            let expected = "a name in Kubernetes (lower-case letters, digits, - and .)";
            self.record_shape_error(inventory, name, "metadata.name", expected);
        }
    }

    fn metallb(self, inventory: &mut PoolInventory, object: YamlValue<'_>, kind: PoolKind) {
        let spec = object.get("spec");
        let Some(mut pool) = self.pool(inventory, object, kind) else {
            return;
        };
        let mut truth = |key| {
            let value = spec.and_then(|spec| spec.get(key));
            self.truth(inventory, value, key)
        };
        pool.auto_assign = truth("autoAssign").unwrap_or(true);
        pool.avoid_buggy_ips = truth("avoidBuggyIPs").unwrap_or(false);
        let addresses = spec.and_then(|spec| spec.get("addresses"));
        self.addresses(inventory, &mut pool, addresses, "spec.addresses");
        inventory.add_pool(pool);
    }

    fn cilium(self, inventory: &mut PoolInventory, object: YamlValue<'_>) {
        let Some(mut pool) = self.pool(inventory, object, PoolKind::Cilium) else {
            return;
        };
        // Cilium has no namespaces here, whatever a tool writes.
        pool.namespace = None;
        // `cidrs` was the name before `blocks`.
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
                    return self.record_shape_error(inventory, start, "start", "an address");
                };
                // Without an end it is one address.
                let stop = stop.filter(|stop| !stop.is_null());
                if let Some(stop) = stop.filter(|stop| stop.text().is_none()) {
                    return self.record_shape_error(inventory, stop, "stop", "an address");
                }
                let stop = stop.and_then(YamlValue::text);
                let text = format!("{first}-{}", stop.unwrap_or(first));
                self.parse_written_range(inventory, pool, &text, start);
                let last = pool.ranges.last_mut();
                let last = last.filter(|range| range.place == self.place(start));
                if let (None, Some(range)) = (stop, last) {
                    first.clone_into(&mut range.text);
                }
            }
            (None, None) => {
                self.record_shape_error(inventory, block, "a block", "cidr, or start and stop");
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
                // By aliases, many entries may have one text.
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
            return self.record_shape_error(
                inventory,
                value,
                "a kube-vip pool",
                "a list with commas",
            );
        };
        if name.len() > LONGEST_OBJECT_NAME {
            return self.record_shape_error(
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
        pool.place = self.place(key);
        for text in list.split(',').map(str::trim) {
            // kube-vip's word for "ask DHCP".
            if !text.is_empty() && text != "0.0.0.0/32" {
                if !self.reserve_parts(inventory, value, 1) {
                    break;
                }
                self.parse_written_range(inventory, &mut pool, text, value);
            }
        }
        inventory.add_pool(pool);
    }

    /// MetalLB's configuration before its resources: YAML in a `ConfigMap`.
    fn legacy(self, inventory: &mut PoolInventory, object: YamlValue<'_>, config: YamlValue<'_>) {
        let Some(text) = config.text().filter(|text| text.contains(LEGACY_WORD)) else {
            return;
        };
        // By aliases, many objects may have one text.
        if !self.reserve_parts(inventory, config, parts_of(text)) {
            return;
        }
        let offset = config.block_offset();
        for document in yaml::documents(text) {
            let document = match document {
                Ok(document) => document.nested(offset.unwrap_or_default()),
                Err(broken) => {
                    inventory.record_unread(self.file, Some(config.mark()), broken.error);
                    continue;
                }
            };
            let duplicates = document.duplicates();
            if !duplicates.is_empty() {
                for broken in duplicates {
                    let (mark, error) = match (offset, broken.error) {
                        (None, ManifestYamlError::Duplicate { key, .. }) => {
                            let mark = config.mark();
                            (mark, ManifestYamlError::duplicate(&key, mark.line))
                        }
                        (_, error) => (broken.mark, error),
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
                    self.name_text(inventory, name, "the name of a pool", LONGEST_OBJECT_NAME)
                });
                text.unwrap_or_default().clone_into(&mut pool.name);
                let mut truth = |key| self.truth(inventory, entry.get(key), key);
                pool.place = self.place(name.unwrap_or(entry));
                pool.auto_assign = truth("auto-assign").unwrap_or(true);
                pool.avoid_buggy_ips = truth("avoid-buggy-ips").unwrap_or(false);
                self.addresses(inventory, &mut pool, entry.get("addresses"), "addresses");
                if offset.is_none() {
                    // The text is no block: its lines are not those of the file.
                    let place = self.place(config);
                    pool.place = place;
                    pool.ranges.iter_mut().for_each(|range| range.place = place);
                    pool.faults.iter_mut().for_each(|fault| fault.place = place);
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
                self.record_shape_error(inventory, name, field, "text");
            } else if let Some(text) = self.name_text(inventory, name, field, LONGEST_OBJECT_NAME) {
                pools.push((text.to_owned(), self.place(name)));
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
            place: identity.place,
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
                    self.record_shape_error(inventory, expression, "operator", expected);
                    return None;
                }
            };
            let key = match expression.get("key") {
                Some(key) if key.text().is_some() => {
                    self.name_text(inventory, key, "key", LONGEST_LABEL_KEY)?
                }
                _ => "",
            };
            let mut values = Vec::new();
            for value in self.list(inventory, expression.get("values"), "values") {
                if value.text().is_some() {
                    let text = self.name_text(inventory, value, "a value", LONGEST_LABEL_VALUE)?;
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
            place: self.place(selector),
            requirements,
        })
    }

    /// A pool of this object, still empty; nothing where there is no room for it.
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
        // Longer names have been told by now where they matter.
        let text = Some(text).filter(|text| text.len() <= LONGEST_OBJECT_NAME);
        let namespace = metadata("namespace").filter(|namespace| namespace.text().is_some());
        let namespace = namespace.and_then(|namespace| {
            self.name_text(
                inventory,
                namespace,
                "metadata.namespace",
                LONGEST_NAMESPACE,
            )
        });
        Some(Pool {
            cluster: self.cluster,
            kind,
            namespace: namespace.map(str::to_owned),
            name: text.unwrap_or_default().to_owned(),
            labels: self.labels(inventory, metadata("labels"), "a pair of metadata.labels"),
            place: self.place(name.unwrap_or(object)),
            ranges: Vec::new(),
            faults: Vec::new(),
            auto_assign: true,
            avoid_buggy_ips: false,
        })
    }

    /// Pairs of texts, as far as labels can be as long.
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
            if name.len() > LONGEST_LABEL_KEY || text.len() > LONGEST_LABEL_VALUE {
                let expected =
                    "a label in Kubernetes (a key of up to 317 bytes, a value of up to 63)";
                let long = if name.len() > LONGEST_LABEL_KEY {
                    key
                } else {
                    value
                };
                self.record_shape_error(inventory, long, field, expected);
                continue;
            }
            read.insert(name.to_owned(), text.to_owned());
        }
        read
    }

    /// The text of a name, if it has one and there is room for it; one that is too long is told.
    fn name_text<'a>(
        self,
        inventory: &mut PoolInventory,
        value: YamlValue<'a>,
        field: &'static str,
        most: usize,
    ) -> Option<&'a str> {
        let text = value.text()?;
        if text.len() > most {
            self.record_shape_error(
                inventory,
                value,
                field,
                "as short as it has to be in Kubernetes",
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

    /// One range that somebody wrote.
    fn range(
        self,
        inventory: &mut PoolInventory,
        pool: &mut Pool,
        value: YamlValue<'_>,
        field: &'static str,
    ) {
        match value.text() {
            Some(text) => self.parse_written_range(inventory, pool, text, value),
            None => self.record_shape_error(inventory, value, field, "text"),
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
        match WrittenRange::parse(text, self.place(value)) {
            Ok(range) => pool.ranges.push(range),
            Err(fault) => pool.faults.push(fault),
        }
    }

    /// What is true or false, if it is said.
    fn truth(
        self,
        inventory: &mut PoolInventory,
        value: Option<YamlValue<'_>>,
        field: &'static str,
    ) -> Option<bool> {
        let value = value.filter(|value| !value.is_null())?;
        if value.truth().is_none() {
            self.record_shape_error(inventory, value, field, "true or false, without quotes");
        }
        value.truth()
    }

    /// The items of a list, as far as there is room; none where there is no list.
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
            self.record_shape_error(inventory, list, field, "a list");
            return Vec::new();
        };
        items
            .take_while(|&item| self.reserve_parts(inventory, item, 1))
            .collect()
    }

    fn record_shape_error(
        self,
        inventory: &mut PoolInventory,
        value: YamlValue<'_>,
        field: &'static str,
        expected: &'static str,
    ) {
        // It is searched, and may stand in many places.
        let parts = value.text().map_or(0, parts_of);
        if !self.reserve_parts(inventory, value, parts) {
            return;
        }
        if is_placeholder(value) {
            return self.is_template(inventory, value);
        }
        let error = ManifestError::Shape { field, expected };
        inventory.record_unread(self.file, Some(value.mark()), error);
    }

    fn is_template(self, inventory: &mut PoolInventory, value: YamlValue<'_>) {
        let error = ManifestYamlError::Template;
        inventory.record_unread(self.file, Some(value.mark()), error);
    }

    fn place(self, value: YamlValue<'_>) -> SourceLocation {
        SourceLocation {
            file: self.file,
            mark: value.mark(),
        }
    }
}

/// Whether an object can have this name: an RFC 1123 subdomain.
fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= LONGEST_OBJECT_NAME
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(is_inner)
        })
}

/// Whether a value is what YAML makes of `{{ … }}`: a mapping whose first key is a mapping.
fn is_placeholder(value: YamlValue<'_>) -> bool {
    let mut entries = value.entries();
    let is_placeholder = entries.next().is_some_and(|(key, _)| key.is_mapping());
    is_placeholder || value.text().is_some_and(|text| text.contains("{{"))
}

#[cfg(test)]
mod tests;
