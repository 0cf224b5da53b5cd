//! A pool without an address: MetalLB has no way to say "all but these", so the ranges have to be split.
//!
//! What comes out is the manifest that went in, with other addresses: to be applied, or pasted over the old
//! one. Comments are lost, and what the API server adds to an object is left out.

use super::{
    interval::{Family, Interval, merged, outside},
    manifest,
    yaml::{Broken, Shape, Value, documents},
};

/// Deeper or larger objects are refused.
const DEEPEST: usize = 64;
const MOST_LINES: usize = 100_000;

/// What the API server adds: another one would refuse it, or be told lies.
const OF_THE_SERVER: [&[&str]; 8] = [
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
const ADDRESSES: [&str; 2] = ["spec", "addresses"];

/// Pools without some addresses.
#[derive(Debug, Default)]
pub struct Excluded {
    /// The manifests of the pools that had them.
    pub manifests: Vec<String>,
    /// The addresses that were in no pool.
    pub not_there: Vec<Interval>,
    /// Documents that could not be read.
    pub broken: Vec<Broken>,
}

/// Why addresses cannot be taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExcludeError {
    /// No pool has any of them.
    #[error("{} is in no IPAddressPool there", .0.spoken())]
    NotThere(Interval),
    /// The pool has nothing else.
    #[error("pool {0} has no other addresses: delete it instead")]
    NothingLeft(String),
    /// The object of the pool cannot be written.
    #[error("pool {0} is nested too deeply or too large to be written again")]
    TooLarge(String),
}

/// Takes addresses out of the pools of a text.
///
/// # Errors
///
/// No pool has them, or a pool would be left empty.
pub fn exclude(text: &str, wanted: Interval) -> Result<Excluded, ExcludeError> {
    let mut excluded = Excluded::default();
    let mut taken = Vec::new();
    for document in documents(text) {
        let document = match document {
            Ok(document) => document,
            Err(broken) => {
                excluded.broken.push(broken);
                continue;
            }
        };
        for object in manifest::objects(&document) {
            if !manifest::is_address_pool(object) {
                continue;
            }
            let split = Split::of(object, wanted);
            if split.taken.is_empty() {
                continue;
            }
            let name = object.at_path(&["metadata", "name"]).and_then(Value::text);
            let name = name.unwrap_or("without a name").to_owned();
            if split.entries.is_empty() {
                return Err(ExcludeError::NothingLeft(name));
            }
            let mut writer = Writer {
                addresses: &split.entries,
                text: String::new(),
                path: Vec::new(),
                lines: 0,
            };
            match writer.mapping(object, 0) {
                Some(()) => excluded.manifests.push(writer.text),
                None => return Err(ExcludeError::TooLarge(name)),
            }
            taken.extend(split.taken);
        }
    }
    if taken.is_empty() && excluded.broken.is_empty() {
        return Err(ExcludeError::NotThere(wanted));
    }
    excluded.not_there = outside(wanted, &merged(taken));
    Ok(excluded)
}

/// The addresses of a pool, as they are to be written.
struct Split {
    entries: Vec<String>,
    taken: Vec<Interval>,
}

impl Split {
    fn of(pool: Value<'_>, wanted: Interval) -> Self {
        let mut split = Self {
            entries: Vec::new(),
            taken: Vec::new(),
        };
        let addresses = pool.at_path(&ADDRESSES).and_then(Value::items);
        for item in addresses.into_iter().flatten() {
            let text = item.text().unwrap_or_default();
            let found = Interval::parse(text).ok();
            let hit = found.and_then(|(range, _)| Some((range, range.common(&wanted)?)));
            match hit {
                Some((range, common)) => {
                    split.taken.push(common);
                    split.entries.extend(range.without(&wanted).map(written));
                }
                // As it was, whatever it is.
                None => split.entries.push(scalar(text, !text.contains(':'))),
            }
        }
        split
    }
}

/// A range in YAML.
fn written(range: Interval) -> String {
    // With its colons, IPv6 is better off in quotes.
    scalar(&range.to_string(), range.family() == Family::V4)
}

/// A text in YAML: as it is where it needs no quotes or stood without, else in those of JSON, which are YAML's.
fn scalar(text: &str, plain: bool) -> String {
    let stood_plain = plain && !text.is_empty() && !text.contains('\n');
    if stood_plain || is_plain_word(text) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
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
struct Writer<'a> {
    addresses: &'a [String],
    text: String,
    path: Vec<String>,
    lines: usize,
}

impl Writer<'_> {
    /// `None` if it is too large.
    fn mapping(&mut self, value: Value<'_>, indent: usize) -> Option<()> {
        for (key, value) in value.entries() {
            let Shape::Scalar { text, plain } = key.shape() else {
                // No manifest has keys like that.
                return None;
            };
            self.path.push(text.to_owned());
            if !self.is_of_the_server() {
                self.indent(indent);
                self.text.push_str(&scalar(text, plain));
                self.text.push(':');
                self.value(value, indent)?;
            }
            self.path.pop();
        }
        Some(())
    }

    /// What is behind a key or a dash, from the space on.
    fn value(&mut self, value: Value<'_>, indent: usize) -> Option<()> {
        self.lines += 1;
        if self.lines > MOST_LINES || indent > 2 * DEEPEST {
            return None;
        }
        if self.path == ADDRESSES {
            self.text.push('\n');
            for address in self.addresses {
                self.indent(indent);
                self.text.push_str("- ");
                self.text.push_str(address);
                self.text.push('\n');
            }
            return Some(());
        }
        match value.shape() {
            Shape::Scalar { text, plain } => {
                self.text.push(' ');
                self.text.push_str(&scalar(text, plain));
                self.text.push('\n');
            }
            Shape::Sequence(items) if items.is_empty() => self.text.push_str(" []\n"),
            Shape::Mapping(entries) if entries.is_empty() => self.text.push_str(" {}\n"),
            Shape::Sequence(items) => {
                self.text.push('\n');
                for item in items {
                    self.path.push("-".to_owned());
                    self.item(item, indent)?;
                    self.path.pop();
                }
            }
            Shape::Mapping(_) => {
                self.text.push('\n');
                self.mapping(value, indent + 2)?;
            }
        }
        Some(())
    }

    fn item(&mut self, item: Value<'_>, indent: usize) -> Option<()> {
        self.indent(indent);
        let begins = self.text.len();
        match item.shape() {
            Shape::Mapping(entries) if !entries.is_empty() => {
                self.mapping(item, indent + 2)?;
                // The dash takes the place of the indentation, which the line of an item has twice.
                self.text.replace_range(begins..begins + indent + 2, "- ");
            }
            _ => {
                self.text.push('-');
                self.value(item, indent + 2)?;
            }
        }
        Some(())
    }

    fn is_of_the_server(&self) -> bool {
        OF_THE_SERVER.iter().any(|path| self.path == *path)
    }

    fn indent(&mut self, indent: usize) {
        self.text.extend(std::iter::repeat_n(' ', indent));
    }
}

#[cfg(test)]
mod tests;
