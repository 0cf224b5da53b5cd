//! Findings as lines for people.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use super::{FindingRecord, OwnerRecord};
use crate::detect::{Evidence, FindingKind, Severity};

/// Writes one finding: a line, and for disputes one more for each owner.
pub fn write(out: &mut impl Write, record: &FindingRecord) -> io::Result<()> {
    let style = style(record.severity);
    let place = match record.vlan.to_string().as_str() {
        "0" => record.interface.clone(),
        vlan => format!("{} vlan {vlan}", record.interface),
    };
    let macs = record.owners.iter().map(macs).collect::<Vec<_>>();
    write!(
        out,
        "{}  {style}{:<17}{style:#}  {:<15}  {place}",
        time_of_day(record.time),
        record.finding,
        record.ip,
    )?;
    if !record.finding.is_dispute() || macs.len() < 2 {
        writeln!(out, "  {}", macs.join(", "))?;
        return Ok(());
    }
    writeln!(out)?;
    if let Some(evidence) = record.evidence {
        writeln!(out, "{:10}{}", "", in_words(evidence))?;
    }
    for (owner, macs) in record.owners.iter().zip(macs) {
        writeln!(
            out,
            "{:10}{macs}  {}{}, {}, last {}",
            "",
            owner.role,
            if owner.local { " (this host)" } else { "" },
            claims(owner.claims),
            time_of_day(owner.last_seen),
        )?;
    }
    if let Some(hint) = record.hint {
        writeln!(out, "{:10}hint: {hint}", "")?;
    }
    Ok(())
}

fn macs(owner: &OwnerRecord) -> String {
    owner
        .macs
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("+")
}

fn claims(count: u64) -> String {
    if count == 1 {
        "1 claim".to_owned()
    } else {
        format!("{count} claims")
    }
}

fn time_of_day(time: jiff::Timestamp) -> String {
    time.to_zoned(TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Critical => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Severity::Warning => Style::new().fg_color(Some(AnsiColor::Yellow.into())).bold(),
        Severity::Notice => Style::new().fg_color(Some(AnsiColor::Cyan.into())),
        Severity::Info => Style::new(),
    }
}

/// Evidence as a sentence.
fn in_words(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::DuplicateReply => "two owners answered the same request",
        Evidence::Alternation => "owners keep taking the address from each other",
        Evidence::Local => "this host holds the address, and a stranger goes on claiming it",
        Evidence::Confirmed => "asked, two owners answered",
    }
}

/// One summary line of what was seen.
pub fn summary(findings: &[(FindingKind, u64)]) -> String {
    let seen: Vec<_> = findings
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if seen.is_empty() {
        "no findings".to_owned()
    } else {
        seen.join(", ")
    }
}
