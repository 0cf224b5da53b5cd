//! The metrics: made from what the kernel counts and what detection knows, at the moment of a scrape.

use probe_common::{
    counter::{Counter, Counters, Direction, Outcome},
    parse::Malformed,
    wire::{Bogus, Kind, Operation},
};
use prometheus::{Encoder as _, TextEncoder, proto::MetricFamily};

use super::{
    ConfigOutcome,
    family::{Description, Family},
};
use crate::{
    detect::{FindingKind, Severity},
    interfaces::{WatchState, Watched, WatchedInterfaces},
    kernel::{CounterReader, KernelError},
    monitor::Snapshot,
};

static FRAMES: Description<3> = Description::counter(
    "arp_monitor_frames_total",
    ["interface", "direction", "operation"],
    "Frames with the ARP ethertype.",
);
static MALFORMED: Description<3> = Description::counter(
    "arp_monitor_malformed_frames_total",
    ["interface", "direction", "reason"],
    "Frames with the ARP ethertype that are not ARP for IPv4 over Ethernet.",
);
static BOGUS: Description<3> = Description::counter(
    "arp_monitor_bogus_frames_total",
    ["interface", "direction", "reason"],
    "ARP frames whose sender addresses make no valid claim.",
);
static CLAIMS: Description<2> = Description::counter(
    "arp_monitor_claims_total",
    ["interface", "direction"],
    "ARP frames that claim an address.",
);
static PROBES: Description<2> = Description::counter(
    "arp_monitor_probes_total",
    ["interface", "direction"],
    "ARP probes (RFC 5227): requests that claim no address.",
);
static OUTCOMES: Description<4> = Description::counter(
    "arp_monitor_outcomes_total",
    ["interface", "direction", "kind", "outcome"],
    "What became of claims, ARP probes and bogus frames in the kernel.",
);
static RECEIVED: Description<2> = Description::counter(
    "arp_monitor_events_received_total",
    ["interface", "direction"],
    "Events that user space received; equals the emitted ones.",
);
static UNDECODABLE: Description<0> = Description::counter(
    "arp_monitor_events_undecodable_total",
    [],
    "Events that user space could not understand.",
);
static INTERFACE_INFO: Description<4> = Description::gauge(
    "arp_monitor_interface_info",
    ["interface", "mode", "reason", "vlan_visible"],
    "1 for each watched interface, with how its arriving frames are seen, why so, and whether their VLAN can \
     be told.",
);
static INTERFACE_ATTACHED: Description<1> = Description::gauge(
    "arp_monitor_interface_attached",
    ["interface"],
    "Whether the programs are attached to an interface that should be watched.",
);
static BINDINGS: Description<0> = Description::gauge(
    "arp_monitor_bindings",
    [],
    "Addresses whose owners are remembered.",
);
static EVICTED: Description<0> = Description::counter(
    "arp_monitor_evicted_bindings_total",
    [],
    "Addresses forgotten to make room for others.",
);
static FINDINGS: Description<2> = Description::counter(
    "arp_monitor_findings_total",
    ["finding", "severity"],
    "Findings reported.",
);
static OPEN_CONFLICTS: Description<0> = Description::gauge(
    "arp_monitor_open_conflicts",
    [],
    "Addresses that have more than one owner now.",
);
static CONFLICT_OWNERS: Description<3> = Description::gauge(
    "arp_monitor_conflict_owners",
    ["interface", "vlan", "ip"],
    "Owners of an address with an open conflict.",
);
static CONFLICT_OWNER_INFO: Description<4> = Description::gauge(
    "arp_monitor_conflict_owner_info",
    ["interface", "vlan", "ip", "mac"],
    "1 for each MAC address that claims an address with an open conflict.",
);
static CONFIG_SUCCESSFUL: Description<0> = Description::gauge(
    "arp_monitor_config_last_reload_successful",
    [],
    "Whether the settings could be used when they were last read; if not, the ones before hold.",
);
static CONFIG_SUCCESS: Description<0> = Description::gauge(
    "arp_monitor_config_last_reload_success_timestamp_seconds",
    [],
    "When settings that could be used were last read.",
);
static BUILD_INFO: Description<1> = Description::gauge(
    "arp_monitor_build_info",
    ["version"],
    "1, with the version of this program.",
);

/// Why the metrics could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The kernel's counters could not be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The encoder refused them.
    #[error("cannot encode the metrics: {0}")]
    Encode(#[from] prometheus::Error),
}

