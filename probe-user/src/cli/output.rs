//! Standard output: records as text or JSON.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write as _};

use anstream::AutoStream;
use clap::ValueEnum;
use jiff::Timestamp;
use probe_model::{
    BindingRecord, CheckRecord, ClaimRecord, FindingOrigin, FindingRecord, UndecidedRecord, to_json,
};
use probe_render::{Terminal, text};
use serde::Serialize;

use super::status_line::StatusLine;
use crate::daemon::history::SequencedRecord;

/// The output format of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Text for people
    Human,
    /// One JSON object a line
    Json,
}

/// Writes records.
#[derive(Debug)]
pub struct Printer {
    output: OutputFormat,
    terminal: Terminal,
    out: BufWriter<AutoStream<Stdout>>,
    /// The status line, which shares the terminal with the output.
    pub status: StatusLine,
}

impl Printer {
    /// A printer for standard output.
    pub fn new(output: OutputFormat, origin: FindingOrigin) -> Self {
        Self {
            output,
            terminal: Terminal::of_stdout(origin),
            out: BufWriter::new(anstream::stdout()),
            status: StatusLine::default(),
        }
    }

    /// Writes a finding, with its number if it has one.
    pub fn finding(&mut self, record: &FindingRecord, sequence: Option<u64>) -> io::Result<()> {
        self.status.clear();
        match (self.output, sequence) {
            (OutputFormat::Human, _) => self.terminal.finding(&mut self.out, record),
            (OutputFormat::Json, Some(sequence)) => {
                self.json(&SequencedRecord { sequence, record })
            }
            (OutputFormat::Json, None) => self.json(record),
        }
    }

    /// Writes a claim.
    pub fn claim(&mut self, record: &ClaimRecord) -> io::Result<()> {
        self.status.clear();
        match self.output {
            OutputFormat::Human => self.terminal.claim(&mut self.out, record),
            OutputFormat::Json => self.json(record),
        }
    }

    /// Writes a takeover that is not decided at the end of the input.
    pub fn undecided(&mut self, record: &UndecidedRecord) -> io::Result<()> {
        self.status.clear();
        self.line(record, &text::undecided(record))
    }

    /// Writes a binding.
    pub fn binding(&mut self, record: &BindingRecord) -> io::Result<()> {
        match self.output {
            OutputFormat::Human => self
                .terminal
                .binding(&mut self.out, record, Timestamp::now()),
            OutputFormat::Json => self.json(record),
        }
    }

    /// Writes the result of a check. In text, `expected` is shown, and `brief` omits details of expected results.
    pub fn check(&mut self, record: &CheckRecord, expected: &str, brief: bool) -> io::Result<()> {
        self.status.clear();
        match self.output {
            OutputFormat::Human => self.terminal.check(&mut self.out, record, expected, brief),
            OutputFormat::Json => self.json(record),
        }
    }

    /// Writes a record as JSON, or this line as text.
    pub fn line(&mut self, record: &impl Serialize, text: &str) -> io::Result<()> {
        match self.output {
            OutputFormat::Human => writeln!(self.out, "{text}"),
            OutputFormat::Json => self.json(record),
        }
    }

    /// Whether the output is text for people.
    pub fn is_human_output(&self) -> bool {
        self.output == OutputFormat::Human
    }

    /// Flushes the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn json(&mut self, record: &impl Serialize) -> io::Result<()> {
        writeln!(self.out, "{}", to_json(record))
    }
}

/// Whether the reader closed the output, which is no error.
pub fn is_closed(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

/// Prints a message on standard error.
pub fn print_status(text: &str) {
    // Errors are ignored: standard error may be closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
