//! A pool without an address: neither MetalLB nor Cilium has a way to say "all but these", so the ranges have to be
//! split.
//!
//! What comes out is the manifest that went in, with other addresses: to be applied, or pasted over the old
//! one. Comments are lost, and what the API server adds to an object is left out.

use std::{fmt::Write as _, net::IpAddr};

use probe_model::escape_untrusted;

use super::{
    PoolInventory,
    interval::{Interval, merged, subtract},
    manifest::{self, ManifestObject, ManifestObjects},
    model::{ManifestError, PoolKind, UnreadFile},
    yaml::{YamlMark, YamlShape, YamlValue, documents},
};

/// Deeper or larger objects are refused.
const MAX_DEPTH: usize = 64;
const MAX_LINES: usize = 100_000;
/// No more than this is written: no file that is read has more.
const MAX_MANIFEST_MIB: usize = 64;

/// What the API server adds: another one would refuse it, or be told lies.
const SERVER_MANAGED_FIELDS: [&[&str]; 8] = [
    &["status"],
    &["metadata", "creationTimestamp"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &[
        "metadata",
        "annotations",
        "kubectl.kubernetes.io/last-applied-configuration",
    ],
];
/// Where a pool has its addresses: MetalLB's, and Cilium's.
const ADDRESSES: [&str; 2] = ["spec", "addresses"];
const BLOCKS: [&str; 2] = ["spec", "blocks"];
/// What Cilium called them before, when it had no ranges.
const OLD_BLOCKS: [&str; 2] = ["spec", "cidrs"];

/// Pools without some addresses.
#[derive(Debug, Default)]
pub struct ExcludeResult {
    /// The manifests of the pools that had them.
    pub manifests: Vec<String>,
    /// The addresses that were in no pool.
    pub not_in_pools: Vec<Interval>,
    /// What pools have that are not written here, and which those are.
    pub manual_ranges: Vec<(Interval, String)>,
    /// What could not be read, and where.
    pub broken: Vec<(YamlMark, ManifestError)>,
}

/// Why addresses cannot be taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExcludeError {
    /// No pool has any of them.
    #[error("{} is in no IPAddressPool, AddressPool or CiliumLoadBalancerIPPool there", .0.spoken())]
    NotInPools(Interval),
    /// The pool has nothing else.
    #[error("pool {0} has no other addresses: delete it instead")]
    NothingLeft(String),
    /// Ranges could not be written where the pool has its addresses.
    #[error(
        "pool {0} has them in spec.cidrs, which newer Cilium does not read: call it spec.blocks, then try again"
    )]
    DeprecatedField(String),
    /// The pool's addresses stand elsewhere in the file, and would stay.
    #[error("pool {0} merges its addresses in (<<): write them into its spec, then try again")]
    Merged(String),
    /// The object of the pool cannot be written.
    #[error(
        "pool {0} is nested too deeply, or too large to be written again ({MAX_MANIFEST_MIB} MiB with the pools before it): \
         write out its aliases, or split the file"
    )]
    TooLarge(String),
}

/// Takes addresses out of the pools of a text.
///
/// # Errors
///
/// No pool has them, a pool would be left empty, or cannot be written.
pub fn exclude(text: &str, wanted: Interval) -> Result<ExcludeResult, ExcludeError> {
    let mut excluded = ExcludeResult::default();
    let mut inventory = PoolInventory::default();
    manifest::read(&mut inventory, "", "", text);
    let is_too_many = |unread: &&UnreadFile| unread.error == ManifestError::TooMany;
    if let Some(unread) = inventory.unread.iter().find(is_too_many) {
        // Where it is too much to be read, it is too much to be split.
        let mark = unread.mark.unwrap_or_default();
        excluded.broken.push((mark, ManifestError::TooMany));
        return Ok(excluded);
    }
    let mut taken = Vec::new();
    let mut room = MAX_MANIFEST_MIB << 20;
    for document in documents(text) {
        let document = match document {
            Ok(document) => document,
            Err(broken) => {
                excluded.broken.push((broken.mark, broken.error.into()));
                continue;
            }
        };
        if !manifest::is_marked_relevant(&document) {
            continue;
        }
        let duplicates = document.duplicates();
        if !duplicates.is_empty() {
            let duplicates = duplicates.into_iter();
            let duplicates = duplicates.map(|broken| (broken.mark, broken.error.into()));
            excluded.broken.extend(duplicates);
            continue;
        }
        let objects = ManifestObjects::of(&document);
        excluded.broken.extend(objects.unread);
        for object in objects.found {
            if let Some((manifest, addresses)) = without(object, wanted, room)? {
                room -= manifest.len();
                excluded.manifests.push(manifest);
                taken.extend(addresses);
            }
        }
    }
    excluded.manual_ranges = manual_ranges(&inventory, wanted);
    taken.extend(excluded.manual_ranges.iter().map(|&(interval, _)| interval));
    if taken.is_empty() && excluded.broken.is_empty() {
        return Err(ExcludeError::NotInPools(wanted));
    }
    excluded.not_in_pools = subtract(wanted, &merged(taken));
    Ok(excluded)
}

