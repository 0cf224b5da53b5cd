//! Findings as text for people: event, location, owners, time, cause, and next step.
//!
//! A finding is a headline, which tools like `grep` can process, followed by labelled details. Colour carries no
//! information of its own.

use std::io::{self, IsTerminal as _, Write};

use anstyle::{AnsiColor, Effects, Style};
use jiff::{Timestamp, tz::TimeZone};
use probe_common::wire::Vlan;
use probe_model::{
    AddressContext, BindingRecord, CauseKind, ClaimRecord, ClusterCause, FindingKind,
    FindingOrigin, FindingRecord, NextStep, OwnerRecord, Severity, next_step, vendor,
};

use super::{layout, text};

mod check;
mod explain;

/// The column of the details below a headline.
pub(crate) const INDENT: usize = 10;
/// The column of the text after a label.
pub(crate) const COLUMN: usize = INDENT + 10;
/// Maximum width; wider lines are hard to read.
const MAX_WIDTH: usize = 120;
/// Minimum width; narrower terminals are treated as this wide.
const MIN_WIDTH: usize = 60;
/// The width if standard output is not a terminal.
const DEFAULT_WIDTH: usize = 80;
/// Minimum width of a truncated name; shorter ones are omitted.
const MIN_NAME: usize = 8;

pub(crate) const LABEL: Style = Style::new().effects(Effects::DIMMED);
const COMMAND: Style = Style::new().effects(Effects::BOLD);

/// Writes records as text for people.
#[derive(Clone, Debug)]
pub struct Terminal {
    width: usize,
    zone: TimeZone,
    origin: FindingOrigin,
}

impl Terminal {
    /// Text in lines of `width` columns, with times in `zone`.
    pub fn new(width: usize, zone: TimeZone, origin: FindingOrigin) -> Self {
        Self {
            width: readable(width),
            zone,
            origin,
        }
    }

    /// Text that fits standard output: the width of the terminal, or 80 columns.
    pub fn of_stdout(origin: FindingOrigin) -> Self {
        Self::new(width_of_stdout(), TimeZone::system(), origin)
    }

    /// Writes a finding.
    pub fn finding(&self, out: &mut impl Write, record: &FindingRecord) -> io::Result<()> {
        let drill = format!("DRILL/{}", record.finding);
        let head = Headline {
            time: record.time,
            style: style(record.severity),
            title: if record.drill {
                &drill
            } else {
                record.finding.label()
            },
            ip: record.ip.to_string(),
            location: location(&record.interface, record.vlan),
        };
        if record.finding == FindingKind::NewBinding {
            return self.one_line(out, &head, record.owners.first());
        }
        self.headline(out, &head)?;
        writeln!(out)?;
        for line in layout::wrap(&text::event(record), self.width - INDENT) {
            writeln!(out, "{:INDENT$}{line}", "")?;
        }
        self.write_holder(out, record.cluster.as_deref())?;
        for (index, owner) in record.owners.iter().enumerate() {
            let label = text::owner_label(record, index);
            self.owner(out, &label, owner, record.time)?;
        }
        if record.finding.is_dispute() || record.finding == FindingKind::Silent {
            let since = self.format_time(record.since, record.time);
            let text = match text::evidence_counts(&record.counts) {
                often if often.is_empty() => since,
                often => format!("{since}; {often}"),
            };
            self.labelled(out, "since", &text)?;
        } else if record.counts.suppressed > 0 {
            self.labelled(out, "counted", &text::evidence_counts(&record.counts))?;
        }
        let cause = record
            .cluster
            .as_ref()
            .and_then(|context| context.cause.as_ref());
        let known = cause.filter(|cause| cause.kind != CauseKind::Unknown);
        match (known, record.hint) {
            (Some(cause), _) => self.cause(out, cause)?,
            (None, Some(hint)) => self.labelled(out, "hint", text::cause(hint))?,
            (None, None) => cause.map_or(Ok(()), |cause| self.cause(out, cause))?,
        }
        if let Some(step) = next_step(record, &self.origin) {
            self.step(out, &step)?;
        }
        Ok(())
    }

