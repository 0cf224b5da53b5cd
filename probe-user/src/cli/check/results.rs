//! What came of all addresses together: the summary and the exit status.

use std::time::Duration;

use probe_model::{CheckRecord, Verdict};

use crate::cli::Exit;

/// Conflicts that a summary names.
const NAMED: usize = 10;

/// Counts of what was found.
#[derive(Clone, Debug, Default)]
pub struct Results {
    counts: [u64; Verdict::COUNT],
    conflicts: Vec<String>,
    unmet: u64,
    /// Addresses that were asked about and of which it is not known whether they keep silent.
    pub unfinished: u64,
    /// It was stopped.
    pub interrupted: bool,
    /// Something broke down.
    pub failed: bool,
}

impl Results {
    /// Counts an address.
    pub fn count(&mut self, record: &CheckRecord) {
        self.counts[usize::from(record.verdict.number())] += 1;
        if record.verdict == Verdict::Conflict && self.conflicts.len() < NAMED {
            self.conflicts.push(record.ip.to_string());
        }
        self.unmet += u64::from(record.expected == Some(false));
    }

    /// How many have this verdict.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.counts[usize::from(verdict.number())]
    }

    /// How the program ends. Whoever stops it knows that it was stopped; a conflict is one however much could
    /// not be asked; and what was not asked is never as expected.
    pub fn exit(&self) -> Exit {
        if self.interrupted {
            Exit::Failed
        } else if self.of(Verdict::Conflict) > 0 {
            Exit::Conflict
        } else if self.failed || self.of(Verdict::NotAsked) > 0 || self.unfinished > 0 {
            Exit::Failed
        } else if self.unmet > 0 {
            Exit::Unmet
        } else {
            Exit::Fine
        }
    }

    /// What was found, in a sentence.
    pub fn summary(&self, total: u32, sent: u64, took: Duration) -> String {
        let mut parts = Vec::new();
        for (verdict, what) in [
            (Verdict::OneOwner, "with one owner"),
            (Verdict::Moved, "moved"),
            (Verdict::Nobody, "without an answer"),
            (Verdict::NotAsked, "not asked about"),
        ] {
            let number = self.of(verdict);
            if number > 0 || verdict == Verdict::OneOwner {
                parts.push(format!("{number} {what}"));
            }
        }
        if self.unfinished > 0 {
            parts.push(format!("{} not asked to the end", self.unfinished));
        }
        let conflicts = self.of(Verdict::Conflict);
        let more = conflicts.saturating_sub(self.conflicts.len() as u64);
        parts.insert(
            0,
            match (conflicts, more) {
                (0, _) => "no conflict".to_owned(),
                (_, 0) => format!("{conflicts} in conflict ({})", self.conflicts.join(", ")),
                _ => format!(
                    "{conflicts} in conflict ({} and {more} more)",
                    self.conflicts.join(", ")
                ),
            },
        );
        if self.unmet > 0 {
            parts.push(format!("{} not as expected", self.unmet));
        }
        let stopped = match (self.interrupted, self.failed) {
            (true, _) => "stopped; ",
            (false, true) => "broken off; ",
            (false, false) => "",
        };
        format!(
            "{stopped}{total} addresses: {}; {sent} questions in {:.1} s",
            parts.join(", "),
            took.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use probe_common::wire::Vlan;

    use super::*;

    fn record(verdict: Verdict, expected: Option<bool>) -> CheckRecord {
        CheckRecord {
            time: Timestamp::UNIX_EPOCH,
            ip: [192, 0, 2, 10].into(),
            interface: "eth0".to_owned(),
            vlan: Vlan::UNTAGGED,
            verdict,
            asked: 3,
            probed: false,
            owners: Vec::new(),
            more: 0,
            hint: None,
            neighbour: None,
            expected,
            cluster: None,
        }
    }

    fn results(records: &[(Verdict, Option<bool>)]) -> Results {
        let mut results = Results::default();
        for (verdict, expected) in records {
            results.count(&record(*verdict, *expected));
        }
        results
    }

    #[test]
    fn each_outcome_has_its_exit_status() {
        use Verdict::{Conflict, Moved, Nobody, NotAsked, OneOwner};
        for (records, exit) in [
            (&[][..], Exit::Fine),
            (&[(OneOwner, None), (Nobody, None)], Exit::Fine),
            (&[(OneOwner, Some(true))], Exit::Fine),
            (
                &[(Nobody, Some(false)), (OneOwner, Some(true))],
                Exit::Unmet,
            ),
            (&[(Moved, Some(false))], Exit::Unmet),
            (&[(Conflict, Some(false)), (OneOwner, None)], Exit::Conflict),
            (&[(NotAsked, None)], Exit::Failed),
            (
                &[(NotAsked, Some(false)), (Nobody, Some(true))],
                Exit::Failed,
            ),
            (&[(NotAsked, None), (Conflict, None)], Exit::Conflict),
        ] {
            assert_eq!(results(records).exit(), exit, "{records:?}");
        }
        for broken in [
            Results {
                interrupted: true,
                ..results(&[(Conflict, None)])
            },
            Results {
                failed: true,
                ..results(&[(OneOwner, Some(true))])
            },
            Results {
                unfinished: 1,
                ..results(&[])
            },
        ] {
            assert_eq!(broken.exit(), Exit::Failed);
        }
    }

    #[test]
    fn the_summary_names_the_conflicts_and_what_was_not_done() {
        use Verdict::{Conflict, Nobody, OneOwner};
        let mut results = results(&[(OneOwner, None), (Conflict, None), (Nobody, None)]);
        assert_eq!(
            results.summary(3, 5, Duration::from_millis(900)),
            "3 addresses: 1 in conflict (192.0.2.10), 1 with one owner, 1 without an answer; 5 questions in 0.9 s"
        );
        results.interrupted = true;
        results.unfinished = 7;
        let summary = results.summary(10, 5, Duration::from_secs(1));
        assert!(summary.starts_with("stopped; "), "{summary}");
        assert!(summary.contains("7 not asked to the end"), "{summary}");
    }
}
