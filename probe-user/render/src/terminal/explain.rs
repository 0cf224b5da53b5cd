//! The explanation of one address, as one screen of text.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use probe_cluster::{
    explain::{
        AddressStatus, ClusterSource, ClusterSourceRecord, ExplainedOwnerRecord,
        ExplainedServiceRecord, Explanation, OwnerActivity,
    },
    snapshot::ResourceState,
};
use probe_model::{AnnouncementMode, FindingRecord, vendor};

use super::{COMMAND, LABEL, Terminal, check, layout, location};
use crate::text;

/// The column of the text after a label.
const TEXT_COLUMN: usize = 10;
/// Maximum number of lines of each kind, so that everything fits on one screen.
const OWNERS: usize = 4;
const HISTORY: usize = 8;
const EVIDENCE: usize = 4;
const DRIFTS: usize = 3;
const GAPS: usize = 4;

impl Terminal {
    /// Writes an explanation.
    pub fn explanation(&self, out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
        let style = style(explanation.status);
        let head = format!("{}  {}", explanation.ip, status_label(explanation.status));
        let zoned = explanation.time.to_zoned(self.zone.clone());
        let time = zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        let room = self
            .width
            .saturating_sub(layout::width_of(&head) + layout::width_of(&time));
        writeln!(out, "{style}{head}{style:#}{:room$}{time}", "")?;
        for line in layout::wrap(&explanation.summary, self.width - 2) {
            writeln!(out, "  {line}")?;
        }
        self.current_owners(out, explanation)?;
        self.write_expected_owner(out, explanation)?;
        self.cause_of(out, explanation)?;
        self.timeline(out, explanation)?;
        self.drifts(out, explanation)?;
        let mut label = "next";
        for step in &explanation.next {
            self.write_indented(out, label, &step.purpose)?;
            for line in layout::command(&step.command, self.width - TEXT_COLUMN) {
                writeln!(out, "{:TEXT_COLUMN$}{COMMAND}{line}{COMMAND:#}", "")?;
            }
            label = "";
        }
        self.sources(out, explanation)
    }

    fn current_owners(&self, out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
        let mut label = "owners";
        for owner in explanation.owners.iter().take(OWNERS) {
            let mac = owner.macs.first();
            let mac_text = mac.map_or_else(String::new, ToString::to_string);
            let mut names = Vec::new();
            if let Some(node) = &owner.node {
                names.push(format!("node {node}"));
            } else if owner.external == Some(true) {
                names.push("no node of the cluster".to_owned());
            }
            if owner.local {
                names.push("this host".to_owned());
            }
            names.extend(mac.map(|&mac| vendor::describe(mac).into_owned()));
            let text = format!("{mac_text}  {}", names.join(", "));
            write_after_label(
                out,
                label,
                &layout::truncate_to_width(&text, self.width - TEXT_COLUMN),
            )?;
            label = "";
            self.write_indented(out, "", &self.activity(owner, explanation))?;
        }
        let more = explanation.owners.len().saturating_sub(OWNERS);
        if more > 0 {
            self.write_indented(out, "", &format!("and {more} more"))?;
        }
        if explanation.owners.is_empty() && explanation.check.is_some() {
            self.write_indented(out, label, "no host replies to this node")?;
        }
        self.write_check(out, explanation)
    }

    fn activity(&self, owner: &ExplainedOwnerRecord, explanation: &Explanation) -> String {
        let what = match owner.activity {
            OwnerActivity::Holds => "has it configured".to_owned(),
            OwnerActivity::Announces => {
                "a speaker on this host announces it, as the daemon observed".to_owned()
            }
            OwnerActivity::Replies => {
                let record = explanation.check.as_ref().and_then(|record| {
                    let mut owners = record.owners.iter();
                    let found = owners.find(|one| one.macs == owner.macs)?;
                    Some((record, found))
                });
                match record {
                    Some((record, found)) => {
                        let took = found.min_rtt_us.zip(found.max_rtt_us);
                        let took = took.map_or_else(String::new, |(fastest, slowest)| {
                            format!(", {}", check::times(fastest, slowest))
                        });
                        let sent = record.probes_sent.max(found.probes_answered);
                        match found.probes_answered {
                            0 => "replies to other hosts".to_owned(),
                            number => format!("replies to {number} of {sent} probes{took}"),
                        }
                    }
                    None => "replies".to_owned(),
                }
            }
            OwnerActivity::Claims => "claims it, and does not reply".to_owned(),
            OwnerActivity::Known => match owner.last_seen {
                Some(last) => format!(
                    "last claim observed by the daemon: {}",
                    self.format_time(last, explanation.time)
                ),
                None => "known to the daemon".to_owned(),
            },
        };
        match owner.first_seen {
            Some(first) => format!(
                "{what}; first seen {}",
                self.format_time(first, explanation.time)
            ),
            None => what,
        }
    }

