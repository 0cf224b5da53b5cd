//! A section of results, printed and written to `docs/benchmarks.md`.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

/// A table with its description.
pub struct Section {
    title: &'static str,
    /// The method, in a sentence or two.
    method: String,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    aims: Vec<BenchTarget>,
    notes: Vec<String>,
}

/// A target and its result.
struct BenchTarget {
    target: String,
    result: String,
    met: bool,
}

impl Section {
    pub fn new(title: &'static str, method: impl Into<String>, header: &[&'static str]) -> Self {
        Self {
            title,
            method: method.into(),
            header: header.to_vec(),
            rows: Vec::new(),
            aims: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn target(&mut self, target: impl Into<String>, result: impl Into<String>, met: bool) {
        self.aims.push(BenchTarget {
            target: target.into(),
            result: result.into(),
            met,
        });
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The section as Markdown that is readable in a terminal, too.
    pub fn text(&self, shape: &str) -> String {
        let mut text = format!(
            "## {}\n\n{}\nMeasured on: {shape}.\n\n",
            self.title, self.method
        );
        table(&mut text, &self.header, &self.rows);
        if !self.aims.is_empty() {
            let rows: Vec<_> = self
                .aims
                .iter()
                .map(|target| {
                    let met = if target.met { "met" } else { "**missed**" };
                    vec![target.target.clone(), target.result.clone(), met.to_owned()]
                })
                .collect();
            text.push('\n');
            table(&mut text, &["target", "result", ""], &rows);
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }
}

fn table(text: &mut String, header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([header[column].chars().count(), 3])
            .max()
            .unwrap_or(3)
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let mut line = |cells: &[String]| {
        text.push('|');
        for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let _ = if column == 0 {
                write!(text, " {cell:<width$} |")
            } else {
                write!(text, " {cell:>width$} |")
            };
        }
        text.push('\n');
    };
    line(&header.iter().map(ToString::to_string).collect::<Vec<_>>());
    let rule: Vec<_> = widths
        .iter()
        .enumerate()
        .map(|(column, &width)| {
            if column == 0 {
                "-".repeat(width)
            } else {
                format!("{}:", "-".repeat(width - 1))
            }
        })
        .collect();
    line(&rule);
    for row in rows {
        line(row);
    }
}

/// Replaces the section in the document, or appends it.
pub fn write(name: &str, section: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    let document =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(&path, replaced(&document, name, section))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(document: &str, name: &str, section: &str) -> String {
    let (begin, end) = (
        format!("<!-- generated: {name} -->\n"),
        format!("<!-- end: {name} -->\n"),
    );
    let generated = format!("{begin}{}\n{end}", section.trim_end());
    match (document.find(&begin), document.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            [&document[..from], &generated, &document[to + end.len()..]].concat()
        }
        _ => [document, "\n", &generated].concat(),
    }
}
