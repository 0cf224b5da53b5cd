//! The summary of all addresses and the exit status.

use std::time::Duration;

use probe_model::{CheckRecord, CheckStatus};

use crate::cli::Exit;

/// Maximum number of conflicts in the summary.
const MAX_NAMED: usize = 10;

/// The number of addresses by status.
#[derive(Clone, Debug, Default)]
pub struct CheckSummary {
    counts: [u64; CheckStatus::COUNT],
    conflicts: Vec<String>,
    expectations_failed: u64,
    /// Addresses that were probed, but not completely.
    pub unfinished: u64,
    /// A signal stopped the check.
    pub interrupted: bool,
    /// An error ended the check.
    pub failed: bool,
}

impl CheckSummary {
    /// Counts an address.
    pub fn count(&mut self, record: &CheckRecord) {
        self.counts[usize::from(record.status.number())] += 1;
        if record.status == CheckStatus::Conflict && self.conflicts.len() < MAX_NAMED {
            self.conflicts.push(record.ip.to_string());
        }
        self.expectations_failed += u64::from(record.expected == Some(false));
    }

    /// The number of addresses with this status.
    pub fn count_of(&self, status: CheckStatus) -> u64 {
        self.counts[usize::from(status.number())]
    }

    /// The exit status. A stopped check fails; a conflict takes precedence over addresses that were not probed; an
    /// address that was not probed is never as expected.
    pub fn exit(&self) -> Exit {
        if self.interrupted {
            Exit::Failed
        } else if self.count_of(CheckStatus::Conflict) > 0 {
            Exit::Conflict
        } else if self.failed || self.count_of(CheckStatus::NotProbed) > 0 || self.unfinished > 0 {
            Exit::Failed
        } else if self.expectations_failed > 0 {
            Exit::ExpectationFailed
        } else {
            Exit::Success
        }
    }

    /// The summary in one sentence.
    pub fn summary(&self, total: u32, probes_sent: u64, took: Duration) -> String {
        let mut parts = Vec::new();
        for (status, what) in [
            (CheckStatus::OneOwner, "with one owner"),
            (CheckStatus::Contested, "contested"),
            (CheckStatus::Moved, "moved"),
            (CheckStatus::NoReply, "without a reply"),
            (CheckStatus::NotProbed, "not probed"),
        ] {
            let number = self.count_of(status);
            if number > 0 || status == CheckStatus::OneOwner {
                parts.push(format!("{number} {what}"));
            }
        }
        if self.unfinished > 0 {
            parts.push(format!("{} not probed completely", self.unfinished));
        }
        let conflicts = self.count_of(CheckStatus::Conflict);
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
        if self.expectations_failed > 0 {
            parts.push(format!("{} not as expected", self.expectations_failed));
        }
        let stopped = match (self.interrupted, self.failed) {
            (true, _) => "stopped; ",
            (false, true) => "failed; ",
            (false, false) => "",
        };
        format!(
            "{stopped}{total} addresses: {}; {probes_sent} probes in {:.1} s",
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

    fn record(status: CheckStatus, expected: Option<bool>) -> CheckRecord {
        CheckRecord {
            time: Timestamp::UNIX_EPOCH,
            ip: [192, 0, 2, 10].into(),
            interface: "eth0".to_owned(),
            vlan: Vlan::UNTAGGED,
            status,
            probes_sent: 3,
            requests_sent: 0,
            probed_by: None,
            owners: Vec::new(),
            frames_dropped: 0,
            hint: None,
            neighbor: None,
            expected,
            cluster: None,
        }
    }

    fn results(records: &[(CheckStatus, Option<bool>)]) -> CheckSummary {
        let mut results = CheckSummary::default();
        for (status, expected) in records {
            results.count(&record(*status, *expected));
        }
        results
    }

    #[test]
    fn each_check_outcome_has_an_exit_status() {
        use CheckStatus::{Conflict, Contested, Moved, NoReply, NotProbed, OneOwner};
        for (records, exit) in [
            (&[][..], Exit::Success),
            (&[(OneOwner, None), (NoReply, None)], Exit::Success),
            (&[(OneOwner, Some(true))], Exit::Success),
            (
                &[(NoReply, Some(false)), (OneOwner, Some(true))],
                Exit::ExpectationFailed,
            ),
            (&[(Moved, Some(false))], Exit::ExpectationFailed),
            (&[(Contested, Some(false))], Exit::ExpectationFailed),
            (&[(Conflict, Some(false)), (OneOwner, None)], Exit::Conflict),
            (&[(NotProbed, None)], Exit::Failed),
            (
                &[(NotProbed, Some(false)), (NoReply, Some(true))],
                Exit::Failed,
            ),
            (&[(NotProbed, None), (Conflict, None)], Exit::Conflict),
        ] {
            assert_eq!(results(records).exit(), exit, "{records:?}");
        }
        for broken in [
            CheckSummary {
                interrupted: true,
                ..results(&[(Conflict, None)])
            },
            CheckSummary {
                failed: true,
                ..results(&[(OneOwner, Some(true))])
            },
            CheckSummary {
                unfinished: 1,
                ..results(&[])
            },
        ] {
            assert_eq!(broken.exit(), Exit::Failed);
        }
    }

    #[test]
    fn summary_lists_conflicts_and_incomplete_targets() {
        use CheckStatus::{Conflict, NoReply, OneOwner};
        let mut results = results(&[(OneOwner, None), (Conflict, None), (NoReply, None)]);
        assert_eq!(
            results.summary(3, 5, Duration::from_millis(900)),
            "3 addresses: 1 in conflict (192.0.2.10), 1 with one owner, 1 without a reply; 5 probes in 0.9 s"
        );
        results.interrupted = true;
        results.unfinished = 7;
        let summary = results.summary(10, 5, Duration::from_secs(1));
        assert!(summary.starts_with("stopped; "), "{summary}");
        assert!(summary.contains("7 not probed completely"), "{summary}");
    }
}
