//! The next step after a finding: a command with its purpose.

use std::{borrow::Cow, path::PathBuf};

use probe_common::wire::{MacAddr, Vlan};
use serde::{Deserialize, Serialize};

use super::{
    CheckRecord, FindingRecord, OwnerRecord,
    cause_step::{CauseSubject, arp_flux, cause_step, ipvs_strict_arp},
};
use crate::{CauseKind, CheckStatus, Evidence, FindingKind, Hint, OwnerRole};

/// The source of findings, on which the possible next steps depend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingOrigin {
    /// This process, with its own programs attached.
    Attached,
    /// The daemon on this host.
    Daemon,
    /// A capture.
    Capture(PathBuf),
}

/// A command for the reader of a finding, with its purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStep {
    /// The purpose; it ends with a colon, because the command follows.
    pub purpose: String,
    /// The shell command.
    pub command: String,
}

impl NextStep {
    /// A step with this purpose and this command.
    pub fn new(purpose: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            purpose: purpose.into(),
            command: command.into(),
        }
    }
}

/// The next step after a finding; `None` if nothing is to be done.
pub fn next_step(record: &FindingRecord, origin: &FindingOrigin) -> Option<NextStep> {
    if record.drill {
        return None;
    }
    match record.finding {
        FindingKind::NewBinding => None,
        FindingKind::Moved => Some(NextStep::new(
            "if it was not moved on purpose, identify the host that has it now:",
            identify_hosts(
                &macs_of(record, |owner| owner.role == OwnerRole::Current),
                origin,
            ),
        )),
        FindingKind::ConflictQuiet | FindingKind::ConflictExpired
            if can_be_probed(record, origin) =>
        {
            Some(NextStep::new(
                "a silent duplicate answers only when asked:",
                check_command(record.ip, &record.interface, record.vlan, ""),
            ))
        }
        FindingKind::Contested | FindingKind::Conflict | FindingKind::ConflictQuiet => {
            Some(dispute_step(record, origin))
        }
        FindingKind::ConflictResolved if can_be_probed(record, origin) => Some(NextStep::new(
            "nothing, or see whether it stays so:",
            check_command(record.ip, &record.interface, record.vlan, " --for 60s"),
        )),
        FindingKind::ConflictResolved | FindingKind::ConflictExpired => Some(NextStep::new(
            "nothing, or see whether it stays so:",
            keep_watching(record, origin),
        )),
        FindingKind::StaleAnnouncement => Some(NextStep::new(
            "correct the neighbour caches: on the current owner, announce the address again:",
            format!(
                "arping -U -c 3 -I {} {}",
                quoted(&record.interface),
                record.ip
            ),
        )),
        FindingKind::ProbeDenied => Some(NextStep::new(
            "give the probing host another address; to identify it:",
            identify_hosts(
                &macs_of(record, |owner| owner.role == OwnerRole::Prober),
                origin,
            ),
        )),
        FindingKind::BogusClaim | FindingKind::SourceMismatch => Some(NextStep::new(
            "identify the host that sends these frames:",
            identify_hosts(
                &macs_of(record, |owner| owner.role == OwnerRole::Sender),
                origin,
            ),
        )),
        FindingKind::Silent if can_be_probed(record, origin) => Some(NextStep::new(
            "ask for it:",
            check_command(record.ip, &record.interface, record.vlan, ""),
        )),
        FindingKind::Silent => Some(NextStep::new(
            "ask for it:",
            format!("ping -c 3 {}", record.ip),
        )),
    }
}

/// Whether the address can be probed from this host: an IPv4 address that is not from a capture.
fn can_be_probed(record: &FindingRecord, origin: &FindingOrigin) -> bool {
    record.ip.is_ipv4() && !matches!(origin, FindingOrigin::Capture(_))
}

