//! YAML and JSON as trees with line and column of each value.
//!
//! An invalid document does not hide the others. Aliases refer to their anchors and are never copied, and a tree is
//! bounded in depth and size, so a small file cannot become a large one.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
};

use granit_parser::{Event, Parser, ScalarStyle, Span, options};

/// Maximum depth of a document.
const MAX_DEPTH: usize = 64;
/// Maximum number of nodes of a document.
const MAX_NODES: usize = 1_000_000;
/// Maximum number of reported duplicate keys.
const MAX_DUPLICATES: usize = 20;
/// Maximum number of characters of a key in a message.
const MAX_KEY_CHARS: usize = 60;
/// Maximum number of merged mappings (`<<`) that a lookup follows.
const MAX_MERGES: usize = 64;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct YamlMark {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// Why a document is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestYamlError {
    /// A YAML syntax error.
    #[error("not YAML: {0}")]
    Syntax(String),
    /// A YAML syntax error in a document with template expressions.
    #[error(
        "a template, not YAML: let Helm fill it in and read the result: \
         helm template CHART | probe pools check -"
    )]
    Template,
    /// The document has too many nodes.
    #[error("too large: a document may have {MAX_NODES} nodes")]
    TooLarge,
    /// A mapping has a duplicate key, and parsers differ in which value they use.
    #[error(
        "duplicate key {key:?}, first on line {first}: kubectl rejects it or uses the last value; remove one"
    )]
    Duplicate {
        /// The key.
        key: String,
        /// The line of the first occurrence.
        first: usize,
    },
}

impl ManifestYamlError {
    /// The error for a key that already occurred on line `first`.
    pub fn duplicate(key: &str, first: usize) -> Self {
        Self::Duplicate {
            key: key.chars().take(MAX_KEY_CHARS).collect(),
            first,
        }
    }
}

/// An invalid document, with the location of the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDocument {
    /// Its location.
    pub mark: YamlMark,
    /// The error.
    pub error: ManifestYamlError,
}

/// A non-empty document.
#[derive(Debug)]
pub struct YamlDocument {
    nodes: Vec<YamlNode>,
    /// The number of lines before it, if it is nested in another document.
    offset: usize,
}

#[derive(Debug)]
struct YamlNode {
    mark: YamlMark,
    content: YamlContent,
}

#[derive(Debug)]
enum YamlContent {
    Scalar {
        text: String,
        style: ScalarStyle,
    },
    Sequence(Vec<usize>),
    /// Key, value, key, value.
    Mapping(Vec<usize>),
    Alias(usize),
}

/// A value in a document.
#[derive(Clone, Copy, Debug)]
pub struct YamlValue<'a> {
    document: &'a YamlDocument,
    index: usize,
}

/// The kind of a value.
#[derive(Debug)]
pub enum YamlKind<'a> {
    /// A scalar: string, number, boolean or null.
    Scalar {
        /// The text.
        text: &'a str,
        /// Whether it is written without quotes, on one line.
        plain: bool,
    },
    /// A list: [`YamlValue::items`].
    Sequence,
    /// Keys and values: [`YamlValue::entries`].
    Mapping,
}

/// Parses all documents of a text; empty ones are skipped.
pub fn documents(text: &str) -> Vec<Result<YamlDocument, InvalidDocument>> {
    let options = options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        // kubectl writes long annotation keys as JSON.
        simple_key_max_lookahead: 64 * 1024,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    let mut builder = DocumentBuilder::default();
    let mut start = 1;
    while let Some(event) = parser.next_event() {
        let invalid = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((Event::DocumentStart(..), span)) => {
                start = span.start.line();
                builder = DocumentBuilder::default();
                continue;
            }
            Ok((Event::DocumentEnd, _)) => {
                documents.extend(std::mem::take(&mut builder).finish().map(Ok));
                continue;
            }
            Ok((event, span)) => match builder.take(event, &span) {
                Ok(()) => continue,
                Err(TooLarge) => InvalidDocument {
                    mark: mark(&span),
                    error: ManifestYamlError::TooLarge,
                },
            },
            Err(error) => {
                let at = error.marker();
                let error = if is_template(text, start) {
                    ManifestYamlError::Template
                } else {
                    ManifestYamlError::Syntax(error.info())
                };
                InvalidDocument {
                    mark: YamlMark {
                        line: at.line(),
                        column: at.col() + 1,
                    },
                    error,
                }
            }
        };
        documents.push(Err(invalid));
        builder = DocumentBuilder::default();
        // After an error there is nothing left to read, or the next event contains the error.
        match parser.proceed_next_document() {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    documents
}

/// Whether a text is a word in lower case, upper case or with an initial capital: `true`, `TRUE`, `True`, and nothing
/// else.
fn is_cased_like_yaml(text: &str, word: &str) -> bool {
    let rest = text.get(1..).unwrap_or_default();
    let is_small = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_large = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase());
    text.eq_ignore_ascii_case(word) && (is_small(rest) || is_large(text))
}

