//! The address plan: the ranges that each cluster may use, and the ranges that no pool may use.

use probe_common::label_enum;

use super::{
    model::{
        InvalidRangeEntry, ManifestError, PoolInventory, SourceLocation, WrittenRange, parts_of,
    },
    yaml::{self, ManifestYamlError, YamlValue},
};

label_enum! {
    /// The purpose of a reserved range.
    pub enum ReservedUse {
        /// Addresses of nodes.
        Nodes = "nodes",
        /// The range of a DHCP server.
        Dhcp = "dhcp",
        /// Anything else: gateways, printers, the control plane's address.
        Reserved = "reserved",
    }
}

/// Maximum length of a name in bytes: clusters are named after files, and no path is longer.
const LONGEST_NAME: usize = 4096;

/// A range that no pool may use.
#[derive(Clone, Debug)]
pub struct ReservedRange {
    /// Its purpose.
    pub purpose: ReservedUse,
    /// Its name, if set.
    pub name: Option<String>,
    /// The cluster that it is listed with, if any.
    pub cluster: Option<String>,
    /// The addresses.
    pub range: WrittenRange,
}

/// The ranges that a cluster may use.
#[derive(Clone, Debug)]
pub struct PlanShare {
    /// The cluster.
    pub cluster: String,
    /// The location of its name.
    pub location: SourceLocation,
    /// Its network: addresses of different networks do not overlap. All clusters without a network name share one
    /// network.
    pub network: Option<String>,
    /// The ranges that its pools may use.
    pub ranges: Vec<WrittenRange>,
}

/// The address plan.
#[derive(Debug, Default)]
pub struct AddressPlan {
    /// The shares of the clusters.
    pub shares: Vec<PlanShare>,
    /// The ranges that no pool may use.
    pub reserved: Vec<ReservedRange>,
    /// The invalid ranges.
    pub invalid_ranges: Vec<InvalidRangeEntry>,
}

impl AddressPlan {
    /// Parses a plan. Errors are recorded in the inventory.
    pub fn read(inventory: &mut PoolInventory, file: &str, text: &str) -> Self {
        let file = inventory.file(file);
        let mut reader = PlanReader {
            plan: Self::default(),
            inventory,
            file,
        };
        for document in yaml::documents(text) {
            match document {
                Ok(document) => {
                    let duplicates = document.duplicates();
                    if duplicates.is_empty() {
                        reader.root(document.root());
                    }
                    for invalid in duplicates {
                        let inventory = &mut *reader.inventory;
                        inventory.record_unread(file, Some(invalid.mark), invalid.error);
                    }
                }
                Err(invalid) => {
                    // A plan is not a template.
                    let error = match invalid.error {
                        ManifestYamlError::Template => {
                            ManifestYamlError::Syntax("it contains template expressions".into())
                        }
                        other => other,
                    };
                    reader
                        .inventory
                        .record_unread(file, Some(invalid.mark), error);
                }
            }
        }
        let plan = reader.plan;
        let is_read = inventory.unread.iter().all(|unread| unread.file != file);
        if plan.is_empty() && is_read {
            // Nothing could violate an empty plan.
            inventory.record_unread(file, None, ManifestError::EmptyPlan);
        }
        plan
    }

    fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.reserved.is_empty() && self.invalid_ranges.is_empty()
    }

    /// The network of a cluster.
    pub fn network(&self, cluster: &str) -> Option<&str> {
        self.share(cluster)?.network.as_deref()
    }

    /// The ranges that a cluster may use.
    pub fn share(&self, cluster: &str) -> Option<&PlanShare> {
        self.shares.iter().find(|share| share.cluster == cluster)
    }
}

struct PlanReader<'a> {
    plan: AddressPlan,
    inventory: &'a mut PoolInventory,
    file: usize,
}