/// The next step after a check; `None` if nothing is to be done.
pub fn after_check(record: &CheckRecord) -> Option<NextStep> {
    let macs = |local: bool| -> Vec<_> {
        let owners = record.owners.iter().filter(|owner| owner.local == local);
        owners
            .flat_map(|owner| owner.macs.iter().copied())
            .collect()
    };
    let by_hint = record
        .hint
        .and_then(|hint| hint_step(hint, &record.interface, record.vlan));
    if by_hint.is_some() {
        return by_hint;
    }
    match record.status {
        CheckStatus::Conflict if record.owners.iter().any(|owner| owner.holds) => {
            Some(NextStep::new(
                "identify the other host, and take the address off one of the two:",
                identify_hosts(&macs(false), &FindingOrigin::Attached),
            ))
        }
        CheckStatus::Conflict => Some(NextStep::new(
            "identify the hosts, and take the address off all but one:",
            identify_hosts(
                &[macs(false), macs(true)].concat(),
                &FindingOrigin::Attached,
            ),
        )),
        CheckStatus::Moved => Some(NextStep::new(
            "nothing, if somebody moved it; to see whether it stays:",
            check_command(
                record.ip.into(),
                &record.interface,
                record.vlan,
                " --for 60s",
            ),
        )),
        // Without a step for the hint, the MACs are to be identified.
        CheckStatus::Contested => Some(NextStep::new(
            "see which hosts these are, and take the address off the one that is no router:",
            identify_hosts(
                &[macs(false), macs(true)].concat(),
                &FindingOrigin::Attached,
            ),
        )),
        CheckStatus::OneOwner | CheckStatus::NoReply | CheckStatus::NotProbed => None,
    }
}

/// The command that probes an address on its segment.
fn check_command(ip: std::net::IpAddr, interface: &str, vlan: Vlan, options: &str) -> String {
    let vlan = match vlan {
        Vlan::UNTAGGED => String::new(),
        vlan => format!(" --vlan {vlan}"),
    };
    format!("probe check -i {}{vlan}{options} {ip}", quoted(interface))
}

fn dispute_step(record: &FindingRecord, origin: &FindingOrigin) -> NextStep {
    if record.cluster.is_some() && *origin == FindingOrigin::Daemon {
        return NextStep::new(
            "see who has it now, who should, and what to do about it:",
            format!("probe explain {}", record.ip),
        );
    }
    if let Some(step) = cluster_step(record, origin) {
        return step;
    }
    let by_hint = record
        .hint
        .and_then(|hint| hint_step(hint, &record.interface, record.vlan));
    by_hint.unwrap_or_else(|| owners_step(record, origin))
}

/// The next step for the cause in the cluster; `None` if there is none.
fn cluster_step(record: &FindingRecord, origin: &FindingOrigin) -> Option<NextStep> {
    let context = record.cluster.as_deref()?;
    let kind = context.cause.as_ref()?.kind;
    let pool = context.pool.as_ref();
    // The node with the address on an interface is not the one whose speaker announces it.
    let mut not_announcing = record.owners.iter().filter(|owner| !owner.announces());
    let node = match kind {
        CauseKind::NodeAddress => not_announcing.find_map(|owner| owner.node.as_deref()),
        _ => None,
    };
    let unknown_hosts = macs_of(record, |owner| owner.node.is_none() && !owner.local);
    let subject = CauseSubject {
        ip: record.ip,
        namespace: pool.map(|pool| pool.namespace.as_str()),
        node,
        identify_command: &identify_hosts(&unknown_hosts, origin),
    };
    cause_step(kind, subject)
}

/// The next step for a likely cause; `None` if the owners are to be identified.
fn hint_step(hint: Hint, interface: &str, vlan: Vlan) -> Option<NextStep> {
    Some(match hint {
        Hint::IpvsStrictArp => ipvs_strict_arp(),
        Hint::ArpFlux => arp_flux(),
        Hint::TwoMasters => NextStep::new(
            "see who says that it is master; two sources are two masters:",
            router_advertisements(interface, vlan),
        ),
        Hint::TwoRouterGroups => NextStep::new(
            "see which groups (vrid) announce it:",
            router_advertisements(interface, vlan),
        ),
        Hint::BalanceAlb => NextStep::new(
            "on that machine, see the mode of its bond:",
            "grep -H Mode /proc/net/bonding/*",
        ),
        Hint::TwoAnnouncers => NextStep::new(
            "in each cluster, see who runs speakers; one install may announce it:",
            "kubectl get pods -A -o wide | grep -e speaker -e kube-vip",
        ),
        Hint::RouterAndHost | Hint::AnnouncerAndHost => return None,
    })
}

fn owners_step(record: &FindingRecord, origin: &FindingOrigin) -> NextStep {
    if record.evidence == Some(Evidence::Local) && *origin != FindingOrigin::Attached {
        // This host has the address, so only the other one is to be identified.
        return NextStep::new(
            "identify the other host, and take the address off one of the two:",
            identify_hosts(&macs_of(record, |owner| !owner.local), origin),
        );
    }
    if record.evidence == Some(Evidence::Local) {
        return NextStep::new(
            "see where this host has it; take it off here, or off the other machine:",
            format!("ip address show to {}", record.ip),
        );
    }
    NextStep::new(
        "identify the hosts, and take the address off all but one:",
        identify_hosts(&macs_of(record, |_| true), origin),
    )
}