/// Whether the document that starts on this line contains template expressions.
fn is_template(text: &str, start: usize) -> bool {
    let mut lines = text.lines().skip(start.saturating_sub(1));
    let first = lines.next();
    let rest = lines.take_while(|line| !line.starts_with("---"));
    first
        .into_iter()
        .chain(rest)
        .any(|line| line.contains("{{"))
}

fn mark(span: &Span) -> YamlMark {
    YamlMark {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

struct TooLarge;

#[derive(Default)]
struct DocumentBuilder {
    nodes: Vec<YamlNode>,
    /// The open collections.
    open: Vec<usize>,
    anchors: HashMap<usize, usize>,
}

impl DocumentBuilder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), TooLarge> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let content = YamlContent::Scalar {
                    text: Cow::into_owned(text),
                    // A tag can turn a number or null into a string.
                    style: if tag.is_some() {
                        ScalarStyle::DoubleQuoted
                    } else {
                        style
                    },
                };
                self.add(content, anchor, span)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                let index = self.add(YamlContent::Sequence(Vec::new()), anchor, span)?;
                self.open.push(index);
            }
            Event::MappingStart(_, anchor, _) => {
                let index = self.add(YamlContent::Mapping(Vec::new()), anchor, span)?;
                self.open.push(index);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::Alias(anchor) => {
                // The parser resolves anchors before it emits an alias.
                let target = self.anchors.get(&anchor).copied().unwrap_or_default();
                self.add(YamlContent::Alias(target), 0, span)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, content: YamlContent, anchor: usize, span: &Span) -> Result<usize, TooLarge> {
        let index = self.nodes.len();
        if index >= MAX_NODES {
            return Err(TooLarge);
        }
        let parent = self.open.last().and_then(|&open| self.nodes.get_mut(open));
        if let Some(YamlContent::Sequence(children) | YamlContent::Mapping(children)) =
            parent.map(|parent| &mut parent.content)
        {
            children.push(index);
        }
        if anchor != 0 {
            self.anchors.insert(anchor, index);
        }
        self.nodes.push(YamlNode {
            mark: mark(span),
            content,
        });
        Ok(index)
    }

    fn finish(self) -> Option<YamlDocument> {
        (!self.nodes.is_empty()).then_some(YamlDocument {
            nodes: self.nodes,
            offset: 0,
        })
    }
}

impl YamlDocument {
    /// The root value.
    pub fn root(&self) -> YamlValue<'_> {
        YamlValue {
            document: self,
            index: 0,
        }
    }

    /// All scalars including keys, in document order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter_map(|node| match &node.content {
            YamlContent::Scalar { text, .. } => Some(text.as_str()),
            YamlContent::Sequence(_) | YamlContent::Mapping(_) | YamlContent::Alias(_) => None,
        })
    }

    /// Duplicate keys of mappings, up to a limit.
    pub fn duplicates(&self) -> Vec<InvalidDocument> {
        let mut duplicates = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if !matches!(node.content, YamlContent::Mapping(_)) {
                continue;
            }
            let mapping = self.root().at(index);
            let mut known = HashMap::new();
            for (key, _) in mapping.entries() {
                let YamlContent::Scalar { text, .. } = key.content() else {
                    continue;
                };
                match known.entry(text) {
                    Entry::Vacant(entry) => drop(entry.insert(key.mark().line)),
                    Entry::Occupied(first) => duplicates.push(InvalidDocument {
                        mark: key.mark(),
                        error: ManifestYamlError::duplicate(text, *first.get()),
                    }),
                }
                if duplicates.len() == MAX_DUPLICATES {
                    return duplicates;
                }
            }
        }
        duplicates
    }

    /// Marks the document as nested in another one, `offset` lines below its start.
    #[must_use]
    pub fn nested(self, offset: usize) -> Self {
        Self { offset, ..self }
    }
}