/// A pool's manifest without some addresses, not longer than there is room, and which of them it had; nothing of what is
/// none, or has none of them.
fn without(
    object: ManifestObject<'_>,
    wanted: Interval,
    room: usize,
) -> Result<Option<(String, Vec<Interval>)>, ExcludeError> {
    let value = object.value;
    let name = value
        .get_path(&["metadata", "name"])
        .and_then(YamlValue::text);
    let name = || escape_untrusted(name.unwrap_or("without a name")).into_owned();
    let (field, split) = match object.pool_kind() {
        None => return Ok(None),
        Some(PoolKind::Cilium) => {
            if !SplitPool::of_blocks(value, &OLD_BLOCKS, wanted)
                .taken
                .is_empty()
            {
                return Err(ExcludeError::DeprecatedField(name()));
            }
            (BLOCKS, SplitPool::of_blocks(value, &BLOCKS, wanted))
        }
        Some(_) => (ADDRESSES, SplitPool::of_addresses(value, wanted)),
    };
    if split.taken.is_empty() {
        return Ok(None);
    }
    if split.entries.is_empty() {
        return Err(ExcludeError::NothingLeft(name()));
    }
    let mut writer = ManifestWriter {
        field,
        entries: &split.entries,
        text: String::new(),
        room,
        path: Vec::new(),
        lines: 0,
        is_split: false,
    };
    // What the list said for all of its items.
    for (key, said) in [("apiVersion", object.api_version), ("kind", object.kind)] {
        if value.get(key).is_none() {
            let written = writer.push(key);
            let written = written.and_then(|()| writer.push(": "));
            let written = written.and_then(|()| writer.scalar(said, false));
            let written = written.and_then(|()| writer.push("\n"));
            written.ok_or_else(|| ExcludeError::TooLarge(name()))?;
        }
    }
    match writer.mapping(value, 0) {
        Some(()) if writer.is_split => Ok(Some((writer.text, split.taken))),
        Some(()) => Err(ExcludeError::Merged(name())),
        None => Err(ExcludeError::TooLarge(name())),
    }
}

/// What pools in `ConfigMap`s have of these addresses.
fn manual_ranges(inventory: &PoolInventory, wanted: Interval) -> Vec<(Interval, String)> {
    let pools = inventory.pools.iter();
    let pools = pools.filter(|pool| !pool.kind.is_resource());
    let parts = pools.flat_map(|pool| {
        let name = format!("pool {} of a {}", escape_untrusted(&pool.name), pool.kind);
        let ranges = pool.ranges.iter();
        let parts = ranges.filter_map(move |range| range.interval.common(&wanted));
        parts.map(move |part| (part, name.clone()))
    });
    parts.collect()
}

/// The addresses of a pool, as they are to be written.
#[derive(Default)]
struct SplitPool<'a> {
    entries: Vec<SplitEntry<'a>>,
    taken: Vec<Interval>,
}

/// An entry of a list of addresses.
enum SplitEntry<'a> {
    /// As it was, whatever it is.
    Unchanged(YamlValue<'a>),
    /// What is left of one of MetalLB's.
    Range(Interval),
    /// What is left of one of Cilium's.
    Block(Interval),
}