/// The text of a scrape.
pub fn encode(
    snapshot: &Snapshot,
    watched: &WatchedInterfaces,
    counters: &CounterReader,
    config: ConfigOutcome,
) -> Result<Vec<u8>, MetricsError> {
    let mut families = kernel_families(snapshot, watched, counters)?;
    families.extend(detection_families(snapshot, watched));
    families.extend(config_families(config));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

fn kernel_families(
    snapshot: &Snapshot,
    watched: &WatchedInterfaces,
    reader: &CounterReader,
) -> Result<Vec<MetricFamily>, KernelError> {
    let mut frames = Family::new(&FRAMES);
    let mut malformed = Family::new(&MALFORMED);
    let mut bogus = Family::new(&BOGUS);
    let mut claims = Family::new(&CLAIMS);
    let mut probes = Family::new(&PROBES);
    let mut outcomes = Family::new(&OUTCOMES);
    let mut received = Family::new(&RECEIVED);
    let mut info = Family::new(&INTERFACE_INFO);
    let mut attached = Family::new(&INTERFACE_ATTACHED);

    for Watched {
        ifindex,
        name,
        state,
    } in watched.iter()
    {
        match state {
            WatchState::Attached { plan, vlan_visible } => {
                let visible = if *vlan_visible { "1" } else { "0" };
                info.add([name, plan.mode.label(), plan.reason.label(), visible], 1);
                attached.add([name], 1);
            }
            WatchState::Failed { .. } => {
                attached.add([name], 0);
            }
        }
        for &direction in Direction::ALL {
            let counters: Counters = reader.read(*ifindex, direction)?.unwrap_or_default();
            let way = direction.label();
            for &operation in Operation::ALL {
                let count = counters.get(Counter::Frames(operation));
                frames.add([name, way, operation.label()], count);
            }
            for &reason in Malformed::ALL {
                let count = counters.get(Counter::Malformed(reason));
                malformed.add([name, way, reason.label()], count);
            }
            for &reason in Bogus::ALL {
                bogus.add(
                    [name, way, reason.label()],
                    counters.get(Counter::Bogus(reason)),
                );
            }
            claims.add([name, way], counters.get(Counter::Claims));
            probes.add([name, way], counters.get(Counter::Probes));
            for &kind in Kind::ALL {
                for (outcome, count) in Outcome::ALL.iter().zip(counters.outcomes(kind)) {
                    outcomes.add([name, way, kind.label(), outcome.label()], count);
                }
            }
            let count = snapshot
                .received
                .get(&(*ifindex, direction))
                .copied()
                .unwrap_or(0);
            received.add([name, way], count);
        }
    }
    Ok([
        info.finish(),
        attached.finish(),
        frames.finish(),
        malformed.finish(),
        bogus.finish(),
        claims.finish(),
        probes.finish(),
        outcomes.finish(),
        received.finish(),
    ]
    .into_iter()
    .flatten()
    .collect())
}

fn config_families(config: ConfigOutcome) -> impl Iterator<Item = MetricFamily> {
    let mut successful = Family::new(&CONFIG_SUCCESSFUL);
    successful.add([], u64::from(config.successful));
    let mut success = Family::new(&CONFIG_SUCCESS);
    success.add([], u64::try_from(config.success.as_second()).unwrap_or(0));
    [successful.finish(), success.finish()]
        .into_iter()
        .flatten()
}

fn detection_families(
    snapshot: &Snapshot,
    watched: &WatchedInterfaces,
) -> impl Iterator<Item = MetricFamily> {
    let statistics = &snapshot.statistics;
    let single = |description, value| {
        let mut family = Family::new(description);
        family.add([], value);
        family.finish()
    };
    let mut findings = Family::new(&FINDINGS);
    for &kind in FindingKind::ALL {
        for &severity in Severity::ALL {
            let count = statistics.findings(kind, severity);
            findings.add([kind.label(), severity.label()], count);
        }
    }
    let mut owners = Family::new(&CONFLICT_OWNERS);
    let mut owner_info = Family::new(&CONFLICT_OWNER_INFO);
    for binding in &snapshot.open_conflicts {
        let segment = binding.key.segment;
        let Some(interface) = watched
            .get(segment.interface)
            .map(|watched| watched.name.as_str())
        else {
            continue;
        };
        let (vlan, ip) = (segment.vlan.to_string(), binding.key.ip.to_string());
        owners.add([interface, &vlan, &ip], binding.owners.len() as u64);
        for mac in binding.owners.iter().flat_map(|owner| &owner.macs) {
            owner_info.add([interface, &vlan, &ip, &mac.to_string()], 1);
        }
    }
    let mut build = Family::new(&BUILD_INFO);
    build.add([env!("CARGO_PKG_VERSION")], 1);
    [
        single(&UNDECODABLE, snapshot.undecodable),
        single(&BINDINGS, statistics.bindings as u64),
        single(&EVICTED, statistics.evicted_bindings),
        findings.finish(),
        single(&OPEN_CONFLICTS, statistics.open_conflicts as u64),
        owners.finish(),
        owner_info.finish(),
        build.finish(),
    ]
    .into_iter()
    .flatten()
}
