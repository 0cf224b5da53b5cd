//! YAML as text with line numbers; the setting of the key interprets the value. So `10`, `1.50` and `no` keep their
//! text.
//!
//! Anchors, aliases, merge keys and tags are rejected: settings do not need them, and they can expand a small file.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{MergeKeyPolicy, Spanned, UserMessageFormatter, budget, options};

/// Maximum nesting depth; three levels are used.
const MAX_DEPTH: usize = 16;
/// Maximum number of values.
const MAX_NODES: usize = 200_000;

const TOO_DEEP: &str = "lists and maps are nested too deeply";

/// A value with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SettingsNode {
    /// The line, from 1.
    pub line: u64,
    /// The value.
    pub value: SettingsValue,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SettingsValue {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar of any kind.
    Text(String),
    /// A list.
    List(Vec<SettingsNode>),
    /// A map, in the order of the file. No key occurs twice.
    Map(Vec<(SettingsKey, SettingsNode)>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SettingsKey {
    /// The line, from 1.
    pub line: u64,
    /// The key.
    pub text: String,
}

/// Why a text is invalid or unsupported YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SettingsYamlError {
    /// The line, from 1, if the error is on a line.
    pub line: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// Parses one document.
pub(super) fn parse(text: &str) -> Result<SettingsNode, SettingsYamlError> {
    let options = options! {
        budget: budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_anchors: 0,
            max_aliases: 0,
            max_merge_keys: 0,
            max_documents: 1,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let parsed = serde_saphyr::from_str_with_options::<Spanned<RawValue>>(text, options);
    parsed
        .map_err(|error| SettingsYamlError::new(&error))
        .map(|raw| node(raw, text))
}

impl SettingsYamlError {
    fn new(error: &serde_saphyr::Error) -> Self {
        let line = error.location().map(|location| location.line());
        Self {
            line: line.filter(|&line| line > 0),
            what: what(error),
        }
    }
}

/// The error without its location.
fn what(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{Error, budget::BudgetBreach};
    match error.without_snippet() {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. } => {
                "anchors (&) and aliases (*) are not supported: quote a value that starts with them"
                    .to_owned()
            }
            BudgetBreach::Depth { .. } => TOO_DEEP.to_owned(),
            BudgetBreach::Documents { .. } => "more than one document".to_owned(),
            _ => "too many values".to_owned(),
        },
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("duplicate key {key}")
        }
        other => {
            let text = other.render_with_formatter(&UserMessageFormatter);
            // The location is reported separately.
            let what = text
                .rsplit_once(" at line ")
                .map(|(what, _)| what.to_owned());
            match what.unwrap_or(text).as_str() {
                "recursion limit exceeded" => TOO_DEEP.to_owned(),
                what => what.to_owned(),
            }
        }
    }
}

/// A value from the parser.
enum RawValue {
    Null,
    /// A plain scalar that looks like a number or a boolean: its text is taken from the file.
    Plain,
    Text(String),
    List(Vec<Spanned<RawValue>>),
    Map(Vec<(Spanned<String>, Spanned<RawValue>)>),
}

fn node(raw: Spanned<RawValue>, text: &str) -> SettingsNode {
    let value = match raw.value {
        RawValue::Null => SettingsValue::Null,
        RawValue::Text(text) => SettingsValue::Text(text),
        RawValue::Plain => {
            SettingsValue::Text(written(&raw.defined, text).unwrap_or_default().to_owned())
        }
        RawValue::List(items) => {
            SettingsValue::List(items.into_iter().map(|item| node(item, text)).collect())
        }
        RawValue::Map(entries) => {
            let entries = entries.into_iter().map(|(key, value)| {
                let key = SettingsKey {
                    line: key.referenced.line(),
                    text: key.value,
                };
                (key, node(value, text))
            });
            SettingsValue::Map(entries.collect())
        }
    };
    SettingsNode {
        line: raw.referenced.line(),
        value,
    }
}

/// The text in the file.
fn written<'text>(location: &serde_saphyr::Location, text: &'text str) -> Option<&'text str> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    text.get(start..start.checked_add(length)?)
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<RawValue, E> {
        Ok(RawValue::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawValue, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(RawValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawValue, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(RawValue::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(text: &str) -> Vec<(String, u64, SettingsValue)> {
        match parse(text).unwrap().value {
            SettingsValue::Map(entries) => entries
                .into_iter()
                .map(|(key, node)| (key.text, node.line, node.value))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn text(text: &str) -> SettingsValue {
        SettingsValue::Text(text.to_owned())
    }

    #[test]
    fn scalar_keeps_its_text() {
        for written in [
            "1.10",
            "0x10",
            "1_000",
            "no",
            "true",
            "10826",
            "1e3",
            "2027-01-31",
            "00:11",
            "-5",
            "99999999999999999999999999999999999999999999",
        ] {
            assert_eq!(
                map(&format!("é: 1\na: {written}\n"))[1],
                ("a".into(), 2, text(written))
            );
        }
        assert_eq!(map("\u{feff}a: 1.10\n")[0].2, text("1.10"));
        assert_eq!(map("a: 'null'\n")[0].2, text("null"));
        for nothing in ["", "~", "null"] {
            assert_eq!(map(&format!("a: {nothing}\n"))[0].2, SettingsValue::Null);
        }
    }

    #[test]
    fn lists_and_maps_have_line_numbers() {
        let entries = map("a:\n  - x\n  - {y: 1,\n     z: 2}\n");
        let SettingsValue::List(items) = &entries[0].2 else {
            panic!("{entries:?}")
        };
        assert_eq!(items[0].line, 2);
        let SettingsValue::Map(inner) = &items[1].value else {
            panic!("{items:?}")
        };
        assert_eq!((inner[1].0.line, inner[1].0.text.as_str()), (4, "z"));
    }

    #[test]
    fn unusable_yaml_is_an_error_with_its_line() {
        let bomb = "a: &a [1, 1]\nb: &b [*a, *a]\n";
        let deep = "[".repeat(100_000);
        let blocks: String = (0..100).map(|depth| " ".repeat(depth) + "a:\n").collect();
        for (bad, line, what) in [
            ("a: 1\nb: 2\na: 3\n", 3, "duplicate"),
            ("a: [\n", 1, ""),
            (bomb, 1, "anchors"),
            ("b: *a\n", 1, ""),
            ("a: 1\n---\nb: 2\n", 2, "document"),
            ("? [a]\n: b\n", 1, ""),
            ("a: 1\n<<: {b: 1}\n", 2, ""),
            ("a: !odd 1\n", 1, ""),
            (&deep, 1, "nested too deeply"),
            (&blocks, MAX_DEPTH as u64 + 1, "nested too deeply"),
        ] {
            let error = parse(bad).unwrap_err();
            let start: String = bad.chars().take(30).collect();
            assert_eq!(error.line, Some(line), "{start:?}: {error:?}");
            assert!(error.what.contains(what), "{start:?}: {error:?}");
            assert!(!error.what.contains("line "), "{start:?}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[-?:,\\[\\]{}#&*!|>'\"%@` \n\ta-c0-9.~<]{0,200}") {
            let _ = parse(&text);
        }
    }
}