    fn write_check(&self, out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
        let text = match (&explanation.check, &explanation.not_probed) {
            (Some(check), _) => {
                let probes = match check.probes_sent {
                    1 => "1 probe".to_owned(),
                    number => format!("{number} probes"),
                };
                let neighbour = match &check.neighbor {
                    Some(entry) if entry.agrees => "; this host's own entry agrees".to_owned(),
                    Some(entry) => format!(
                        "; this host sends to {}, which does not reply for it",
                        entry.mac
                    ),
                    None => String::new(),
                };
                format!(
                    "{probes} on {}{neighbour}",
                    location(&check.interface, check.vlan)
                )
            }
            (None, Some(why)) => format!("none: {why}"),
            (None, None) => return Ok(()),
        };
        self.write_indented(out, "probes", &text)
    }

    fn write_expected_owner(
        &self,
        out: &mut impl Write,
        explanation: &Explanation,
    ) -> io::Result<()> {
        let Some(announced) = explanation.announced else {
            return Ok(());
        };
        let mut label = "expected";
        for service in explanation.services.iter().take(3) {
            self.write_indented(out, label, &self.service(service, explanation))?;
            label = "";
        }
        let more = explanation.services.len().saturating_sub(3);
        if more > 0 {
            self.write_indented(out, "", &format!("and {more} more services"))?;
        }
        if explanation.services.is_empty() {
            self.write_indented(out, label, "no service has it")?;
            label = "";
        }
        let by = match &explanation.announcers[..] {
            [] => String::new(),
            nodes => format!(" by {} (MetalLB's status)", nodes.join(", ")),
        };
        let how = match announced {
            AnnouncementMode::Layer2 => format!("announced on layer 2{by}"),
            AnnouncementMode::Bgp => "announced by BGP only".to_owned(),
            AnnouncementMode::NotAnnounced => {
                "not announced: no advertisement covers it".to_owned()
            }
            AnnouncementMode::Unknown => format!("announced in an unknown way{by}"),
        };
        let text = match &explanation.pool {
            Some(pool) => format!(
                "pool {} ({}), {how}",
                pool.title(),
                first_ranges(&pool.ranges)
            ),
            None => format!("in no pool; {how}"),
        };
        self.write_indented(out, label, &text)
    }

    fn service(&self, service: &ExplainedServiceRecord, explanation: &Explanation) -> String {
        let how = if service.requested {
            "requested"
        } else {
            "auto-assigned"
        };
        let mut text = format!("service {}, {how}", service.named);
        if let Some(class) = &service.class {
            text = format!("{text}, class {class}");
        }
        if service.external_traffic_policy_local {
            text = format!("{text}, externalTrafficPolicy Local");
        }
        if let Some(key) = &service.sharing_key {
            text = format!("{text}, may share it ({key})");
        }
        if let Some(created) = service.created {
            text = format!(
                "{text}; created {}",
                self.format_time(created, explanation.time)
            );
        }
        if let Some(assigned) = service.assigned {
            text = format!(
                "{text}; assigned {}",
                self.format_time(assigned, explanation.time)
            );
        }
        text
    }

    fn cause_of(&self, out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
        if let Some(cause) = &explanation.cause {
            let text = format!(
                "{} ({}, {})",
                text::cluster_cause(cause.kind),
                cause.kind,
                cause.scope
            );
            self.write_indented(out, "cause", &text)?;
            for sentence in cause.evidence.iter().take(EVIDENCE) {
                self.write_indented(out, "", &format!("- {sentence}"))?;
            }
            return Ok(());
        }
        let hint = explanation.check.as_ref().and_then(|check| check.hint);
        let hint = hint.or_else(|| explanation.conflict.and_then(|conflict| conflict.hint));
        match hint {
            Some(hint) => self.write_indented(out, "hint", text::cause(hint)),
            None => Ok(()),
        }
    }

    /// The history, the latest last.
    fn timeline(&self, out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
        let mut label = "timeline";
        let earlier = explanation.history.len().saturating_sub(HISTORY);
        if earlier > 0 {
            let text = format!("{earlier} earlier: probe history --ip {}", explanation.ip);
            self.write_indented(out, label, &text)?;
            label = "";
        }
        for finding in explanation.history.iter().skip(earlier) {
            let line = format!(
                "{}  {:<17} {}",
                self.format_time(finding.time, explanation.time),
                finding.finding.label(),
                finding_sentence(finding)
            );
            write_after_label(
                out,
                label,
                layout::truncate_to_width(&line, self.width - TEXT_COLUMN).trim_end(),
            )?;
            label = "";
        }
        if let Some(conflict) = &explanation.conflict {
            let text = format!(
                "open since {}, last evidence {}{}",
                self.format_time(conflict.since, explanation.time),
                self.format_time(conflict.last_evidence, explanation.time),
                if conflict.quiet { ", quiet now" } else { "" }
            );
            self.write_indented(out, "conflict", &text)?;
        }
        Ok(())
    }

