//! A plan of the network: which ranges each cluster may use, and what nobody's pool may.

use probe_common::label_enum;

use super::{
    model::{
        InvalidRangeEntry, ManifestError, PoolInventory, SourceLocation, WrittenRange, parts_of,
    },
    yaml::{self, ManifestYamlError, YamlValue},
};

label_enum! {
    /// What a range is kept for.
    pub enum ReservedUse {
        /// Addresses of machines.
        Nodes = "nodes",
        /// What a DHCP server hands out.
        Dhcp = "dhcp",
        /// Anything else: gateways, printers, the control plane's address.
        Reserved = "reserved",
    }
}

/// Longer names are refused: clusters are called as files are, and no path is longer.
const LONGEST_NAME: usize = 4096;

/// A range that no pool may use.
#[derive(Clone, Debug)]
pub struct ReservedRange {
    /// What for.
    pub purpose: ReservedUse,
    /// What it is called, if it is called something.
    pub name: Option<String>,
    /// The cluster it is listed with, if it is with one.
    pub cluster: Option<String>,
    /// Which addresses.
    pub range: WrittenRange,
}

/// What a cluster may use.
#[derive(Clone, Debug)]
pub struct PlanShare {
    /// The cluster.
    pub cluster: String,
    /// Where its name stands.
    pub place: SourceLocation,
    /// The network it is in: addresses of two networks have nothing to do with each other. Without a name it
    /// is the one that all clusters without a name are in.
    pub network: Option<String>,
    /// Its pools may use these.
    pub ranges: Vec<WrittenRange>,
}

/// A plan.
#[derive(Debug, Default)]
pub struct AddressPlan {
    /// What each cluster may use, if it says so.
    pub shares: Vec<PlanShare>,
    /// What no pool may use.
    pub reserved: Vec<ReservedRange>,
    /// What should be ranges and is none.
    pub faults: Vec<InvalidRangeEntry>,
}

