//! Excludes addresses from pools: neither MetalLB nor Cilium supports exclusions, so the ranges have to be split.
//!
//! The output is the input manifest with new ranges, to be applied or to replace the old one. Comments are lost, and
//! fields that the API server adds are left out.

use std::{fmt::Write as _, net::IpAddr};

use probe_model::escape_untrusted;

use super::{
    PoolInventory,
    interval::{Interval, merged, subtract},
    manifest::{self, ManifestObject, ManifestObjects},
    model::{ManifestError, PoolKind, UnreadFile},
    yaml::{YamlKind, YamlMark, YamlValue, documents},
};

/// Maximum depth of an object.
const MAX_DEPTH: usize = 64;
const MAX_LINES: usize = 100_000;
/// Maximum size of the output, in MiB; input files have the same limit.
const MAX_MANIFEST_MIB: usize = 64;

/// Fields that the API server adds: another server would reject them or store wrong values.
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
/// The field with the addresses of a MetalLB pool.
const ADDRESSES: [&str; 2] = ["spec", "addresses"];
const BLOCKS: [&str; 2] = ["spec", "blocks"];
/// The former name of Cilium's field, which has no ranges.
const OLD_BLOCKS: [&str; 2] = ["spec", "cidrs"];

/// The result of excluding addresses from pools.
#[derive(Debug, Default)]
pub struct ExcludeResult {
    /// The new manifests of the pools that contained them.
    pub manifests: Vec<String>,
    /// The addresses that were in no pool.
    pub not_in_pools: Vec<Interval>,
    /// Ranges of pools that have to be edited manually, and the names of these pools.
    pub manual_ranges: Vec<(Interval, String)>,
    /// The parts that could not be read, with their locations.
    pub invalid: Vec<(YamlMark, ManifestError)>,
}

/// Why addresses cannot be excluded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExcludeError {
    /// No pool contains any of them.
    #[error("{} is in no IPAddressPool, AddressPool or CiliumLoadBalancerIPPool of the file", .0.describe())]
    NotInPools(Interval),
    /// The pool contains no other addresses.
    #[error("pool {0} has no other addresses: delete it instead")]
    NothingLeft(String),
    /// The field of the pool does not support ranges.
    #[error(
        "pool {0} lists its addresses in spec.cidrs, which newer Cilium ignores: rename the field to spec.blocks and retry"
    )]
    DeprecatedField(String),
    /// The addresses of the pool are elsewhere in the file, and would remain.
    #[error(
        "pool {0} merges its addresses from an anchor (<<): write them into its spec and retry"
    )]
    Merged(String),
    /// The object of the pool cannot be written.
    #[error(
        "pool {0} is nested too deeply, or too large to be written again ({MAX_MANIFEST_MIB} MiB with the pools before it): \
         write out its aliases, or split the file"
    )]
    TooLarge(String),
}

/// Excludes addresses from the pools of a text.
///
/// # Errors
///
/// If no pool contains them, or a pool would become empty or cannot be written.
pub fn exclude(text: &str, wanted: Interval) -> Result<ExcludeResult, ExcludeError> {
    let mut result = ExcludeResult::default();
    let mut inventory = PoolInventory::default();
    manifest::read(&mut inventory, "", "", text);
    let is_too_many = |unread: &&UnreadFile| unread.error == ManifestError::LimitExceeded;
    if let Some(unread) = inventory.unread.iter().find(is_too_many) {
        // An input that is too large to read is too large to split.
        let mark = unread.mark.unwrap_or_default();
        result.invalid.push((mark, ManifestError::LimitExceeded));
        return Ok(result);
    }
    let mut excluded = Vec::new();
    let mut room = MAX_MANIFEST_MIB << 20;
    for document in documents(text) {
        let document = match document {
            Ok(document) => document,
            Err(invalid) => {
                result.invalid.push((invalid.mark, invalid.error.into()));
                continue;
            }
        };
        if !manifest::is_marked_relevant(&document) {
            continue;
        }
        let duplicates = document.duplicates();
        if !duplicates.is_empty() {
            let duplicates = duplicates.into_iter();
            let duplicates = duplicates.map(|invalid| (invalid.mark, invalid.error.into()));
            result.invalid.extend(duplicates);
            continue;
        }
        let objects = ManifestObjects::of(&document);
        result.invalid.extend(objects.unread);
        for object in objects.found {
            if let Some((manifest, addresses)) = without(object, wanted, room)? {
                room -= manifest.len();
                result.manifests.push(manifest);
                excluded.extend(addresses);
            }
        }
    }
    result.manual_ranges = manual_ranges(&inventory, wanted);
    excluded.extend(result.manual_ranges.iter().map(|&(interval, _)| interval));
    if excluded.is_empty() && result.invalid.is_empty() {
        return Err(ExcludeError::NotInPools(wanted));
    }
    result.not_in_pools = subtract(wanted, &merged(excluded));
    Ok(result)
}

/// The manifest of a pool without some addresses, at most `room` bytes, and the addresses excluded from it. `None` for
/// objects that are no pool or contain none of the addresses.
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
                .excluded
                .is_empty()
            {
                return Err(ExcludeError::DeprecatedField(name()));
            }
            (BLOCKS, SplitPool::of_blocks(value, &BLOCKS, wanted))
        }
        Some(_) => (ADDRESSES, SplitPool::of_addresses(value, wanted)),
    };
    if split.excluded.is_empty() {
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
    // The API version and kind that a typed list declares for its items.
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
        Some(()) if writer.is_split => Ok(Some((writer.text, split.excluded))),
        Some(()) => Err(ExcludeError::Merged(name())),
        None => Err(ExcludeError::TooLarge(name())),
    }
}

