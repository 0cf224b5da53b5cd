//! `probe history`: the findings in the memory of the daemon.

use std::str::FromStr;

use anyhow::bail;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use probe_model::FindingRecord;
use serde::Deserialize;

use super::{
    Exit,
    daemon::DaemonArguments,
    filter::{AddressArguments, FindingArguments, InterfaceArguments},
    output::print_status,
};
use crate::daemon::{history::SequencedRecord, serve::MissedRecord};

#[derive(Debug, Args)]
pub struct HistoryArguments {
    #[command(flatten)]
    daemon: DaemonArguments,

    /// Only findings since: a time span (2h, 3d), a time (2026-11-20T02:00:00Z), or the number of a finding
    #[arg(long, value_name = "SINCE", default_value = "0")]
    since: SinceArgument,

    #[command(flatten)]
    interfaces: InterfaceArguments,

    #[command(flatten)]
    addresses: AddressArguments,

    #[command(flatten)]
    findings: FindingArguments,
}

/// The value of `--since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SinceArgument {
    Ago(SignedDuration),
    Time(Timestamp),
    Sequence(u64),
}

impl FromStr for SinceArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Ok(sequence) = text.parse() {
            return Ok(Self::Sequence(sequence));
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let span = text.parse::<jiff::Span>().ok();
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        match span.and_then(|span| span.to_duration(days).ok()) {
            Some(ago) if !ago.is_negative() => Ok(Self::Ago(ago)),
            _ => bail!("not a time span like 2h, a time like 2026-11-20T02:00:00Z, or a number"),
        }
    }
}

impl SinceArgument {
    /// The parameter of the request to the daemon.
    fn parameter(self, now: Timestamp) -> String {
        match self {
            Self::Sequence(sequence) => sequence.to_string(),
            Self::Time(time) => time.to_string(),
            Self::Ago(ago) => {
                let time = now.checked_sub(ago).unwrap_or(Timestamp::MIN);
                time.to_string()
            }
        }
    }
}

/// A line of the daemon's response.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum HistoryLine {
    /// The number of findings that are missing.
    Missed(MissedRecord),
    /// A finding.
    Finding(Box<SequencedRecord<FindingRecord>>),
}

pub fn run(arguments: &HistoryArguments) -> anyhow::Result<Exit> {
    let chosen = arguments.interfaces.filter();
    let filter = arguments
        .findings
        .narrow(arguments.addresses.narrow(chosen));
    let query = filter.to_query();
    let target = format!(
        "/v1/findings{query}{}follow=false&since={}",
        if query.is_empty() { '?' } else { '&' },
        arguments.since.parameter(Timestamp::now()),
    );
    let mut number = 0;
    let printer = arguments
        .daemon
        .print_list(&target, |printer, line| match line {
            HistoryLine::Finding(finding) => {
                number += 1;
                printer.finding(&finding.record, Some(finding.sequence))
            }
            HistoryLine::Missed(missed) => {
                let text = format!("({} findings are not in memory)", missed.missed);
                printer.line(&missed, &text)
            }
        })?;
    if number == 0 && printer.is_human_output() {
        print_status("no finding matches");
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_span_a_time_or_a_number() {
        let now: Timestamp = "2026-11-20T02:00:00Z".parse().unwrap();
        for (text, parameter) in [
            ("0", "0"),
            ("17", "17"),
            ("2h", "2026-11-20T00:00:00Z"),
            ("3d", "2026-11-17T02:00:00Z"),
            ("1m 30s", "2026-11-20T01:58:30Z"),
            ("2026-11-20T01:00:00+01:00", "2026-11-20T00:00:00Z"),
        ] {
            assert_eq!(
                text.parse::<SinceArgument>().unwrap().parameter(now),
                parameter,
                "{text}"
            );
        }
        for bad in ["", "yesterday", "-2h", "-1"] {
            assert!(bad.parse::<SinceArgument>().is_err(), "{bad}");
        }
    }
}