    /// Writes a claim in one line, or two on a narrow terminal.
    pub fn claim(&self, out: &mut impl Write, record: &ClaimRecord) -> io::Result<()> {
        let head = Headline {
            time: record.time,
            style: Style::new(),
            title: &format!("claim/{}", record.claim),
            ip: record.ip.to_string(),
            location: location(&record.interface, record.vlan),
        };
        let used = self.headline(out, &head)?;
        self.write_mac_after(out, used, record.mac, &vendor::describe(record.mac))
    }

    /// Writes a binding: its dispute as a finding, or its owners.
    pub fn binding(
        &self,
        out: &mut impl Write,
        record: &BindingRecord,
        now: Timestamp,
    ) -> io::Result<()> {
        if let Some(finding) = record.as_finding() {
            return self.finding(out, &finding);
        }
        let last_seen = record.owners.iter().map(|owner| owner.last_seen).max();
        let head = Headline {
            time: last_seen.unwrap_or(now),
            style: Style::new(),
            title: if record.tracked { "tracked" } else { "binding" },
            ip: record.ip.to_string(),
            location: location(&record.interface, record.vlan),
        };
        if record.owners.len() < 2 {
            self.one_line(out, &head, record.owners.first())?;
            return self.write_holder(out, record.cluster.as_deref());
        }
        self.headline(out, &head)?;
        writeln!(out)?;
        self.write_holder(out, record.cluster.as_deref())?;
        let mut owners = record.owners.iter();
        owners.try_for_each(|owner| {
            let label = text::role_label(owner.role);
            self.owner(out, label, owner, head.time)
        })
    }

    /// Formats a time, with the date if it differs from the date of `now`.
    pub fn format_time(&self, at: Timestamp, now: Timestamp) -> String {
        let (at, now) = (
            at.to_zoned(self.zone.clone()),
            now.to_zoned(self.zone.clone()),
        );
        let format = if at.date() == now.date() {
            "%H:%M:%S"
        } else {
            "%Y-%m-%d %H:%M:%S"
        };
        at.strftime(format).to_string()
    }

    /// Writes a headline without a line end; returns the number of columns used.
    fn headline(&self, out: &mut impl Write, head: &Headline) -> io::Result<usize> {
        let style = head.style;
        let text = format!("  {:<15}  {}", head.ip, head.location);
        write!(
            out,
            "{}  {style}{:<17}{style:#}{text}",
            self.format_time(head.time, head.time),
            head.title,
        )?;
        Ok(INDENT + 17 + layout::width_of(&text))
    }

    fn one_line(
        &self,
        out: &mut impl Write,
        head: &Headline,
        owner: Option<&OwnerRecord>,
    ) -> io::Result<()> {
        let used = self.headline(out, head)?;
        match owner.and_then(|owner| Some((*owner.macs.first()?, text::describe_host(owner)))) {
            Some((mac, name)) => self.write_mac_after(out, used, mac, &name),
            None => writeln!(out),
        }
    }

    /// Writes a MAC after a headline, or below it if the line is full.
    fn write_mac_after(
        &self,
        out: &mut impl Write,
        used: usize,
        mac: probe_common::wire::MacAddr,
        name: &str,
    ) -> io::Result<()> {
        let mac_text = format!("  {mac}");
        let used = if used + mac_text.len() > self.width {
            write!(out, "\n{:indent$}", "", indent = INDENT - 2)?;
            INDENT - 2 + mac_text.len()
        } else {
            used + mac_text.len()
        };
        write!(out, "{mac_text}")?;
        let room = self.width.saturating_sub(used + 2);
        if room >= MIN_NAME.min(layout::width_of(name)) {
            write!(out, "  {}", layout::truncate_to_width(name, room))?;
        }
        writeln!(out)
    }