/// The command that shows the addresses of the hosts with these MACs.
pub fn identify_hosts(macs: &[MacAddr], origin: &FindingOrigin) -> String {
    let macs: Vec<_> = macs.iter().map(ToString::to_string).collect();
    match origin {
        FindingOrigin::Attached => format!("ip neigh | grep -e {}", macs.join(" -e ")),
        FindingOrigin::Daemon => format!("probe bindings --mac {}", macs.join(",")),
        FindingOrigin::Capture(file) => {
            let file = file.to_string_lossy();
            format!(
                "probe watch --read {} --mac {}",
                quoted(&file),
                macs.join(",")
            )
        }
    }
}

fn keep_watching(record: &FindingRecord, origin: &FindingOrigin) -> String {
    match origin {
        FindingOrigin::Attached => {
            format!("probe watch -i {} --ip {}", record.interface, record.ip)
        }
        FindingOrigin::Daemon => format!("probe watch --ip {}", record.ip),
        FindingOrigin::Capture(file) => format!(
            "probe watch --read {} --ip {} --claims",
            quoted(&file.to_string_lossy()),
            record.ip
        ),
    }
}

/// The command that captures VRRP and CARP advertisements (IP protocol 112).
fn router_advertisements(interface: &str, vlan: Vlan) -> String {
    let tags: String = match vlan {
        Vlan([0, _]) => String::new(),
        Vlan([outer, 0]) => format!("vlan {outer} and "),
        Vlan([outer, inner]) => format!("vlan {outer} and vlan {inner} and "),
    };
    format!("tcpdump -c 10 -nvi {interface} {tags}ip proto 112")
}

fn macs_of(record: &FindingRecord, filter: impl Fn(&OwnerRecord) -> bool) -> Vec<MacAddr> {
    let owners = record.owners.iter().filter(|owner| filter(owner));
    owners
        .flat_map(|owner| owner.macs.iter().copied())
        .collect()
}

/// Quotes a word for a shell, if necessary.
pub(super) fn quoted(word: &str) -> Cow<'_, str> {
    let safe = |c: char| c.is_alphanumeric() || "/._-+:@%,".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''")).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_in_a_cluster_has_its_own_step() {
        let record = |kind: CauseKind| -> FindingRecord {
            serde_json::from_value(serde_json::json!({
                "time": "2026-11-20T12:00:00Z", "finding": "conflict", "severity": "critical",
                "interface": "eth0", "vlan": "0", "ip": "192.0.2.240", "since": "2026-11-20T12:00:00Z",
                "owners": [
                    {"macs": ["02:00:00:00:00:01"], "node": "node-1", "role": "current", "local": false,
                        "first_seen": "2026-11-20T12:00:00Z", "last_seen": "2026-11-20T12:00:00Z", "claims": 1},
                    {"macs": ["02:00:00:00:00:09"], "role": "earlier", "local": false,
                        "first_seen": "2026-11-20T12:00:00Z", "last_seen": "2026-11-20T12:00:00Z", "claims": 1},
                ],
                "counts": {"duplicate_replies": 1, "returns": 0, "local": 0, "confirmed": 0, "suppressed": 0},
                "cluster": {
                    "pool": {"namespace": "lb", "name": "production"}, "announced": "layer2",
                    "cause": {"kind": kind, "scope": "unknown", "evidence": []},
                },
            }))
            .unwrap()
        };
        let unknown = next_step(&record(CauseKind::Unknown), &FindingOrigin::Attached).unwrap();
        for &kind in CauseKind::ALL {
            let step = next_step(&record(kind), &FindingOrigin::Attached).unwrap();
            assert!(step.purpose.ends_with(':'), "{kind}");
            assert_eq!(
                step == unknown,
                kind == CauseKind::Unknown,
                "{kind}: {step:?}"
            );
        }
        let external =
            next_step(&record(CauseKind::ExternalDevice), &FindingOrigin::Attached).unwrap();
        assert_eq!(external.command, "ip neigh | grep -e 02:00:00:00:00:09");
        let split = next_step(&record(CauseKind::SplitBrain), &FindingOrigin::Attached).unwrap();
        assert!(
            split.command.starts_with("kubectl -n lb get pods"),
            "{split:?}"
        );
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("/tmp/a-1.pcapng"), "/tmp/a-1.pcapng");
        assert_eq!(quoted("two words"), "'two words'");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted(""), "''");
    }
}
