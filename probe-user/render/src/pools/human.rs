//! The report as text for people: a block for each finding, and the capacity of each pool.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use probe_model::escape_untrusted;
use probe_pools::{PoolFindingLevel, interval::Interval, usage::FamilyCounts};

use super::{
    ClusterPoolsRecord, LocationRecord, PoolFindingRecord, PoolsReport, UnreadRecord, text,
};
use crate::{
    layout,
    terminal::{COLUMN, INDENT, LABEL, write_labelled},
};

const ERROR: Style = Style::new()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)))
    .bold();
const WARNING: Style = Style::new()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)))
    .bold();
/// Columns for the name of a finding.
const NAME: usize = 18;
/// Maximum number of columns of a name in the table.
const MAX_NAME_WIDTH: usize = 24;
/// Maximum number of listed pools; beyond it only sums are shown.
const MAX_POOLS: usize = 200;

/// Prints a report in lines of a width.
#[derive(Clone, Copy, Debug)]
pub struct ReportPrinter {
    width: usize,
}

impl ReportPrinter {
    /// A printer for lines of `width` columns.
    pub const fn new(width: usize) -> Self {
        Self { width }
    }

    /// Writes the report.
    pub fn write(self, out: &mut impl Write, report: &PoolsReport) -> io::Result<()> {
        for unread in &report.unread {
            self.unread(out, unread)?;
        }
        for finding in &report.findings {
            self.finding(out, finding)?;
        }
        if report.more > 0 {
            let text = format!("{} more overlaps are not listed", report.more);
            writeln!(out, "{ERROR}{text}{ERROR:#}")?;
        }
        let said = !report.unread.is_empty() || !report.findings.is_empty();
        if said && !report.pools.is_empty() {
            writeln!(out)?;
        }
        Self::table(out, report)?;
        self.summary(out, report)
    }

    fn finding(self, out: &mut impl Write, finding: &PoolFindingRecord) -> io::Result<()> {
        let (style, word) = match finding.level {
            PoolFindingLevel::Error => (ERROR, "Error"),
            PoolFindingLevel::Warning => (WARNING, "Warning"),
        };
        let name = finding.finding.label();
        let addresses = finding.first.zip(finding.last);
        match addresses.map(|(first, last)| Interval::new(first, last)) {
            Some(Ok(addresses)) => {
                writeln!(
                    out,
                    "{style}{name:<NAME$}{style:#}  {}",
                    addresses.describe()
                )?;
            }
            _ => writeln!(out, "{style}{name}{style:#}")?,
        }
        self.paragraph(out, &format!("{word}: {}.", finding.message))?;
        for (location, label) in finding.locations.iter().zip(["here", "and"]) {
            self.labelled(out, label, &describe(location))?;
            // Not wrapped, so that terminals and editors can open it.
            let LocationRecord {
                file, line, column, ..
            } = location;
            writeln!(
                out,
                "{:COLUMN$}{}:{line}:{column}",
                "",
                escape_untrusted(file)
            )?;
        }
        self.labelled(out, "next", finding.next)
    }

    fn unread(self, out: &mut impl Write, unread: &UnreadRecord) -> io::Result<()> {
        let file = escape_untrusted(&unread.file);
        write!(out, "{ERROR}{:<NAME$}{ERROR:#}  {file}", "unread")?;
        match (unread.line, unread.column) {
            (Some(line), Some(column)) => writeln!(out, ":{line}:{column}")?,
            _ => writeln!(out)?,
        }
        self.paragraph(out, &format!("Cannot read it: {}.", unread.reason))
    }

    fn paragraph(self, out: &mut impl Write, text: &str) -> io::Result<()> {
        for line in layout::wrap(text, self.width - INDENT) {
            writeln!(out, "{:INDENT$}{line}", "")?;
        }
        Ok(())
    }

    fn labelled(self, out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
        let mut label = label;
        for line in layout::wrap(text, self.width - COLUMN) {
            write_labelled(out, label, &line)?;
            label = "";
        }
        Ok(())
    }

