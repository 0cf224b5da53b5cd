//! Findings as text for people: what, where, who, since when, why, and what to do next.
//!
//! A finding is a headline, which tools like `grep` can work with, and under it what a tired reader needs,
//! each part behind its label. Nothing is said by colour alone.

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

/// Where what is under a headline begins: below the name of the finding.
pub(crate) const INDENT: usize = 10;
/// Where what is behind a label begins.
pub(crate) const COLUMN: usize = INDENT + 10;
/// Text in wider lines is hard to read.
const MAX_WIDTH: usize = 120;
/// What is narrower is treated as this.
const MIN_WIDTH: usize = 60;
/// Where nobody says how wide the reader's lines are.
const DEFAULT_WIDTH: usize = 80;
/// A cut name shorter than this says nothing.
const SHORTEST_NAME: usize = 8;

pub(crate) const LABEL: Style = Style::new().effects(Effects::DIMMED);
const COMMAND: Style = Style::new().effects(Effects::BOLD);

/// How text for people is laid out.
#[derive(Clone, Debug)]
pub struct Terminal {
    width: usize,
    zone: TimeZone,
    origin: FindingOrigin,
}

impl Terminal {
    /// Lines of this width, times in this zone.
    pub fn new(width: usize, zone: TimeZone, origin: FindingOrigin) -> Self {
        Self {
            width: readable(width),
            zone,
            origin,
        }
    }

    /// As it fits the terminal that standard output is, or else the usual 80 columns.
    pub fn of_stdout(origin: FindingOrigin) -> Self {
        Self::new(width_of_stdout(), TimeZone::system(), origin)
    }

    /// Writes a finding.
    pub fn finding(&self, out: &mut impl Write, record: &FindingRecord) -> io::Result<()> {
        let drill = format!("DRILL/{}", record.finding);
        let head = Headline {
            time: record.time,
            style: style(record.severity),
            word: if record.drill {
                &drill
            } else {
                record.finding.label()
            },
            ip: record.ip.to_string(),
            place: place(&record.interface, record.vlan),
        };
        if record.finding == FindingKind::NewBinding {
            return self.in_one_line(out, &head, record.owners.first());
        }
        self.headline(out, &head)?;
        writeln!(out)?;
        for line in layout::wrap(&text::what(record), self.width - INDENT) {
            writeln!(out, "{:INDENT$}{line}", "")?;
        }
        self.write_holder(out, record.cluster.as_deref())?;
        for owner in &record.owners {
            self.owner(out, owner, record.time)?;
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
            .and_then(|known| known.cause.as_ref());
        let known = cause.filter(|cause| cause.kind != CauseKind::Unknown);
        match (known, record.hint) {
            (Some(cause), _) => self.cause(out, cause)?,
            (None, Some(hint)) => self.labelled(out, "cause?", text::cause(hint))?,
            (None, None) => cause.map_or(Ok(()), |cause| self.cause(out, cause))?,
        }
        if let Some(step) = next_step(record, &self.origin) {
            self.step(out, &step)?;
        }
        Ok(())
    }

    /// Writes a claim: one line, or two where it is narrow.
    pub fn claim(&self, out: &mut impl Write, record: &ClaimRecord) -> io::Result<()> {
        let head = Headline {
            time: record.time,
            style: Style::new(),
            word: &format!("claim/{}", record.claim),
            ip: record.ip.to_string(),
            place: place(&record.interface, record.vlan),
        };
        let used = self.headline(out, &head)?;
        self.write_beside(out, used, record.mac, &vendor::describe(record.mac))
    }

    /// Writes a binding: what its conflict would be reported as, or who has it.
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
            word: if record.tracked { "tracked" } else { "binding" },
            ip: record.ip.to_string(),
            place: place(&record.interface, record.vlan),
        };
        if record.owners.len() < 2 {
            self.in_one_line(out, &head, record.owners.first())?;
            return self.write_holder(out, record.cluster.as_deref());
        }
        self.headline(out, &head)?;
        writeln!(out)?;
        self.write_holder(out, record.cluster.as_deref())?;
        let mut owners = record.owners.iter();
        owners.try_for_each(|owner| self.owner(out, owner, head.time))
    }

    /// A moment, with its day where that is not the day of `now`.
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

    /// Writes the beginning of a headline, without its end; returns the columns used.
    fn headline(&self, out: &mut impl Write, head: &Headline) -> io::Result<usize> {
        let style = head.style;
        let text = format!("  {:<15}  {}", head.ip, head.place);
        write!(
            out,
            "{}  {style}{:<17}{style:#}{text}",
            self.format_time(head.time, head.time),
            head.word,
        )?;
        Ok(INDENT + 17 + layout::width_of(&text))
    }

    fn in_one_line(
        &self,
        out: &mut impl Write,
        head: &Headline,
        owner: Option<&OwnerRecord>,
    ) -> io::Result<()> {
        let used = self.headline(out, head)?;
        match owner.and_then(|owner| Some((*owner.macs.first()?, text::describe_host(owner)))) {
            Some((mac, name)) => self.write_beside(out, used, mac, &name),
            None => writeln!(out),
        }
    }

    /// A MAC behind a headline where there is room, else below it.
    fn write_beside(
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
        if room >= SHORTEST_NAME.min(layout::width_of(name)) {
            write!(out, "  {}", layout::truncate_to_width(name, room))?;
        }
        writeln!(out)
    }

    fn owner(&self, out: &mut impl Write, owner: &OwnerRecord, now: Timestamp) -> io::Result<()> {
        let mut label = text::role_word(owner.role);
        for &mac in &owner.macs {
            let made = vendor::describe(mac);
            let text = match text::node_name(owner) {
                Some(name) => format!("{mac}  {name}, {made}"),
                None => format!("{mac}  {made}"),
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

    /// What the cluster says whose address it is.
    fn write_holder(&self, out: &mut impl Write, known: Option<&AddressContext>) -> io::Result<()> {
        match known {
            Some(known) => self.labelled(out, "whose", &text::holder_sentence(known)),
            None => Ok(()),
        }
    }

    /// Why it is in dispute, and what says so.
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

/// The width of the terminal that standard output is, or else the usual 80 columns: readable in any case.
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

/// The first line of everything.
struct Headline<'a> {
    time: Timestamp,
    style: Style,
    word: &'a str,
    ip: String,
    place: String,
}

/// Writes a line behind its label, or below it where the label is empty.
pub(crate) fn write_labelled(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    let width = COLUMN - INDENT;
    if label.is_empty() {
        writeln!(out, "{:COLUMN$}{text}", "")
    } else {
        writeln!(out, "{:INDENT$}{LABEL}{label:<width$}{LABEL:#}{text}", "")
    }
}

/// Interface and VLAN.
pub fn place(interface: &str, vlan: Vlan) -> String {
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
