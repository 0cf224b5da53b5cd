//! A plan of the network: which ranges each cluster may use, and what nobody's pool may.

use probe_common::label_enum;

use super::{
    model::{Fault, Inventory, Place, Range, ReadError, parts_of},
    yaml::{self, Value, YamlError},
};

label_enum! {
    /// What a range is kept for.
    pub enum Use {
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
pub struct Kept {
    /// What for.
    pub purpose: Use,
    /// What it is called, if it is called something.
    pub name: Option<String>,
    /// The cluster it is listed with, if it is with one.
    pub cluster: Option<String>,
    /// Which addresses.
    pub range: Range,
}

/// What a cluster may use.
#[derive(Clone, Debug)]
pub struct Share {
    /// The cluster.
    pub cluster: String,
    /// Where its name stands.
    pub place: Place,
    /// The network it is in: addresses of two networks have nothing to do with each other. Without a name it
    /// is the one that all clusters without a name are in.
    pub network: Option<String>,
    /// Its pools may use these.
    pub ranges: Vec<Range>,
}

/// A plan.
#[derive(Debug, Default)]
pub struct Plan {
    /// What each cluster may use, if it says so.
    pub shares: Vec<Share>,
    /// What no pool may use.
    pub kept: Vec<Kept>,
    /// What should be ranges and is none.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Reads a plan. What cannot be read of it is noted in the inventory.
    pub fn read(inventory: &mut Inventory, file: &str, text: &str) -> Self {
        let file = inventory.file(file);
        let mut reader = Reader {
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
                        inventory.cannot_read(file, Some(broken.mark), broken.error);
                    }
                }
                Err(broken) => {
                    // A plan is written by hand: there is no chart to fill in.
                    let error = match broken.error {
                        YamlError::Template => YamlError::Syntax("it has template marks".into()),
                        other => other,
                    };
                    reader.inventory.cannot_read(file, Some(broken.mark), error);
                }
            }
        }
        let plan = reader.plan;
        let is_read = inventory.unread.iter().all(|unread| unread.file != file);
        if plan.is_empty() && is_read {
            // Everything would keep to it.
            inventory.cannot_read(file, None, ReadError::EmptyPlan);
        }
        plan
    }

    fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.kept.is_empty() && self.faults.is_empty()
    }

    /// The network that a cluster is in.
    pub fn network(&self, cluster: &str) -> Option<&str> {
        self.share(cluster)?.network.as_deref()
    }

    /// What a cluster may use.
    pub fn share(&self, cluster: &str) -> Option<&Share> {
        self.shares.iter().find(|share| share.cluster == cluster)
    }
}

struct Reader<'a> {
    plan: Plan,
    inventory: &'a mut Inventory,
    file: usize,
}