impl PlanReader<'_> {
    fn root(&mut self, root: YamlValue<'_>) {
        const EXPECTED: &str = "a mapping of clusters, nodes, dhcp and reserved";
        if !root.is_mapping() {
            return self.record_value_error(root, "the plan", EXPECTED);
        }
        for (key, value) in root.entries() {
            match key.text() {
                Some("clusters") => {
                    if !value.is_mapping() && !value.is_null() {
                        self.record_value_error(value, "clusters", "a mapping of names");
                    }
                    for (name, share) in value.entries() {
                        self.share(name, share);
                    }
                }
                Some(word) => match ReservedUse::from_label(word) {
                    Some(purpose) => self.parse_reserved(value, purpose, None),
                    None => self.record_value_error(
                        key,
                        "this key",
                        "clusters, nodes, dhcp or reserved",
                    ),
                },
                None => {
                    self.record_value_error(key, "this key", "clusters, nodes, dhcp or reserved");
                }
            }
        }
    }

    fn share(&mut self, name: YamlValue<'_>, share: YamlValue<'_>) {
        const EXPECTED: &str = "network, ranges, nodes, dhcp or reserved";
        let Some(cluster) = name.text().filter(|name| name.len() <= LONGEST_NAME) else {
            return self.record_value_error(name, "this key", "the name of a cluster");
        };
        if !share.is_mapping() {
            return self.record_value_error(
                share,
                "a cluster of the plan",
                "a mapping with ranges",
            );
        }
        if let Some(known) = self.plan.share(cluster) {
            // The first definition is in another document: duplicate keys in one document are rejected earlier.
            let error = ManifestYamlError::duplicate(cluster, known.location.mark.line);
            let inventory = &mut *self.inventory;
            return inventory.record_unread(self.file, Some(name.mark()), error);
        }
        if !self.reserve_parts(name, 1 + parts_of(cluster)) {
            return;
        }
        let mut ranges = Vec::new();
        let mut network = None;
        for (key, value) in share.entries() {
            match key.text() {
                Some("network") => match self.name_text(value) {
                    Some(name) => network = Some(name.to_owned()),
                    None => self.record_value_error(value, "network", "a name"),
                },
                Some("ranges") => {
                    let listed = self.ranges(value, None).into_iter();
                    ranges.extend(listed.map(|(range, _)| range));
                }
                Some(word) => match ReservedUse::from_label(word) {
                    Some(purpose) => self.parse_reserved(value, purpose, Some(cluster)),
                    None => self.record_value_error(key, "this key", EXPECTED),
                },
                None => self.record_value_error(key, "this key", EXPECTED),
            }
        }
        let location = self.location(name);
        self.plan.shares.push(PlanShare {
            cluster: cluster.to_owned(),
            location,
            network,
            ranges,
        });
    }

    fn parse_reserved(
        &mut self,
        value: YamlValue<'_>,
        purpose: ReservedUse,
        cluster: Option<&str>,
    ) {
        for (range, name) in self.ranges(value, cluster) {
            self.plan.reserved.push(ReservedRange {
                purpose,
                name,
                cluster: cluster.map(str::to_owned),
                range,
            });
        }
    }

    /// Parses a list of ranges: each is a text, or a mapping of `range` and `name`. `cluster` is the cluster of the
    /// list, if any.
    fn ranges(
        &mut self,
        value: YamlValue<'_>,
        cluster: Option<&str>,
    ) -> Vec<(WrittenRange, Option<String>)> {
        if value.is_null() {
            return Vec::new();
        }
        let Some(items) = value.items() else {
            self.record_value_error(value, "the value", "a list of ranges");
            return Vec::new();
        };
        let mut ranges = Vec::new();
        for item in items {
            // With aliases, many entries may share one text.
            let written = item.get("range").unwrap_or(item).text();
            let name = item.get("name").and_then(YamlValue::text);
            let texts = [written, name, cluster].into_iter().flatten();
            if !self.reserve_parts(item, 1 + texts.map(parts_of).sum::<usize>()) {
                break;
            }
            if name.is_some_and(|name| name.len() > LONGEST_NAME) {
                self.record_value_error(item, "the name of a range", "of up to 4096 bytes");
                continue;
            }
            let name = name.map(str::to_owned);
            for (key, _) in item.entries() {
                if !matches!(key.text(), Some("range" | "name")) {
                    self.record_value_error(key, "this key", "range or name");
                }
            }
            let range = item.get("range").unwrap_or(item);
            let Some(text) = range.text() else {
                self.record_value_error(
                    range,
                    "an entry",
                    "a range, or a mapping of range and name",
                );
                continue;
            };
            let location = self.location(range);
            match WrittenRange::parse(text, location) {
                Ok(range) => ranges.push((range, name)),
                Err(range) => self.plan.invalid_ranges.push(range),
            }
        }
        ranges
    }

    /// The text of a name, within the limits.
    fn name_text<'a>(&mut self, value: YamlValue<'a>) -> Option<&'a str> {
        let text = value.text().filter(|text| text.len() <= LONGEST_NAME)?;
        self.reserve_parts(value, parts_of(text)).then_some(text)
    }

    fn reserve_parts(&mut self, value: YamlValue<'_>, parts: usize) -> bool {
        self.inventory.reserve_parts(self.file, value.mark(), parts)
    }

    fn location(&self, value: YamlValue<'_>) -> SourceLocation {
        SourceLocation {
            file: self.file,
            mark: value.mark(),
        }
    }

    fn record_value_error(
        &mut self,
        value: YamlValue<'_>,
        field: &'static str,
        expected: &'static str,
    ) {
        let error = ManifestError::UnexpectedValue { field, expected };
        self.inventory
            .record_unread(self.file, Some(value.mark()), error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (AddressPlan, Vec<String>) {
        let mut inventory = PoolInventory::default();
        let plan = AddressPlan::read(&mut inventory, "plan.yaml", text);
        let unread = inventory.unread.iter().map(|unread| {
            let line = unread.mark.map_or(0, |mark| mark.line);
            format!("{line}: {}", unread.error)
        });
        (plan, unread.collect())
    }

    #[test]
    fn empty_plan_is_an_error() {
        for text in [
            "",
            "# later\n",
            "---\n...\n",
            "{}",
            "clusters:\n",
            "nodes: []\n",
        ] {
            let (_, unread) = read(text);
            assert_eq!(unread.len(), 1, "{text:?}: {unread:?}");
            assert!(unread[0].contains("clusters"), "{text:?}: {unread:?}");
        }
        assert_eq!(read("dhcp: [192.0.2.9]\n").1, [""; 0]);
    }

    #[test]
    fn duplicate_plan_entry_is_an_error() {
        let (plan, unread) = read("clusters:\n  a: {ranges: []}\n  a: {ranges: [192.0.2.0/24]}\n");
        assert!(plan.is_empty());
        assert_eq!(unread.len(), 1, "{unread:?}");
        assert!(unread[0].starts_with("3: "), "{unread:?}");
        let (plan, unread) = read("clusters: {a: {}}\n---\nclusters: {a: {}, b: {}}\n");
        assert_eq!(plan.shares.len(), 2);
        assert_eq!(unread.len(), 1, "{unread:?}");
        assert!(
            unread[0].starts_with("3: duplicate key \"a\""),
            "{unread:?}"
        );
    }

    #[test]
    fn a_typing_error_in_an_entry_is_not_passed_over() {
        let (_, unread) = read("dhcp: [{range: 192.0.2.1, nmae: x}]\n");
        assert_eq!(unread, ["1: this key is not range or name"]);
    }

    #[test]
    fn data_shared_by_plan_entries_is_stored_once() {
        let long = "x".repeat(1 << 20);
        for entry in ["{range: 192.0.2.1, name: *s}", "*s", "{range: *s}"] {
            let many = vec![entry; 20_000].join(", ");
            let text = format!("dhcp: [&s {long}, {many}]\n");
            let mut inventory = PoolInventory::default();
            let plan = AddressPlan::read(&mut inventory, "plan.yaml", &text);
            let last = inventory.unread.last().unwrap();
            assert_eq!(last.error, ManifestError::LimitExceeded, "{entry}");
            assert!(
                plan.reserved.len() + plan.invalid_ranges.len() < 20,
                "{entry}"
            );
        }
        let shares: Vec<_> = (0..20_000)
            .map(|number| format!("c{number}: {{network: *s}}"))
            .collect();
        let text = format!(
            "reserved: [&s {}]\nclusters: {{{}}}\n",
            "x".repeat(4096),
            shares.join(", ")
        );
        let mut inventory = PoolInventory::default();
        let plan = AddressPlan::read(&mut inventory, "plan.yaml", &text);
        let last = inventory.unread.last().unwrap();
        assert_eq!(last.error, ManifestError::LimitExceeded);
        assert!(plan.shares.len() < 4000, "{}", plan.shares.len());
    }

    #[test]
    fn overlong_name_is_reported() {
        let long = "x".repeat(4097);
        let (plan, unread) = read(&format!("dhcp: [{{range: 192.0.2.1, name: {long}}}]\n"));
        assert!(plan.reserved.is_empty());
        assert_eq!(
            unread,
            ["1: the name of a range is not of up to 4096 bytes"]
        );
    }
}
