//! The result of a check as text.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use probe_model::{CheckOwnerRecord, CheckRecord, CheckStatus, after_check, vendor};

use super::{Headline, Terminal, layout, location, write_labelled};
use crate::text;

impl Terminal {
    /// Writes the result for an address, and the expectation if it is not met; `brief` omits details of an expected
    /// result.
    pub fn check(
        &self,
        out: &mut impl Write,
        record: &CheckRecord,
        expected: &str,
        brief: bool,
    ) -> io::Result<()> {
        let unexpected = record.expected == Some(false);
        let head = Headline {
            time: record.time,
            style: style(record),
            title: status_word(record.status),
            ip: record.ip.to_string(),
            location: location(&record.interface, record.vlan),
        };
        let is_plain = record.status == CheckStatus::OneOwner && record.hint.is_none();
        let disagrees = record.neighbor.as_ref().is_some_and(|entry| !entry.agrees);
        if let (true, [owner]) = (is_plain, &record.owners[..])
            && let [mac] = owner.macs[..]
        {
            let used = self.headline(out, &head)?;
            let name = if owner.local {
                "this host".into()
            } else {
                vendor::describe(mac)
            };
            self.write_mac_after(out, used, mac, &name)?;
            if !brief || unexpected || disagrees {
                self.labelled(out, "", &self.describe_replies(owner, record))?;
            }
        } else {
            self.headline(out, &head)?;
            writeln!(out)?;
            if let Some(sentence) = sentence(record) {
                for line in layout::wrap(&sentence, self.width - super::INDENT) {
                    writeln!(out, "{:indent$}{line}", "", indent = super::INDENT)?;
                }
            }
            for owner in &record.owners {
                self.checked_owner(out, owner, record)?;
            }
        }
        self.service_of(out, record)?;
        if record.frames_dropped > 0 {
            let text = format!("{} frames of further MACs", record.frames_dropped);
            self.labelled(out, "", &text)?;
        }
        if let Some(prober) = record.probed_by {
            let text = format!(
                "{prober} sends ARP probes for it: a booting host, an ARP monitor or a stuck client"
            );
            self.labelled(out, "prober", &text)?;
        }
        self.neighbour(out, record, brief)?;
        if unexpected {
            self.labelled(out, "expected", expected)?;
        }
        if let Some(hint) = record.hint {
            self.labelled(out, "hint", text::cause(hint))?;
        }
        if let Some(step) = after_check(record) {
            self.step(out, &step)?;
        }
        Ok(())
    }

    fn checked_owner(
        &self,
        out: &mut impl Write,
        owner: &CheckOwnerRecord,
        record: &CheckRecord,
    ) -> io::Result<()> {
        let mut label = match (owner.holds, owner.is_owner()) {
            (true, _) if owner.speaker => "announces",
            (true, _) => "holds it",
            (false, true) => "replies",
            (false, false) => "claims it",
        };
        let node = owner.node.as_ref();
        let node = node.map_or_else(String::new, |node| format!("{node}, "));
        let here = if owner.local { "this host, " } else { "" };
        for &mac in &owner.macs {
            let text = format!("{mac}  {node}{here}{}", vendor::describe(mac));
            write_labelled(
                out,
                label,
                &layout::truncate_to_width(&text, self.width - super::COLUMN),
            )?;
            label = "";
        }
        self.labelled(out, "", &self.describe_replies(owner, record))
    }

    /// Describes the frames of an owner: numbers and round-trip times, and over a longer time the times of day.
    fn describe_replies(&self, owner: &CheckOwnerRecord, record: &CheckRecord) -> String {
        let mut parts = Vec::new();
        if owner.replies > 0 {
            let sent = record.probes_sent.max(owner.probes_answered);
            parts.push(format!("replied to {} of {sent}", owner.probes_answered));
            if owner.requests_answered == owner.probes_answered && record.requests_sent < sent {
                parts.push("to ARP requests only, not to ARP probes".to_owned());
            }
        }
        if let (Some(fastest), Some(slowest)) = (owner.min_rtt_us, owner.max_rtt_us) {
            parts.push(times(fastest, slowest));
        }
        let repeats = owner.replies.saturating_sub(owner.probes_answered);
        for (number, one, many) in [
            (repeats, "repeated reply", "repeated replies"),
            (
                owner.replies_to_others,
                "reply to another host",
                "replies to other hosts",
            ),
            (owner.announcements, "announcement", "announcements"),
            (owner.requests, "request of its own", "requests of its own"),
        ] {
            if number > 0 {
                parts.push(format!("{number} {}", if number == 1 { one } else { many }));
            }
        }
        if owner.speaker {
            parts.push("a speaker on this host announces it, as its daemon observed".to_owned());
        } else if owner.holds && owner.replies == 0 {
            parts.push("it has the address configured".to_owned());
        }
        if !owner.sources.is_empty() {
            let sources: Vec<_> = owner.sources.iter().map(ToString::to_string).collect();
            parts.push(format!("sent by {}", sources.join(", ")));
        }
        if let (Some(first), Some(last)) = (owner.first_seen, owner.last_seen)
            && last.duration_since(first).as_secs() > 0
        {
            let [first, last] = [first, last].map(|at| self.format_time(at, record.time));
            parts.push(format!("{first} to {last}"));
        }
        parts.join(", ")
    }