    fn drifts(&self, out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
        let mut label = "drift";
        for drift in explanation.drifts.iter().take(DRIFTS) {
            self.write_indented(out, label, &describe_drift(drift))?;
            label = "";
        }
        Ok(())
    }

    /// The sources of the data and what is missing.
    fn sources(&self, out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
        let mut label = "sources";
        if let Some(sources) = &explanation.cluster {
            self.write_indented(out, label, &describe_source(sources, explanation.time))?;
            label = "";
        }
        for gap in explanation.gaps.iter().take(GAPS) {
            self.write_indented(out, label, gap)?;
            label = "";
        }
        Ok(())
    }

    fn write_indented(&self, out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
        let mut label = label;
        for line in layout::wrap(text, self.width - TEXT_COLUMN) {
            write_after_label(out, label, &line)?;
            label = "";
        }
        Ok(())
    }
}

fn write_after_label(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    if label.is_empty() {
        writeln!(out, "{:TEXT_COLUMN$}{text}", "")
    } else {
        writeln!(out, "{LABEL}{label:<TEXT_COLUMN$}{LABEL:#}{text}")
    }
}

/// Some of the ranges of a pool.
fn first_ranges(ranges: &[String]) -> String {
    match ranges {
        [] => "no address".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one}, {two}"),
        [one, two, others @ ..] => format!("{one}, {two} and {} more", others.len()),
    }
}

/// The owners of a finding.
fn finding_sentence(finding: &FindingRecord) -> String {
    let mut owners = finding.owners.iter().map(|owner| {
        let name = owner.node.clone();
        let mac = owner.macs.first().map(ToString::to_string);
        name.or(mac).unwrap_or_default()
    });
    let first = owners.next().unwrap_or_default();
    let others: Vec<_> = owners.take(2).collect();
    if others.is_empty() {
        first
    } else {
        format!("{first}; {}", others.join(", "))
    }
}

/// The kind and sentence of a drift.
fn describe_drift(drift: &serde_json::Value) -> String {
    let text = |name: &str| drift.get(name).and_then(serde_json::Value::as_str);
    let kind = text("drift").or_else(|| text("kind"));
    let said = ["summary", "message"].into_iter().find_map(text);
    match (kind, said) {
        (Some(kind), Some(said)) => format!("{kind}: {said}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => drift.to_string(),
    }
}

/// The source of the cluster data, and when it was last updated. Resources that are out of date are listed by themselves.
fn describe_source(sources: &ClusterSourceRecord, now: Timestamp) -> String {
    let source = match (sources.source, &sources.context) {
        (ClusterSource::Daemon, _) => "from the daemon".to_owned(),
        (ClusterSource::Kubeconfig, Some(context)) => {
            format!("from the API server, context {context}")
        }
        (ClusterSource::Kubeconfig, None) => "from the API server, by kubeconfig".to_owned(),
        (ClusterSource::Pod, _) => "from the API server, as this pod".to_owned(),
    };
    let latest = sources
        .freshness
        .values()
        .filter(|freshness| {
            matches!(
                freshness.state,
                ResourceState::Current | ResourceState::Stale
            )
        })
        .filter_map(|freshness| freshness.last_update)
        .max();
    let age = match latest {
        Some(at) => format!(", updated {} ago", span(now.duration_since(at).as_secs())),
        None => String::new(),
    };
    let nodes = match sources.nodes {
        Some(1) => ", 1 node".to_owned(),
        Some(number) => format!(", {number} nodes"),
        None => String::new(),
    };
    format!("cluster: {source}{age}{nodes}")
}

/// A time span in words.
fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// The status as a headline.
const fn status_label(status: AddressStatus) -> &'static str {
    match status {
        AddressStatus::Conflict => "CONFLICT",
        AddressStatus::Contested => "CONTESTED",
        AddressStatus::WrongOwner => "WRONG OWNER",
        AddressStatus::Silent => "SILENT",
        AddressStatus::Claimed => "CLAIMED, BUT NOT ASSIGNED",
        AddressStatus::OneOwner => "one owner",
        AddressStatus::Free => "free",
        AddressStatus::NotLocal => "not on a local network",
        AddressStatus::Unknown => "unknown",
    }
}

fn style(status: AddressStatus) -> Style {
    let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
    match status {
        AddressStatus::Conflict => color(AnsiColor::Red).bold(),
        AddressStatus::Contested
        | AddressStatus::WrongOwner
        | AddressStatus::Silent
        | AddressStatus::Claimed => color(AnsiColor::Yellow).bold(),
        AddressStatus::OneOwner | AddressStatus::Free => color(AnsiColor::Green),
        AddressStatus::NotLocal | AddressStatus::Unknown => Style::new().bold(),
    }
}