impl<'a> SplitPool<'a> {
    /// MetalLB's: CIDRs and ranges.
    fn of_addresses(pool: YamlValue<'a>, wanted: Interval) -> Self {
        let mut split = Self::default();
        let addresses = pool.get_path(&ADDRESSES).and_then(YamlValue::items);
        for item in addresses.into_iter().flatten() {
            let range = item.text().and_then(|text| Interval::parse(text).ok());
            let range = range.map(|(range, _)| range);
            split.take_range(item, range, range, wanted, SplitEntry::Range);
        }
        split
    }

    /// Cilium's: a CIDR, or a range of which it hands out the ends as well.
    fn of_blocks(pool: YamlValue<'a>, field: &[&str], wanted: Interval) -> Self {
        let mut split = Self::default();
        let ends = pool.get_path(&["spec", "allowFirstLastIPs"]);
        let keeps_ends = ends.and_then(YamlValue::text) == Some("No");
        let blocks = pool.get_path(field).and_then(YamlValue::items);
        for block in blocks.into_iter().flatten() {
            let text = |key| block.get(key).and_then(YamlValue::text);
            let (cidr, start, stop) = (text("cidr"), text("start"), text("stop"));
            let written = match (cidr, start) {
                (Some(cidr), _) => Some(cidr.to_owned()),
                (None, Some(start)) => Some(format!("{start}-{}", stop.unwrap_or(start))),
                (None, None) => None,
            };
            let range = written.and_then(|written| Interval::parse(&written).ok());
            let range = range.map(|(range, _)| range);
            let usable = if keeps_ends && cidr.is_some() {
                range.and_then(without_ends)
            } else {
                range
            };
            split.take_range(block, range, usable, wanted, SplitEntry::Block);
        }
        split
    }

    /// Takes an entry; of one that has some of the addresses, what is left of what is handed out of it.
    fn take_range(
        &mut self,
        item: YamlValue<'a>,
        range: Option<Interval>,
        usable: Option<Interval>,
        wanted: Interval,
        entry: fn(Interval) -> SplitEntry<'a>,
    ) {
        match range.and_then(|range| range.common(&wanted)) {
            Some(common) => {
                self.taken.push(common);
                let left = usable.into_iter().flat_map(|range| range.without(&wanted));
                self.entries.extend(left.map(entry));
            }
            None => self.entries.push(SplitEntry::Unchanged(item)),
        }
    }
}

/// A CIDR without its first and last address, which of more than two Cilium can keep back.
fn without_ends(cidr: Interval) -> Option<Interval> {
    if cidr.count() <= 2 {
        return Some(cidr);
    }
    let end = |ip: IpAddr| Interval::new(ip, ip).ok();
    let (first, last) = (end(cidr.first())?, end(cidr.last())?);
    let begun = cidr.without(&first).next()?;
    begun.without(&last).next()
}

/// A text in YAML: as it is where it needs no quotes or stood without, else in those of JSON, which are YAML's.
fn scalar(text: &str, plain: bool) -> String {
    let stood_plain = plain && !text.is_empty() && !text.contains(char::is_control);
    if stood_plain || is_plain_word(text) {
        return text.to_owned();
    }
    let quoted = serde_json::Value::from(text).to_string();
    // JSON lets some of what a terminal obeys stand, and YAML does not.
    let mut scalar = String::with_capacity(quoted.len());
    for letter in quoted.chars() {
        if letter.is_control() {
            // Writing to a String does not fail.
            let _ = write!(scalar, "\\u{:04x}", u32::from(letter));
        } else {
            scalar.push(letter);
        }
    }
    scalar
}

/// Whether this is a text in every version of YAML, also without quotes.
fn is_plain_word(text: &str) -> bool {
    const NOT_TEXT: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(inner)
        && !NOT_TEXT.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Writes an object in block style.
struct ManifestWriter<'a> {
    /// Where the addresses are.
    field: [&'static str; 2],
    entries: &'a [SplitEntry<'a>],
    text: String,
    /// How long the text may become.
    room: usize,
    path: Vec<String>,
    lines: usize,
    /// Whether the addresses came by.
    is_split: bool,
}

