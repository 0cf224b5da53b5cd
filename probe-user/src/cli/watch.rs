//! `probe watch`: findings live.

use std::{io::Write as _, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::sync::broadcast::error::RecvError;

use super::{
    Exit,
    session::{Session, block_on, init_logging, stop_signal},
    source::{SourceArguments, duration},
};
use crate::{
    detect::FindingKind,
    report::{FindingRecord, Terminal},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    source: SourceArguments,

    /// How findings are written
    #[arg(short, long, value_enum, default_value_t = Output::Human)]
    output: Output,

    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,

    /// Stop after this many findings
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// End with status 1 if a conflict was found
    #[arg(long)]
    fail_on_conflict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for people
    Human,
    /// One JSON object a line
    Json,
}

pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    init_logging("warn");
    block_on(watch(arguments))
}

async fn watch(arguments: Arguments) -> anyhow::Result<Exit> {
    let session = Session::start(&arguments.source).await?;
    let mut findings = session.monitor.findings();
    let mut stop = std::pin::pin!(stop_signal());
    let mut timeout = std::pin::pin!(elapsed(arguments.duration));
    let mut seen = FindingKind::ALL
        .iter()
        .map(|&kind| (kind, 0))
        .collect::<Vec<_>>();
    let mut total = 0;

    while arguments.count.is_none_or(|count| total < count) {
        let record = tokio::select! {
            signal = &mut stop => {
                signal.context("cannot wait for signals")?;
                break;
            }
            () = &mut timeout => break,
            record = findings.recv() => record,
        };
        match record {
            Ok(record) => {
                total += 1;
                seen[usize::from(record.finding.number())].1 += 1;
                match write(arguments.output, &record) {
                    Ok(()) => {}
                    // Whoever read has seen enough: that is no error.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
                    Err(error) => return Err(error).context("cannot write findings"),
                }
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "findings came faster than they could be written");
            }
            Err(RecvError::Closed) => break,
        }
    }
    session.end().await?;
    if arguments.output == Output::Human {
        // Standard error, because standard output may be a file of findings.
        let _ = writeln!(std::io::stderr().lock(), "{}", "");
    }
    let conflicts = seen[usize::from(FindingKind::Conflict.number())].1;
    Ok(if arguments.fail_on_conflict && conflicts > 0 {
        Exit::Conflict
    } else {
        Exit::Fine
    })
}

fn write(output: Output, record: &FindingRecord) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    match output {
        Output::Human => {
            Terminal::of_stdout(crate::report::Origin::Attached).finding(&mut out, record)?
        }
        Output::Json => writeln!(out, "{}", record.to_json())?,
    }
    out.flush()
}

async fn elapsed(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
