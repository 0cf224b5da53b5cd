//! YAML and JSON as trees that know their places.
//!
//! A document that is broken does not hide the others. Aliases point to what they stand for and are never
//! copied, and a tree is bounded in depth and size, so a small file cannot become a large one.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
};

use granit_parser::{Event, Parser, ScalarStyle, Span, options};

/// Deeper documents are refused: no manifest comes near.
const MAX_DEPTH: usize = 64;
/// Larger documents are refused.
const MAX_NODES: usize = 1_000_000;
/// Of keys that are there twice, so many are told.
const MAX_DUPLICATES: usize = 20;
/// Of a key in a message, so many letters are shown.
const MAX_KEY_CHARS: usize = 60;
/// How many merged mappings (`<<`) are looked into for one value.
const MAX_MERGES: usize = 64;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct YamlMark {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestYamlError {
    /// It breaks the rules of YAML.
    #[error("not YAML: {0}")]
    Syntax(String),
    /// It breaks them, and holds what is filled in by a template engine.
    #[error(
        "a template, not YAML: let Helm fill it in and read the result: \
         helm template CHART | probe pools check -"
    )]
    Template,
    /// It has more parts than are read.
    #[error("too large: a document may have {MAX_NODES} nodes")]
    TooLarge,
    /// A mapping has a key twice, and readers differ in which of the two they take.
    #[error(
        "the key {key:?} is there twice, first in line {first}: kubectl refuses that, or takes the last; leave one"
    )]
    Duplicate {
        /// The key.
        key: String,
        /// The line of the first.
        first: usize,
    },
}

impl ManifestYamlError {
    /// A key that was there already in that line.
    pub fn duplicate(key: &str, first: usize) -> Self {
        Self::Duplicate {
            key: key.chars().take(MAX_KEY_CHARS).collect(),
            first,
        }
    }
}

/// A document that cannot be read, and where that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDocument {
    /// Where.
    pub mark: YamlMark,
    /// Why.
    pub error: ManifestYamlError,
}

/// A document: never empty.
#[derive(Debug)]
pub struct YamlDocument {
    nodes: Vec<YamlNode>,
    /// How many lines come before it where it is part of another.
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

/// A part of a document.
#[derive(Clone, Copy, Debug)]
pub struct YamlValue<'a> {
    document: &'a YamlDocument,
    index: usize,
}

/// What a part is.
#[derive(Debug)]
pub enum YamlShape<'a> {
    /// A word, number or text.
    Scalar {
        /// The text.
        text: &'a str,
        /// Whether it stands there without quotes, on one line.
        plain: bool,
    },
    /// A list: [`YamlValue::items`].
    Sequence,
    /// Keys and values: [`YamlValue::entries`].
    Mapping,
}

/// Reads all documents of a text; empty ones are left out.
pub fn documents(text: &str) -> Vec<Result<YamlDocument, InvalidDocument>> {
    let options = options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        // kubectl writes long keys of annotations in JSON.
        simple_key_max_lookahead: 64 * 1024,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    let mut builder = DocumentBuilder::default();
    let mut begins = 1;
    while let Some(event) = parser.next_event() {
        let broken = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((Event::DocumentStart(..), span)) => {
                begins = span.start.line();
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
                let error = if is_template(text, begins) {
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
        documents.push(Err(broken));
        builder = DocumentBuilder::default();
        // Where it cannot go on there is nothing left to read, or the next event says why.
        match parser.proceed_next_document() {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    documents
}

/// Whether a text is a word, all small, all large, or with a large beginning: `true`, `TRUE`, `True`, and nothing else.
fn is_cased_like_yaml(text: &str, word: &str) -> bool {
    let rest = text.get(1..).unwrap_or_default();
    let is_small = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_large = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase());
    text.eq_ignore_ascii_case(word) && (is_small(rest) || is_large(text))
}

/// Whether the document that begins in this line has something for a template engine.
fn is_template(text: &str, begins: usize) -> bool {
    let mut lines = text.lines().skip(begins.saturating_sub(1));
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
    /// The collections that are open.
    open: Vec<usize>,
    anchors: HashMap<usize, usize>,
}

impl DocumentBuilder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), TooLarge> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let content = YamlContent::Scalar {
                    text: Cow::into_owned(text),
                    // A tag makes a text of what would be a number or nothing without.
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
                // The parser knows all anchors before it gives an alias.
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
    /// All of it.
    pub fn root(&self) -> YamlValue<'_> {
        YamlValue {
            document: self,
            index: 0,
        }
    }

    /// Its texts, keys included, in their order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter_map(|node| match &node.content {
            YamlContent::Scalar { text, .. } => Some(text.as_str()),
            YamlContent::Sequence(_) | YamlContent::Mapping(_) | YamlContent::Alias(_) => None,
        })
    }

    /// The keys that a mapping has already, some of them if they are many.
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

    /// As part of another document, this many lines below its beginning.
    #[must_use]
    pub fn nested(self, offset: usize) -> Self {
        Self { offset, ..self }
    }
}

impl<'a> YamlValue<'a> {
    /// Where it begins.
    pub fn mark(self) -> YamlMark {
        let mark = self.document.nodes[self.index].mark;
        YamlMark {
            line: mark.line + self.document.offset,
            ..mark
        }
    }

    /// What it is; behind an alias, what that stands for.
    pub fn shape(self) -> YamlShape<'a> {
        match self.content() {
            YamlContent::Scalar { text, style } => YamlShape::Scalar {
                text,
                plain: *style == ScalarStyle::Plain,
            },
            YamlContent::Mapping(_) => YamlShape::Mapping,
            // An alias stands for a node, never for an alias.
            YamlContent::Sequence(_) | YamlContent::Alias(_) => YamlShape::Sequence,
        }
    }

    /// Its text, if it has one: null is none.
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

    /// Whether nothing is there: null.
    pub fn is_null(self) -> bool {
        matches!(self.content(), YamlContent::Scalar { .. }) && self.text().is_none()
    }

    /// Whether it says true or false, in the words of YAML 1.1, which is what kubectl reads. In quotes it is a text.
    pub fn truth(self) -> Option<bool> {
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

    /// Its keys and values: none unless it is a mapping.
    pub fn entries(self) -> impl Iterator<Item = (YamlValue<'a>, YamlValue<'a>)> {
        let children: &[usize] = match self.content() {
            YamlContent::Mapping(children) => children,
            _ => &[],
        };
        let pairs = children.chunks_exact(2);
        pairs.map(move |pair| (self.at(pair[0]), self.at(pair[1])))
    }

    /// Whether it has keys and values.
    pub fn is_mapping(self) -> bool {
        matches!(self.content(), YamlContent::Mapping(_))
    }

    /// The value of a key, those that are merged in included.
    pub fn get(self, key: &str) -> Option<YamlValue<'a>> {
        self.get_within(key, &mut { MAX_MERGES })
    }

    /// The value at the end of a way of keys.
    pub fn get_path(self, keys: &[&str]) -> Option<YamlValue<'a>> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The line in which the text of a block scalar begins, less one; `None` for text on a line of its key.
    pub fn block_offset(self) -> Option<usize> {
        match self.content() {
            YamlContent::Scalar {
                text,
                style: ScalarStyle::Literal,
            } => {
                // The place is that of the first line that is not empty.
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
