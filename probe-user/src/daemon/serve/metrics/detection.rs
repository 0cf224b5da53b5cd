//! The metrics of detection as a whole.

use probe_detect::ProbePurpose;
use probe_model::{FindingKind, Severity};
use probe_prober::{NotSentReason, ProberState};

use super::{
    family::{MetricDescription, MetricFamily},
    list,
};
use crate::daemon::{address_statistics::DetectionLatency, monitor::MonitorSnapshot};

/// The statistics of detection.
pub fn families(snapshot: &MonitorSnapshot) -> String {
    let statistics = &snapshot.statistics;
    let mut findings = MetricFamily::new(list::FINDINGS);
    let mut suppressed = MetricFamily::new(list::HELD_BACK);
    let mut ignored = MetricFamily::new(list::IGNORED);
    for &kind in FindingKind::ALL {
        let (word, number) = (kind.label(), usize::from(kind.number()));
        for &severity in Severity::ALL {
            findings.add(
                [word, severity.label()],
                statistics.findings(kind, severity),
            );
        }
        suppressed.add([word], statistics.suppressed[number]);
        if kind.is_dispute() {
            ignored.add([word], statistics.ignored[number]);
        }
    }
    let mut asks = MetricFamily::new(list::ASKS);
    for &purpose in ProbePurpose::ALL {
        asks.add([purpose.label()], snapshot.prober.counts.sent(purpose));
    }
    let mut asks_not_sent = MetricFamily::new(list::ASKS_NOT_SENT);
    for &reason in NotSentReason::ALL {
        let count = snapshot.prober.counts.not_sent(reason);
        asks_not_sent.add([reason.label()], count);
    }
    let mut prober = MetricFamily::new(list::ASKING);
    for &state in ProberState::ALL {
        prober.add([state.label()], u64::from(state == snapshot.prober.state));
    }
    let mut evicted_macs = MetricFamily::new(list::EVICTED_MACS);
    let tracked = statistics.evicted_tracked_macs;
    evicted_macs.add(["true"], tracked);
    evicted_macs.add(["false"], statistics.evicted_macs - tracked);
    let mut build = MetricFamily::new(list::BUILD_INFO);
    build.add([env!("CARGO_PKG_VERSION")], 1);
    [
        single(list::UNDECODABLE, snapshot.undecodable),
        delays(&snapshot.detection_latency),
        single(list::BINDINGS, statistics.bindings as u64),
        single(list::EVICTED, statistics.evicted_bindings),
        evicted_macs.finish(),
        single(list::TURNED_AWAY, statistics.rejected_claims),
        single(list::CLOCK_STEPS, statistics.clock_steps),
        findings.finish(),
        suppressed.finish(),
        ignored.finish(),
        single(list::OPEN_CONFLICTS, statistics.open_conflicts as u64),
        single(list::QUIET_CONFLICTS, statistics.quiet_conflicts as u64),
        single(list::TRACKED, statistics.tracked as u64),
        asks.finish(),
        asks_not_sent.finish(),
        prober.finish(),
        build.finish(),
    ]
    .concat()
}

fn single(description: MetricDescription<0>, value: u64) -> String {
    let mut family = MetricFamily::new(description);
    family.add([], value);
    family.finish()
}

fn delays(detection_latency: &DetectionLatency) -> String {
    let mut family = MetricFamily::new(list::EVENT_DELAY);
    let cumulated = detection_latency.cumulative();
    let all = cumulated.last().copied().unwrap_or_default();
    for (bound, count) in DetectionLatency::BOUNDS.into_iter().zip(cumulated) {
        // The usual notation of bounds: 0.001, not 0.001000000.
        let bound = bound.as_secs_f64().to_string();
        family.sample("_bucket", [], Some(("le", &bound)), count);
    }
    family.sample("_bucket", [], Some(("le", "+Inf")), all);
    family.sample("_sum", [], None, detection_latency.sum().as_secs_f64());
    family.sample("_count", [], None, all);
    family.finish()
}