impl AddressPlan {
    /// Reads a plan. What cannot be read of it is noted in the inventory.
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
                    for broken in duplicates {
                        let inventory = &mut *reader.inventory;
                        inventory.record_unread(file, Some(broken.mark), broken.error);
                    }
                }
                Err(broken) => {
                    // A plan is written by hand: there is no chart to fill in.
                    let error = match broken.error {
                        ManifestYamlError::Template => {
                            ManifestYamlError::Syntax("it has template marks".into())
                        }
                        other => other,
                    };
                    reader
                        .inventory
                        .record_unread(file, Some(broken.mark), error);
                }
            }
        }
        let plan = reader.plan;
        let is_read = inventory.unread.iter().all(|unread| unread.file != file);
        if plan.is_empty() && is_read {
            // Everything would keep to it.
            inventory.record_unread(file, None, ManifestError::EmptyPlan);
        }
        plan
    }

    fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.reserved.is_empty() && self.faults.is_empty()
    }

    /// The network that a cluster is in.
    pub fn network(&self, cluster: &str) -> Option<&str> {
        self.share(cluster)?.network.as_deref()
    }

    /// What a cluster may use.
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
            return self.record_shape_error(root, "the plan", EXPECTED);
        }
        for (key, value) in root.entries() {
            match key.text() {
                Some("clusters") => {
                    if !value.is_mapping() && !value.is_null() {
                        self.record_shape_error(value, "clusters", "a mapping of names");
                    }
                    for (name, share) in value.entries() {
                        self.share(name, share);
                    }
                }
                Some(word) => match ReservedUse::from_label(word) {
                    Some(purpose) => self.parse_reserved(value, purpose, None),
                    None => self.record_shape_error(
                        key,
                        "this key",
                        "clusters, nodes, dhcp or reserved",
                    ),
                },
                None => {
                    self.record_shape_error(key, "this key", "clusters, nodes, dhcp or reserved");
                }
            }
        }
    }

    fn share(&mut self, name: YamlValue<'_>, share: YamlValue<'_>) {
        const EXPECTED: &str = "network, ranges, nodes, dhcp or reserved";
        let Some(cluster) = name.text().filter(|name| name.len() <= LONGEST_NAME) else {
            return self.record_shape_error(name, "this key", "the name of a cluster");
        };
        if !share.is_mapping() {
            return self.record_shape_error(
                share,
                "a cluster of the plan",
                "a mapping with ranges",
            );
        }
        if let Some(known) = self.plan.share(cluster) {
            // In another document: one does not have a key twice.
            let error = ManifestYamlError::duplicate(cluster, known.place.mark.line);
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
                    None => self.record_shape_error(value, "network", "a name"),
                },
                Some("ranges") => {
                    let listed = self.ranges(value, None).into_iter();
                    ranges.extend(listed.map(|(range, _)| range));
                }
                Some(word) => match ReservedUse::from_label(word) {
                    Some(purpose) => self.parse_reserved(value, purpose, Some(cluster)),
                    None => self.record_shape_error(key, "this key", EXPECTED),
                },
                None => self.record_shape_error(key, "this key", EXPECTED),
            }
        }
        let place = self.place(name);
        self.plan.shares.push(PlanShare {
            cluster: cluster.to_owned(),
            place,
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

    /// A list of ranges: each a text, or a mapping of `range` and `name`. Each may be listed with a cluster.
    fn ranges(
        &mut self,
        value: YamlValue<'_>,
        cluster: Option<&str>,
    ) -> Vec<(WrittenRange, Option<String>)> {
        if value.is_null() {
            return Vec::new();
        }
        let Some(items) = value.items() else {
            self.record_shape_error(value, "what is here", "a list of ranges");
            return Vec::new();
        };
        let mut ranges = Vec::new();
        for item in items {
            // By aliases, many entries may have one text.
            let written = item.get("range").unwrap_or(item).text();
            let name = item.get("name").and_then(YamlValue::text);
            let texts = [written, name, cluster].into_iter().flatten();
            if !self.reserve_parts(item, 1 + texts.map(parts_of).sum::<usize>()) {
                break;
            }
            if name.is_some_and(|name| name.len() > LONGEST_NAME) {
                self.record_shape_error(item, "the name of a range", "of up to 4096 bytes");
                continue;
            }
            let name = name.map(str::to_owned);
            for (key, _) in item.entries() {
                if !matches!(key.text(), Some("range" | "name")) {
                    self.record_shape_error(key, "this key", "range or name");
                }
            }
            let range = item.get("range").unwrap_or(item);
            let Some(text) = range.text() else {
                self.record_shape_error(
                    range,
                    "an entry",
                    "a range, or a mapping of range and name",
                );
                continue;
            };
            let place = self.place(range);
            match WrittenRange::parse(text, place) {
                Ok(range) => ranges.push((range, name)),
                Err(fault) => self.plan.faults.push(fault),
            }
        }
        ranges
    }

    /// The text of a name, if it is none too long and there is room for it.
    fn name_text<'a>(&mut self, value: YamlValue<'a>) -> Option<&'a str> {
        let text = value.text().filter(|text| text.len() <= LONGEST_NAME)?;
        self.reserve_parts(value, parts_of(text)).then_some(text)
    }

    fn reserve_parts(&mut self, value: YamlValue<'_>, parts: usize) -> bool {
        self.inventory.reserve_parts(self.file, value.mark(), parts)
    }

    fn place(&self, value: YamlValue<'_>) -> SourceLocation {
        SourceLocation {
            file: self.file,
            mark: value.mark(),
        }
    }

    fn record_shape_error(
        &mut self,
        value: YamlValue<'_>,
        field: &'static str,
        expected: &'static str,
    ) {
        let error = ManifestError::Shape { field, expected };
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
    fn a_plan_that_says_nothing_is_no_plan() {
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
    fn what_is_there_twice_is_not_chosen_from() {
        let (plan, unread) = read("clusters:\n  a: {ranges: []}\n  a: {ranges: [192.0.2.0/24]}\n");
        assert!(plan.is_empty());
        assert_eq!(unread.len(), 1, "{unread:?}");
        assert!(unread[0].starts_with("3: "), "{unread:?}");
        let (plan, unread) = read("clusters: {a: {}}\n---\nclusters: {a: {}, b: {}}\n");
        assert_eq!(plan.shares.len(), 2);
        assert_eq!(unread.len(), 1, "{unread:?}");
        assert!(unread[0].starts_with("3: the key \"a\""), "{unread:?}");
    }

    #[test]
    fn a_typing_error_in_an_entry_is_not_passed_over() {
        let (_, unread) = read("dhcp: [{range: 192.0.2.1, nmae: x}]\n");
        assert_eq!(unread, ["1: this key is not range or name"]);
    }

    #[test]
    fn what_many_entries_share_does_not_grow_with_them() {
        let long = "x".repeat(1 << 20);
        for entry in ["{range: 192.0.2.1, name: *s}", "*s", "{range: *s}"] {
            let many = vec![entry; 20_000].join(", ");
            let text = format!("dhcp: [&s {long}, {many}]\n");
            let mut inventory = PoolInventory::default();
            let plan = AddressPlan::read(&mut inventory, "plan.yaml", &text);
            let last = inventory.unread.last().unwrap();
            assert_eq!(last.error, ManifestError::TooMany, "{entry}");
            assert!(plan.reserved.len() + plan.faults.len() < 20, "{entry}");
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
        assert_eq!(last.error, ManifestError::TooMany);
        assert!(plan.shares.len() < 4000, "{}", plan.shares.len());
    }

    #[test]
    fn a_name_that_is_far_too_long_is_told() {
        let long = "x".repeat(4097);
        let (plan, unread) = read(&format!("dhcp: [{{range: 192.0.2.1, name: {long}}}]\n"));
        assert!(plan.reserved.is_empty());
        assert_eq!(
            unread,
            ["1: the name of a range is not of up to 4096 bytes"]
        );
    }
}
