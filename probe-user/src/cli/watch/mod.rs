//! `probe watch`: findings live, or from a capture.

mod feed;
mod live;
mod read;
mod write;

use std::{io, path::PathBuf, time::Duration};

use clap::Args;
use ipnet::IpNet;
use jiff::Timestamp;
use probe_model::{BindingRecord, ClaimRecord, FindingOrigin, FindingRecord, UndecidedRecord};

use super::{
    Exit,
    filter::{AddressArguments, FindingArguments},
    output::{OutputFormat, Printer, is_closed, print_status},
    session::{block_on, init_logging},
    source::{SourceArguments, duration},
    summary::FindingSummary,
};
use crate::{daemon::serve::DEFAULT_PATH, filter::RecordFilter};

/// The value that means no socket.
pub const NO_SOCKET: &str = "none";

#[derive(Debug, Args)]
pub struct WatchArguments {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Human)]
    output: OutputFormat,

    /// Show claims too, as they are observed
    #[arg(long)]
    claims: bool,

    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,

    /// Stop after this many findings
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Exit 1 if a conflict was found, 4 if a takeover was not decided at the end
    #[arg(long)]
    fail_on_conflict: bool,

    /// Write the frames behind the findings to this file, as pcapng; `--read` gives the same findings again
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Read frames from this capture instead of the network: pcap or pcapng of an Ethernet interface or of `any`, also
    /// compressed with gzip or zstd; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["write", "duration"])]
    read: Option<PathBuf>,

    /// Socket of the daemon, which is used if it responds; `none` always attaches in this process. Without the daemon
    /// no ARP probes are sent
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,

    #[command(flatten)]
    addresses: AddressArguments,

    #[command(flatten)]
    findings: FindingArguments,

    // Last, because its help heading applies to all following flags.
    #[command(flatten, next_help_heading = "Interfaces")]
    source: SourceArguments,
}

pub fn run(arguments: &WatchArguments) -> anyhow::Result<Exit> {
    init_logging("warn");
    match &arguments.read {
        Some(file) => read::run(file, arguments),
        None => block_on(live::run(arguments)),
    }
}

impl WatchArguments {
    /// The filter for the output. It includes the filter of the kernel side, because a daemon or a capture does not
    /// apply it.
    fn filter(&self) -> anyhow::Result<RecordFilter> {
        let selection = self.source.policy().selection;
        let places = RecordFilter {
            interfaces: selection.include,
            excluded: selection.exclude,
            ..RecordFilter::default()
        };
        let mut filter = self.findings.narrow(self.addresses.narrow(places));
        if filter.networks.is_empty() {
            let networks = self.source.networks()?;
            filter.networks = networks.into_iter().map(IpNet::V4).collect();
        }
        Ok(filter)
    }
}

/// Prints and counts items: the common part of live watching and reading.
struct WatchPrinter {
    printer: Printer,
    filter: RecordFilter,
    summary: FindingSummary,
    limit: Option<u64>,
    fail_on_conflict: bool,
    /// The reader of the output has disconnected.
    closed: bool,
}

impl WatchPrinter {
    fn new(arguments: &WatchArguments, origin: FindingOrigin) -> anyhow::Result<Self> {
        Ok(Self {
            printer: Printer::new(arguments.output, origin),
            filter: arguments.filter()?,
            summary: FindingSummary::default(),
            limit: arguments.count,
            fail_on_conflict: arguments.fail_on_conflict,
            closed: false,
        })
    }

    fn finding(&mut self, record: &FindingRecord, sequence: Option<u64>) -> io::Result<()> {
        self.summary.record_end(record);
        if self.is_done() || !self.filter.matches_finding(record) {
            return Ok(());
        }
        self.summary.count(record);
        let written = self.printer.finding(record, sequence);
        self.ignore_broken_pipe(written)
    }

    fn claim(&mut self, record: &ClaimRecord) -> io::Result<()> {
        if self.is_done() || !self.filter.matches_claim(record) {
            return Ok(());
        }
        let written = self.printer.claim(record);
        self.ignore_broken_pipe(written)
    }

    /// Reports the pending takeovers, even beyond `--count`.
    fn undecided(&mut self, bindings: &[BindingRecord], end: Timestamp) -> io::Result<()> {
        let mut wanted = bindings.to_vec();
        wanted.retain(|binding| self.filter.matches_binding(binding));
        for record in wanted
            .iter()
            .filter_map(|binding| UndecidedRecord::new(binding, end))
        {
            self.summary.add_undecided();
            if !self.closed {
                let written = self.printer.undecided(&record);
                self.ignore_broken_pipe(written)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.printer.flush();
        self.ignore_broken_pipe(flushed)
    }

    /// Whether the limit of findings is reached.
    fn is_done(&self) -> bool {
        self.closed
            || self
                .limit
                .is_some_and(|limit| self.summary.total() >= limit)
    }

    /// Prints the summary, and returns the exit status.
    fn end(mut self) -> io::Result<Exit> {
        self.flush()?;
        self.printer.status.clear();
        if self.printer.is_human_output() {
            // Standard error, because standard output may be a file of findings.
            print_status(&self.summary.summary());
        }
        Ok(self.summary.exit(self.fail_on_conflict))
    }

    fn ignore_broken_pipe(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if is_closed(&error) => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }
}