    fn owner(
        &self,
        out: &mut impl Write,
        mut label: &str,
        owner: &OwnerRecord,
        now: Timestamp,
    ) -> io::Result<()> {
        for &mac in &owner.macs {
            let vendor = vendor::describe(mac);
            let text = match text::node_name(owner) {
                Some(name) => format!("{mac}  {name}, {vendor}"),
                None => format!("{mac}  {vendor}"),
            };
            let text = layout::truncate_to_width(&text, self.width - COLUMN);
            write_labelled(out, label, &text)?;
            label = "";
        }
        let first = self.format_time(owner.first_seen, now);
        let last = self.format_time(owner.last_seen, now);
        let text = match owner.claims {
            0 if first == last => format!("at {first}"),
            0 => format!("since {first}"),
            1 => format!("1 claim, at {last}"),
            many => format!("{} since {first}, last {last}", text::claims(many)),
        };
        self.labelled(out, "", &text)
    }

    /// Writes the services and pool of an address, if the cluster is known.
    fn write_holder(
        &self,
        out: &mut impl Write,
        context: Option<&AddressContext>,
    ) -> io::Result<()> {
        match context {
            Some(context) => self.labelled(out, "service", &text::holder_sentence(context)),
            None => Ok(()),
        }
    }

    /// Writes the cause of a dispute with its evidence.
    fn cause(&self, out: &mut impl Write, cause: &ClusterCause) -> io::Result<()> {
        let belongs = text::scope_sentence(cause.scope);
        let text = format!("{} ({belongs})", text::cluster_cause(cause.kind));
        self.labelled(out, "cause", &text)?;
        for sentence in &cause.evidence {
            let mut mark = "- ";
            for line in layout::wrap(sentence, self.width - COLUMN - mark.len()) {
                write_labelled(out, "", &format!("{mark}{line}"))?;
                mark = "  ";
            }
        }
        Ok(())
    }

    fn step(&self, out: &mut impl Write, step: &NextStep) -> io::Result<()> {
        self.labelled(out, "next", &step.purpose)?;
        for line in layout::command(&step.command, self.width - COLUMN) {
            writeln!(out, "{:COLUMN$}{COMMAND}{line}{COMMAND:#}", "")?;
        }
        Ok(())
    }

    fn labelled(&self, out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
        let mut label = label;
        for line in layout::wrap(text, self.width - COLUMN) {
            write_labelled(out, label, &line)?;
            label = "";
        }
        Ok(())
    }
}

/// The width of standard output if it is a terminal, else 80 columns, within the readable range.
pub fn width_of_stdout() -> usize {
    let stdout = io::stdout();
    let size = stdout
        .is_terminal()
        .then(|| terminal_size::terminal_size_of(stdout));
    readable(
        size.flatten()
            .map_or(DEFAULT_WIDTH, |(width, _)| width.0.into()),
    )
}

fn readable(width: usize) -> usize {
    width.clamp(MIN_WIDTH, MAX_WIDTH)
}

/// The headline of a record.
struct Headline<'a> {
    time: Timestamp,
    style: Style,
    title: &'a str,
    ip: String,
    location: String,
}

/// Writes a line after its label; with an empty label it continues the line above.
pub(crate) fn write_labelled(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    let width = COLUMN - INDENT;
    if label.is_empty() {
        writeln!(out, "{:COLUMN$}{text}", "")
    } else {
        writeln!(out, "{:INDENT$}{LABEL}{label:<width$}{LABEL:#}{text}", "")
    }
}

/// Formats an interface and VLAN.
pub fn location(interface: &str, vlan: Vlan) -> String {
    if vlan == Vlan::UNTAGGED {
        interface.to_owned()
    } else {
        format!("{interface} vlan {vlan}")
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Critical => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Severity::Warning => Style::new().fg_color(Some(AnsiColor::Yellow.into())).bold(),
        Severity::Notice => Style::new().fg_color(Some(AnsiColor::Cyan.into())),
        Severity::Info => Style::new(),
    }
}

#[cfg(test)]
mod tests;