impl Reader<'_> {
    fn root(&mut self, root: Value<'_>) {
        const EXPECTED: &str = "a mapping of clusters, nodes, dhcp and reserved";
        if !root.is_mapping() {
            return self.misshapen(root, "the plan", EXPECTED);
        }
        for (key, value) in root.entries() {
            match key.text() {
                Some("clusters") => {
                    if !value.is_mapping() && !value.is_null() {
                        self.misshapen(value, "clusters", "a mapping of names");
                    }
                    for (name, share) in value.entries() {
                        self.share(name, share);
                    }
                }
                Some(word) => match Use::from_label(word) {
                    Some(purpose) => self.kept(value, purpose, None),
                    None => self.misshapen(key, "this key", "clusters, nodes, dhcp or reserved"),
                },
                None => self.misshapen(key, "this key", "clusters, nodes, dhcp or reserved"),
            }
        }
    }

    fn share(&mut self, name: Value<'_>, share: Value<'_>) {
        const EXPECTED: &str = "network, ranges, nodes, dhcp or reserved";
        let Some(cluster) = name.text().filter(|name| name.len() <= LONGEST_NAME) else {
            return self.misshapen(name, "this key", "the name of a cluster");
        };
        if !share.is_mapping() {
            return self.misshapen(share, "a cluster of the plan", "a mapping with ranges");
        }
        if let Some(known) = self.plan.share(cluster) {
            // In another document: one does not have a key twice.
            let error = YamlError::duplicate(cluster, known.place.mark.line);
            let inventory = &mut *self.inventory;
            return inventory.cannot_read(self.file, Some(name.mark()), error);
        }
        if !self.has_room(name, 1 + parts_of(cluster)) {
            return;
        }
        let mut ranges = Vec::new();
        let mut network = None;
        for (key, value) in share.entries() {
            match key.text() {
                Some("network") => match self.short(value) {
                    Some(name) => network = Some(name.to_owned()),
                    None => self.misshapen(value, "network", "a name"),
                },
                Some("ranges") => {
                    let listed = self.ranges(value, None).into_iter();
                    ranges.extend(listed.map(|(range, _)| range));
                }
                Some(word) => match Use::from_label(word) {
                    Some(purpose) => self.kept(value, purpose, Some(cluster)),
                    None => self.misshapen(key, "this key", EXPECTED),
                },
                None => self.misshapen(key, "this key", EXPECTED),
            }
        }
        let place = self.place(name);
        self.plan.shares.push(Share {
            cluster: cluster.to_owned(),
            place,
            network,
            ranges,
        });
    }

    fn kept(&mut self, value: Value<'_>, purpose: Use, cluster: Option<&str>) {
        for (range, name) in self.ranges(value, cluster) {
            self.plan.kept.push(Kept {
                purpose,
                name,
                cluster: cluster.map(str::to_owned),
                range,
            });
        }
    }

    /// A list of ranges: each a text, or a mapping of `range` and `name`. Each may be listed with a cluster.
    fn ranges(&mut self, value: Value<'_>, cluster: Option<&str>) -> Vec<(Range, Option<String>)> {
        if value.is_null() {
            return Vec::new();
        }
        let Some(items) = value.items() else {
            self.misshapen(value, "what is here", "a list of ranges");
            return Vec::new();
        };
        let mut ranges = Vec::new();
        for item in items {
            // By aliases, many entries may have one text.
            let written = item.get("range").unwrap_or(item).text();
            let name = item.get("name").and_then(Value::text);
            let texts = [written, name, cluster].into_iter().flatten();
            if !self.has_room(item, 1 + texts.map(parts_of).sum::<usize>()) {
                break;
            }
            if name.is_some_and(|name| name.len() > LONGEST_NAME) {
                self.misshapen(item, "the name of a range", "of up to 4096 bytes");
                continue;
            }
            let name = name.map(str::to_owned);
            for (key, _) in item.entries() {
                if !matches!(key.text(), Some("range" | "name")) {
                    self.misshapen(key, "this key", "range or name");
                }
            }
            let range = item.get("range").unwrap_or(item);
            let Some(text) = range.text() else {
                self.misshapen(range, "an entry", "a range, or a mapping of range and name");
                continue;
            };
            let place = self.place(range);
            match Range::parse(text, place) {
                Ok(range) => ranges.push((range, name)),
                Err(fault) => self.plan.faults.push(fault),
            }
        }
        ranges
    }

    /// The text of a name, if it is none too long and there is room for it.
    fn short<'a>(&mut self, value: Value<'a>) -> Option<&'a str> {
        let text = value.text().filter(|text| text.len() <= LONGEST_NAME)?;
        self.has_room(value, parts_of(text)).then_some(text)
    }

    fn has_room(&mut self, value: Value<'_>, parts: usize) -> bool {
        self.inventory.take_room(self.file, value.mark(), parts)
    }

    fn place(&self, value: Value<'_>) -> Place {
        Place {
            file: self.file,
            mark: value.mark(),
        }
    }

    fn misshapen(&mut self, value: Value<'_>, field: &'static str, expected: &'static str) {
        let error = ReadError::Shape { field, expected };
        self.inventory
            .cannot_read(self.file, Some(value.mark()), error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Plan, Vec<String>) {
        let mut inventory = Inventory::default();
        let plan = Plan::read(&mut inventory, "plan.yaml", text);
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
            let mut inventory = Inventory::default();
            let plan = Plan::read(&mut inventory, "plan.yaml", &text);
            let last = inventory.unread.last().unwrap();
            assert_eq!(last.error, ReadError::TooMany, "{entry}");
            assert!(plan.kept.len() + plan.faults.len() < 20, "{entry}");
        }
        let shares: Vec<_> = (0..20_000)
            .map(|number| format!("c{number}: {{network: *s}}"))
            .collect();
        let text = format!(
            "reserved: [&s {}]\nclusters: {{{}}}\n",
            "x".repeat(4096),
            shares.join(", ")
        );
        let mut inventory = Inventory::default();
        let plan = Plan::read(&mut inventory, "plan.yaml", &text);
        let last = inventory.unread.last().unwrap();
        assert_eq!(last.error, ReadError::TooMany);
        assert!(plan.shares.len() < 4000, "{}", plan.shares.len());
    }

    #[test]
    fn a_name_that_is_far_too_long_is_told() {
        let long = "x".repeat(4097);
        let (plan, unread) = read(&format!("dhcp: [{{range: 192.0.2.1, name: {long}}}]\n"));
        assert!(plan.kept.is_empty());
        assert_eq!(
            unread,
            ["1: the name of a range is not of up to 4096 bytes"]
        );
    }
}