    /// Writes the table of pools and clusters. The columns for IPv6 and the plan appear only if they have values.
    fn table(out: &mut impl Write, report: &PoolsReport) -> io::Result<()> {
        let has_v6 = report.clusters.iter().any(|one| one.exact.amount.v6 > 0);
        let has_plan = report
            .clusters
            .iter()
            .any(|one| one.exact.planned.is_some());
        let mut rows = vec![UsageRow::head()];
        for cluster in &report.clusters {
            let pools = report.pools.iter();
            let mut pools = pools.filter(|pool| pool.cluster == cluster.cluster);
            match cluster.pools {
                0 => {}
                1 => rows.extend(pools.next().map(|pool| UsageRow::sum(cluster, &pool.name))),
                many => {
                    if report.pools.len() <= MAX_POOLS {
                        let name = &cluster.cluster;
                        rows.extend(pools.map(|pool| UsageRow::new(name, &pool.name, pool.exact)));
                    }
                    rows.push(UsageRow::sum(cluster, &format!("({many} pools)")));
                }
            }
        }
        if rows.len() == 1 {
            return Ok(());
        }
        let width = |cell: fn(&UsageRow) -> &str| {
            let widths = rows.iter().map(|row| layout::width_of(cell(row)));
            widths.max().unwrap_or_default()
        };
        let widths = [
            width(|row| &row.cluster),
            width(|row| &row.pool),
            width(|row| &row.v4),
            width(|row| &row.v6),
            width(|row| &row.plan),
        ];
        for (number, row) in rows.iter().enumerate() {
            let mut line = format!(
                "{}  {}  {}",
                free_spans(&row.cluster, widths[0]),
                free_spans(&row.pool, widths[1]),
                align_right(&row.v4, widths[2])
            );
            if has_v6 {
                line = format!("{line}  {}", align_right(&row.v6, widths[3]));
            }
            if has_plan {
                line = format!("{line}  {}", align_right(&row.plan, widths[4]));
            }
            let line = line.trim_end();
            if number == 0 {
                writeln!(out, "{LABEL}{line}{LABEL:#}")?;
            } else {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    fn summary(self, out: &mut impl Write, report: &PoolsReport) -> io::Result<()> {
        let errors = report.number(PoolFindingLevel::Error);
        let warnings = report.number(PoolFindingLevel::Warning);
        let mut text = format!(
            "{} in {}",
            counted(report.pools.len() as u64, "pool"),
            counted(report.clusters.len() as u64, "cluster"),
        );
        text = match (errors, warnings) {
            (0, 0) if report.pools.is_empty() => text,
            (0, 0) => format!("{text}: nothing wrong"),
            (0, _) => format!("{text}: {}", counted(warnings, "warning")),
            (_, 0) => format!("{text}: {}", counted(errors, "error")),
            (_, _) => {
                let errors = counted(errors, "error");
                format!("{text}: {errors}, {}", counted(warnings, "warning"))
            }
        };
        if !report.complete {
            text = format!("{text}; not everything could be read");
        }
        for line in layout::wrap(&format!("{text}."), self.width) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

struct UsageRow {
    cluster: String,
    pool: String,
    v4: String,
    v6: String,
    plan: String,
}

impl UsageRow {
    fn head() -> Self {
        Self {
            cluster: "CLUSTER".to_owned(),
            pool: "POOL".to_owned(),
            v4: "IPV4".to_owned(),
            v6: "IPV6".to_owned(),
            plan: "OF PLAN".to_owned(),
        }
    }

    fn new(cluster: &str, pool: &str, amount: FamilyCounts) -> Self {
        Self {
            cluster: layout::truncate_to_width(&escape_untrusted(cluster), MAX_NAME_WIDTH),
            pool: layout::truncate_to_width(&escape_untrusted(pool), MAX_NAME_WIDTH),
            v4: text::amount(amount.v4),
            v6: text::amount(amount.v6),
            plan: String::new(),
        }
    }

    /// The row with the sum of a cluster and its share of the plan.
    fn sum(cluster: &ClusterPoolsRecord, pool: &str) -> Self {
        let mut row = Self::new(&cluster.cluster, pool, cluster.exact.amount);
        if let Some(planned) = cluster.exact.planned {
            let planned_used = cluster.exact.planned_used;
            let parts = [(planned_used.v4, planned.v4), (planned_used.v6, planned.v6)];
            let parts = parts.iter().filter(|(_, planned)| *planned > 0);
            let parts: Vec<_> = parts
                .map(|&(used, planned)| percent(used, planned))
                .collect();
            row.plan = parts.join(", ");
        }
        row
    }
}

/// Describes the object at a location.
pub fn describe(location: &LocationRecord) -> String {
    let mut words = Vec::new();
    words.extend(location.cluster.as_deref().map(text::shortened));
    words.push(location.kind.into());
    let name = location.name.as_deref().filter(|name| !name.is_empty());
    words.extend(name.map(text::shortened));
    let words = words.join(" ");
    let described = match &location.range {
        Some(range) => format!("{words}: {}", text::shortened(range)),
        None => words,
    };
    escape_untrusted(&described).into_owned()
}

fn free_spans(text: &str, width: usize) -> String {
    let room = width.saturating_sub(layout::width_of(text));
    format!("{text}{:room$}", "")
}

fn align_right(text: &str, width: usize) -> String {
    let room = width.saturating_sub(layout::width_of(text));
    format!("{:room$}{text}", "")
}

fn percent(part: u128, whole: u128) -> String {
    // If the multiplication overflows, divide first: the result is exact enough for numbers of this size.
    let percent = match part.checked_mul(100) {
        Some(hundredfold) => hundredfold / whole,
        None => part / (whole / 100).max(1),
    };
    match percent {
        0 if part > 0 => "< 1 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

fn counted(number: u64, word: &str) -> String {
    match number {
        1 => format!("1 {word}"),
        many => format!("{many} {word}s"),
    }
}
