//! What a check found out, for people.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use probe_model::{CheckOwnerRecord, CheckRecord, CheckVerdict, after_check, vendor};

use super::{Headline, Terminal, layout, place, write_labelled};
use crate::text;

impl Terminal {
    /// Writes what is known of an address, and what else was expected; `brief` leaves out what is as it should
    /// be.
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
            word: verdict_word(record.verdict),
            ip: record.ip.to_string(),
            place: place(&record.interface, record.vlan),
        };
        let is_plain = record.verdict == CheckVerdict::OneOwner && record.hint.is_none();
        let disagrees = record.neighbour.as_ref().is_some_and(|entry| !entry.agrees);
        if let (true, [owner]) = (is_plain, &record.owners[..])
            && let [mac] = owner.macs[..]
        {
            let used = self.headline(out, &head)?;
            let name = if owner.local {
                "this host".into()
            } else {
                vendor::describe(mac)
            };
            self.write_beside(out, used, mac, &name)?;
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
        if record.more > 0 {
            let text = format!(
                "{} more frames of stations that were not told apart",
                record.more
            );
            self.labelled(out, "", &text)?;
        }
        self.neighbour(out, record, brief)?;
        if unexpected {
            self.labelled(out, "expected", expected)?;
        }
        if let Some(hint) = record.hint {
            self.labelled(out, "cause?", text::cause(hint))?;
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
        let mut label = match (owner.holds, owner.answers) {
            (true, _) => "holds it",
            (false, 0) => "claims it",
            (false, _) => "answers",
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

    /// What it did, how often and how quickly; over a longer time also when.
    fn describe_replies(&self, owner: &CheckOwnerRecord, record: &CheckRecord) -> String {
        let mut parts = Vec::new();
        if owner.answers > 0 {
            let asked = record.asked.max(owner.answered);
            parts.push(format!("answered {} of {asked}", owner.answered));
        }
        if let (Some(fastest), Some(slowest)) = (owner.min_rtt_us, owner.max_rtt_us) {
            parts.push(times(fastest, slowest));
        }
        let repeats = owner.answers.saturating_sub(owner.answered);
        for (number, one, many) in [
            (repeats, "repeated answer", "repeated answers"),
            (owner.announcements, "announcement", "announcements"),
            (
                owner.requests,
                "question of its own",
                "questions of its own",
            ),
        ] {
            if number > 0 {
                parts.push(format!("{number} {}", if number == 1 { one } else { many }));
            }
        }
        if owner.holds && owner.answers == 0 {
            parts.push("it has the address configured".to_owned());
        }
        if let (Some(first), Some(last)) = (owner.first_seen, owner.last_seen)
            && last.duration_since(first).as_secs() > 0
        {
            let [first, last] = [first, last].map(|at| self.format_time(at, record.time));
            parts.push(format!("{first} to {last}"));
        }
        parts.join(", ")
    }

    /// Whose address it is, and, of one owner, which node that is.
    fn service_of(&self, out: &mut impl Write, record: &CheckRecord) -> io::Result<()> {
        let Some(context) = &record.cluster else {
            return Ok(());
        };
        let mut parts: Vec<_> = context.services.iter().map(ToString::to_string).collect();
        if parts.is_empty() {
            parts.push("no service's".to_owned());
        }
        parts.extend(
            context
                .pool
                .as_ref()
                .map(|pool| format!("pool {}", pool.name)),
        );
        if let (CheckVerdict::OneOwner, [owner, ..]) = (record.verdict, &record.owners[..]) {
            parts.push(match &owner.node {
                Some(node) => format!("at node {node}"),
                None if record.expected == Some(false) => "at no node of the cluster".to_owned(),
                None => "at a machine of which is not known whether it is a node".to_owned(),
            });
        }
        self.labelled(out, "service", &parts.join(", "))
    }

    fn neighbour(&self, out: &mut impl Write, record: &CheckRecord, brief: bool) -> io::Result<()> {
        let Some(entry) = &record.neighbour else {
            return Ok(());
        };
        let text = match (entry.agrees, record.verdict) {
            (true, CheckVerdict::OneOwner) if brief => return Ok(()),
            (true, CheckVerdict::OneOwner) => "this host's entry agrees".to_owned(),
            (true, _) => format!("this host sends to {}", entry.mac),
            (false, _) => format!(
                "this host sends to {}, which does not answer for it",
                entry.mac
            ),
        };
        self.labelled(out, "neighbour", &text)
    }
}

/// The verdict, as people read it.
const fn verdict_word(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::OneOwner => "one owner",
        CheckVerdict::Conflict => "conflict",
        CheckVerdict::Moved => "moved",
        CheckVerdict::NoReply => "nobody",
        CheckVerdict::NotProbed => "not asked",
    }
}

fn style(record: &CheckRecord) -> Style {
    let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
    match record.verdict {
        CheckVerdict::Conflict => color(AnsiColor::Red).bold(),
        _ if record.expected == Some(false) => color(AnsiColor::Yellow).bold(),
        CheckVerdict::Moved | CheckVerdict::NotProbed => color(AnsiColor::Yellow).bold(),
        CheckVerdict::OneOwner => color(AnsiColor::Green),
        CheckVerdict::NoReply => Style::new(),
    }
}

fn sentence(record: &CheckRecord) -> Option<String> {
    let having = record.owners.iter();
    let having = having
        .filter(|owner| owner.holds || owner.answers > 0)
        .count();
    match record.verdict {
        CheckVerdict::OneOwner => None,
        CheckVerdict::Conflict if having < 2 => {
            Some("Two machines claim this address at once.".to_owned())
        }
        CheckVerdict::Conflict => Some(match having {
            2 => "Two machines have this address at once.".to_owned(),
            number if record.more > 0 => {
                format!("{number} machines or more have this address at once.")
            }
            number => format!("{number} machines have this address at once."),
        }),
        CheckVerdict::Moved => Some("It passed from one machine to another meanwhile.".to_owned()),
        CheckVerdict::NoReply => Some(format!(
            "Nobody answers for it; asked {}.",
            match record.asked {
                1 => "once".to_owned(),
                2 => "twice".to_owned(),
                number => format!("{number} times"),
            }
        )),
        CheckVerdict::NotProbed if record.probed => Some(
            "It was not asked about: somebody goes on asking whether it is free, as a booting machine does, and \
             would take this for a rival's question."
                .to_owned(),
        ),
        CheckVerdict::NotProbed if record.asked == 0 => {
            Some("The check ended before it was asked about.".to_owned())
        }
        CheckVerdict::NotProbed => Some("The check ended before the answers were in.".to_owned()),
    }
}

/// In milliseconds.
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
