//! `probe drift`: the drifts of the daemon between the cluster and the network.

use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;
use probe_cluster::drift::Drift;

use super::{Exit, daemon::DaemonArguments, output::print_status, source::duration};

#[derive(Debug, Args)]
pub struct DriftStatusArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
}

/// When the daemon reports drift.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct DriftArguments {
    /// Report drift between Kubernetes objects and the network after it has lasted for this time; rollouts are shorter
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub drift_after: Duration,
}

pub fn run(arguments: &DriftStatusArguments) -> anyhow::Result<Exit> {
    let mut number = 0;
    let zone = TimeZone::system();
    let printer = arguments
        .daemon
        .print_list("/v1/drift", |printer, drift: Drift| {
            number += 1;
            printer.line(&drift, &describe(&drift, &zone))
        })?;
    if number > 0 {
        return Ok(Exit::ExpectationFailed);
    }
    if printer.is_human_output() {
        print_status("no drift");
    }
    Ok(Exit::Success)
}

fn describe(drift: &Drift, zone: &TimeZone) -> String {
    let since = drift.since.to_zoned(zone.clone());
    let since = since.strftime("%Y-%m-%d %H:%M:%S");
    let head = format!("{}: {} (since {since})", drift.drift, drift.summary);
    let evidence = drift.evidence.iter().map(|one| format!("\n    {one}"));
    evidence.fold(head, |text, line| text + &line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drift_is_a_line_and_one_for_each_piece_of_evidence() {
        let drift = json!({
            "drift": "unadvertised_pool",
            "severity": "warning",
            "since": "2026-11-20T12:00:00Z",
            "pool": {"namespace": "metallb-system", "name": "production"},
            "summary": "No advertisement announces the pool metallb-system/production",
            "evidence": ["3 addresses of it are assigned"],
        });
        let drift: Drift = serde_json::from_value(drift).unwrap();
        assert_eq!(
            describe(&drift, &TimeZone::UTC),
            "unadvertised_pool: No advertisement announces the pool metallb-system/production \
             (since 2026-11-20 12:00:00)\n    3 addresses of it are assigned"
        );
    }
}