    /// The service and pool of the address, and the node of its only owner.
    fn service_of(&self, out: &mut impl Write, record: &CheckRecord) -> io::Result<()> {
        let Some(context) = &record.cluster else {
            return Ok(());
        };
        let mut parts: Vec<_> = context.services.iter().map(ToString::to_string).collect();
        if parts.is_empty() {
            parts.push("no service".to_owned());
        }
        parts.extend(
            context
                .pool
                .as_ref()
                .map(|pool| format!("pool {}", pool.name)),
        );
        if let (CheckStatus::OneOwner, [owner, ..]) = (record.status, &record.owners[..]) {
            parts.push(match &owner.node {
                Some(node) => format!("at node {node}"),
                None if record.expected == Some(false) => "at no node of the cluster".to_owned(),
                None => "at a host that may or may not be a node".to_owned(),
            });
        }
        self.labelled(out, "service", &parts.join(", "))
    }

    fn neighbour(&self, out: &mut impl Write, record: &CheckRecord, brief: bool) -> io::Result<()> {
        let Some(entry) = &record.neighbor else {
            return Ok(());
        };
        let text = match (entry.agrees, record.status) {
            (true, CheckStatus::OneOwner) if brief => return Ok(()),
            (true, CheckStatus::OneOwner) => "this host's entry agrees".to_owned(),
            (true, _) => format!("this host sends to {}", entry.mac),
            (false, _) => format!(
                "this host sends to {}, which does not reply for it",
                entry.mac
            ),
        };
        self.labelled(out, "neighbour", &text)
    }
}

/// The status as a headline.
const fn status_word(status: CheckStatus) -> &'static str {
    match status {
        CheckStatus::OneOwner => "one owner",
        CheckStatus::Conflict => "conflict",
        CheckStatus::Moved => "moved",
        CheckStatus::Contested => "contested",
        CheckStatus::NoReply => "no reply",
        CheckStatus::NotProbed => "not probed",
    }
}

fn style(record: &CheckRecord) -> Style {
    let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
    match record.status {
        CheckStatus::Conflict => color(AnsiColor::Red).bold(),
        _ if record.expected == Some(false) => color(AnsiColor::Yellow).bold(),
        CheckStatus::Moved | CheckStatus::Contested | CheckStatus::NotProbed => {
            color(AnsiColor::Yellow).bold()
        }
        CheckStatus::OneOwner => color(AnsiColor::Green),
        CheckStatus::NoReply => Style::new(),
    }
}

fn sentence(record: &CheckRecord) -> Option<String> {
    let owners = record.owners.iter();
    let owners = owners.filter(|owner| owner.is_owner()).count();
    match record.status {
        CheckStatus::OneOwner => None,
        CheckStatus::Conflict if owners < 2 => {
            Some("Two hosts claim this address at once.".to_owned())
        }
        CheckStatus::Conflict => Some(match owners {
            2 => "Two hosts own this address at once.".to_owned(),
            number if record.frames_dropped > 0 => {
                format!("{number} hosts or more own this address at once.")
            }
            number => format!("{number} hosts own this address at once."),
        }),
        CheckStatus::Contested => {
            Some("Two hosts reply with the MACs of one virtual router.".to_owned())
        }
        CheckStatus::Moved => Some("It moved from one host to another during the check.".to_owned()),
        CheckStatus::NoReply => Some(format!(
            "No host replied for it; {}.",
            match record.probes_sent {
                1 => "one probe".to_owned(),
                number => format!("{number} probes"),
            }
        )),
        CheckStatus::NotProbed if record.probes_sent == 0 && record.probed_by.is_some() => Some(
            "It was not probed: another host may be booting with it, and would treat a probe as a conflict."
                .to_owned(),
        ),
        CheckStatus::NotProbed if record.probes_sent == 0 => {
            Some("The check ended before it was probed.".to_owned())
        }
        CheckStatus::NotProbed => Some("The check ended before all replies were in.".to_owned()),
    }
}

/// Formats round-trip times in milliseconds.
pub(super) fn times(fastest: u64, slowest: u64) -> String {
    let milliseconds = |microseconds: u64| {
        let (whole, rest) = (microseconds / 1000, microseconds % 1000);
        if whole < 10 {
            format!("{whole}.{:02}", rest / 10)
        } else {
            whole.to_string()
        }
    };
    let [fastest, slowest] = [fastest, slowest].map(milliseconds);
    if fastest == slowest {
        format!("in {fastest} ms")
    } else {
        format!("in {fastest} to {slowest} ms")
    }
}