impl ManifestWriter<'_> {
    /// `None` if it is too large.
    fn mapping(&mut self, value: YamlValue<'_>, indent: usize) -> Option<()> {
        for (key, value) in value.entries() {
            let YamlShape::Scalar { text, plain } = key.shape() else {
                // No manifest has keys like that.
                return None;
            };
            self.path.push(text.to_owned());
            if !self.is_server_managed() {
                self.indent(indent)?;
                self.scalar(text, plain)?;
                self.push(":")?;
                self.value(value, indent)?;
            }
            self.path.pop();
        }
        Some(())
    }

    /// What is behind a key or a dash, from the space on.
    fn value(&mut self, value: YamlValue<'_>, indent: usize) -> Option<()> {
        self.lines += 1;
        if self.lines > MAX_LINES || indent > 2 * MAX_DEPTH {
            return None;
        }
        if self.path == self.field {
            self.push("\n")?;
            self.is_split = true;
            return self.addresses(indent);
        }
        match value.shape() {
            YamlShape::Scalar { text, plain } => {
                self.push(" ")?;
                self.scalar(text, plain)?;
                self.push("\n")
            }
            YamlShape::Sequence => {
                let mut items = value.items().into_iter().flatten().peekable();
                if items.peek().is_none() {
                    return self.push(" []\n");
                }
                self.push("\n")?;
                for item in items {
                    self.path.push("-".to_owned());
                    self.item(item, indent)?;
                    self.path.pop();
                }
                Some(())
            }
            YamlShape::Mapping if value.entries().next().is_none() => self.push(" {}\n"),
            YamlShape::Mapping => {
                self.push("\n")?;
                self.mapping(value, indent + 2)
            }
        }
    }

    fn addresses(&mut self, indent: usize) -> Option<()> {
        for entry in self.entries {
            match *entry {
                SplitEntry::Unchanged(item) => {
                    self.path.push("-".to_owned());
                    self.item(item, indent)?;
                    self.path.pop();
                }
                // With its colons, IPv6 is better off in quotes.
                SplitEntry::Range(range) => {
                    let plain = range.first().is_ipv4();
                    let range = scalar(&range.to_string(), plain);
                    self.line(indent, "- ", &range)?;
                }
                // No CIDR: of that Cilium may keep the ends back.
                SplitEntry::Block(range) => {
                    let plain = range.first().is_ipv4();
                    let [start, stop] = [range.first(), range.last()];
                    self.line(indent, "- start: ", &scalar(&start.to_string(), plain))?;
                    self.line(indent, "  stop: ", &scalar(&stop.to_string(), plain))?;
                }
            }
        }
        Some(())
    }

    fn line(&mut self, indent: usize, begins: &str, ends: &str) -> Option<()> {
        self.indent(indent)?;
        [begins, ends, "\n"]
            .into_iter()
            .try_for_each(|text| self.push(text))
    }

    fn scalar(&mut self, text: &str, plain: bool) -> Option<()> {
        self.has_room(text.len())?;
        self.push(&scalar(text, plain))
    }

    fn push(&mut self, text: &str) -> Option<()> {
        self.has_room(text.len())?;
        self.text.push_str(text);
        Some(())
    }

    /// Aliases multiply what a file has of text.
    fn has_room(&self, bytes: usize) -> Option<()> {
        (bytes <= self.room - self.text.len()).then_some(())
    }

    fn item(&mut self, item: YamlValue<'_>, indent: usize) -> Option<()> {
        self.indent(indent)?;
        let begins = self.text.len();
        match item.shape() {
            YamlShape::Mapping if item.entries().next().is_some() => {
                self.mapping(item, indent + 2)?;
                // The dash takes the place of the indentation, which the line of an item has twice.
                self.text.replace_range(begins..begins + indent + 2, "- ");
            }
            _ => {
                self.push("-")?;
                self.value(item, indent + 2)?;
            }
        }
        Some(())
    }

    fn is_server_managed(&self) -> bool {
        SERVER_MANAGED_FIELDS.iter().any(|path| self.path == *path)
    }

    fn indent(&mut self, indent: usize) -> Option<()> {
        self.has_room(indent)?;
        self.text.extend(std::iter::repeat_n(' ', indent));
        Some(())
    }
}

#[cfg(test)]
mod tests;