/// The addresses that are in pools of `ConfigMap`s.
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

/// The new ranges of a pool.
#[derive(Default)]
struct SplitPool<'a> {
    entries: Vec<SplitEntry<'a>>,
    excluded: Vec<Interval>,
}

/// An entry of a list of addresses after the split.
enum SplitEntry<'a> {
    /// An unchanged entry.
    Unchanged(YamlValue<'a>),
    /// The rest of a MetalLB range.
    Range(Interval),
    /// The rest of a Cilium block.
    Block(Interval),
}

impl<'a> SplitPool<'a> {
    /// Splits the entries of a MetalLB pool: CIDRs and ranges.
    fn of_addresses(pool: YamlValue<'a>, wanted: Interval) -> Self {
        let mut split = Self::default();
        let addresses = pool.get_path(&ADDRESSES).and_then(YamlValue::items);
        for item in addresses.into_iter().flatten() {
            let range = item.text().and_then(|text| Interval::parse(text).ok());
            let range = range.map(|(range, _)| range);
            split.split_range(item, range, range, wanted, SplitEntry::Range);
        }
        split
    }

    /// Splits the entries of a Cilium pool: a CIDR, or a range, whose first and last address are assignable.
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
            split.split_range(block, range, usable, wanted, SplitEntry::Block);
        }
        split
    }

    /// Adds an entry; an entry with some of the addresses is replaced by the rest of its assignable addresses.
    fn split_range(
        &mut self,
        item: YamlValue<'a>,
        range: Option<Interval>,
        usable: Option<Interval>,
        wanted: Interval,
        entry: fn(Interval) -> SplitEntry<'a>,
    ) {
        match range.and_then(|range| range.common(&wanted)) {
            Some(common) => {
                self.excluded.push(common);
                let left = usable.into_iter().flat_map(|range| range.without(&wanted));
                self.entries.extend(left.map(entry));
            }
            None => self.entries.push(SplitEntry::Unchanged(item)),
        }
    }
}

/// A CIDR without its first and last address, which Cilium can reserve in CIDRs of more than two addresses.
fn without_ends(cidr: Interval) -> Option<Interval> {
    if cidr.count() <= 2 {
        return Some(cidr);
    }
    let end = |ip: IpAddr| Interval::new(ip, ip).ok();
    let (first, last) = (end(cidr.first())?, end(cidr.last())?);
    let begun = cidr.without(&first).next()?;
    begun.without(&last).next()
}

/// Formats a text as a YAML scalar: without quotes if they are not needed, else with JSON quotes, which are valid YAML.
fn scalar(text: &str, plain: bool) -> String {
    let stood_plain = plain && !text.is_empty() && !text.contains(char::is_control);
    if stood_plain || is_plain_scalar(text) {
        return text.to_owned();
    }
    let quoted = serde_json::Value::from(text).to_string();
    // JSON does not escape all control characters, and YAML forbids them.
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

/// Whether this is a string in every version of YAML without quotes.
fn is_plain_scalar(text: &str) -> bool {
    const NOT_TEXT: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(inner)
        && !NOT_TEXT.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Writes an object in block style.
struct ManifestWriter<'a> {
    /// The path of the addresses.
    field: [&'static str; 2],
    entries: &'a [SplitEntry<'a>],
    text: String,
    /// Maximum length of the text in bytes.
    room: usize,
    path: Vec<String>,
    lines: usize,
    /// Whether the addresses have been written.
    is_split: bool,
}

impl ManifestWriter<'_> {
    /// Writes a mapping; `None` if the text becomes too large.
    fn mapping(&mut self, value: YamlValue<'_>, indent: usize) -> Option<()> {
        for (key, value) in value.entries() {
            let YamlKind::Scalar { text, plain } = key.kind() else {
                // Manifests have no keys of other kinds.
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

    /// Writes the value after a key or a dash, starting with the space.
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
        match value.kind() {
            YamlKind::Scalar { text, plain } => {
                self.push(" ")?;
                self.scalar(text, plain)?;
                self.push("\n")
            }
            YamlKind::Sequence => {
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
            YamlKind::Mapping if value.entries().next().is_none() => self.push(" {}\n"),
            YamlKind::Mapping => {
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
                // IPv6 addresses contain colons and are quoted.
                SplitEntry::Range(range) => {
                    let plain = range.first().is_ipv4();
                    let range = scalar(&range.to_string(), plain);
                    self.line(indent, "- ", &range)?;
                }
                // Not a CIDR, because Cilium may reserve its first and last address.
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

    fn line(&mut self, indent: usize, start: &str, ends: &str) -> Option<()> {
        self.indent(indent)?;
        [start, ends, "\n"]
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

    /// Aliases can multiply the text of a file.
    fn has_room(&self, bytes: usize) -> Option<()> {
        (bytes <= self.room - self.text.len()).then_some(())
    }

    fn item(&mut self, item: YamlValue<'_>, indent: usize) -> Option<()> {
        self.indent(indent)?;
        let start = self.text.len();
        match item.kind() {
            YamlKind::Mapping if item.entries().next().is_some() => {
                self.mapping(item, indent + 2)?;
                // The dash replaces the last two columns of the indentation.
                self.text.replace_range(start..start + indent + 2, "- ");
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