impl<'a> YamlValue<'a> {
    /// Its line and column.
    pub fn mark(self) -> YamlMark {
        let mark = self.document.nodes[self.index].mark;
        YamlMark {
            line: mark.line + self.document.offset,
            ..mark
        }
    }

    /// The kind of the value; aliases are resolved.
    pub fn kind(self) -> YamlKind<'a> {
        match self.content() {
            YamlContent::Scalar { text, style } => YamlKind::Scalar {
                text,
                plain: *style == ScalarStyle::Plain,
            },
            YamlContent::Mapping(_) => YamlKind::Mapping,
            // An alias refers to a node, never to another alias.
            YamlContent::Sequence(_) | YamlContent::Alias(_) => YamlKind::Sequence,
        }
    }

    /// Its text, if it is a scalar other than null.
    pub fn text(self) -> Option<&'a str> {
        match self.content() {
            YamlContent::Scalar {
                text,
                style: ScalarStyle::Plain,
            } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") => None,
            YamlContent::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether the value is null.
    pub fn is_null(self) -> bool {
        matches!(self.content(), YamlContent::Scalar { .. }) && self.text().is_none()
    }

    /// The boolean value by the rules of YAML 1.1, which kubectl uses. A quoted value is a string.
    pub fn boolean(self) -> Option<bool> {
        const YES: [&str; 4] = ["true", "yes", "on", "y"];
        const NO: [&str; 4] = ["false", "no", "off", "n"];
        let YamlContent::Scalar {
            text,
            style: ScalarStyle::Plain,
        } = self.content()
        else {
            return None;
        };
        let is_in = |words: [&str; 4]| words.iter().any(|word| is_cased_like_yaml(text, word));
        match (is_in(YES), is_in(NO)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// Its items, if it is a list.
    pub fn items(self) -> Option<impl Iterator<Item = YamlValue<'a>>> {
        match self.content() {
            YamlContent::Sequence(items) => Some(items.iter().map(move |&index| self.at(index))),
            _ => None,
        }
    }

    /// Its keys and values; empty unless it is a mapping.
    pub fn entries(self) -> impl Iterator<Item = (YamlValue<'a>, YamlValue<'a>)> {
        let children: &[usize] = match self.content() {
            YamlContent::Mapping(children) => children,
            _ => &[],
        };
        let pairs = children.chunks_exact(2);
        pairs.map(move |pair| (self.at(pair[0]), self.at(pair[1])))
    }

    /// Whether it is a mapping.
    pub fn is_mapping(self) -> bool {
        matches!(self.content(), YamlContent::Mapping(_))
    }

    /// The value of a key, including merged mappings.
    pub fn get(self, key: &str) -> Option<YamlValue<'a>> {
        self.get_within(key, &mut { MAX_MERGES })
    }

    /// The value at a path of keys.
    pub fn get_path(self, keys: &[&str]) -> Option<YamlValue<'a>> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The number of lines before the text of a block scalar; `None` for text on the line of its key.
    pub fn block_offset(self) -> Option<usize> {
        match self.content() {
            YamlContent::Scalar {
                text,
                style: ScalarStyle::Literal,
            } => {
                // The mark is the first non-empty line.
                let empty = text.chars().take_while(|&letter| letter == '\n').count();
                let line = self.resolved().mark().line;
                Some(line.saturating_sub(empty + 1))
            }
            _ => None,
        }
    }

    fn get_within(self, key: &str, budget: &mut usize) -> Option<YamlValue<'a>> {
        let mut entries = self.entries();
        if let Some((_, value)) = entries.find(|(name, _)| name.text() == Some(key)) {
            return Some(value);
        }
        let mut look = |merged: YamlValue<'a>| {
            *budget = budget.checked_sub(1)?;
            merged.get_within(key, budget)
        };
        let mut merges = self.entries().filter(|(name, _)| name.text() == Some("<<"));
        merges.find_map(|(_, merged)| match merged.items() {
            Some(mut items) => items.find_map(&mut look),
            None => look(merged),
        })
    }

    fn resolved(self) -> Self {
        match self.document.nodes[self.index].content {
            YamlContent::Alias(target) => self.at(target),
            _ => self,
        }
    }

    fn content(self) -> &'a YamlContent {
        &self.document.nodes[self.resolved().index].content
    }

    fn at(self, index: usize) -> Self {
        Self { index, ..self }
    }
}

#[cfg(test)]
mod tests;
