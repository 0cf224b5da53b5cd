//! What to do about a finding: one command, and what it is for.

use std::{borrow::Cow, path::PathBuf};

use probe_common::wire::{MacAddr, Vlan};

use super::{CheckRecord, FindingRecord, OwnerRecord};
use crate::{
    check::Verdict,
    cluster::CauseKind,
    detect::{Evidence, FindingKind, Hint, Role},
};

/// Where findings come from, which decides what can be asked next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process watches by itself.
    Attached,
    /// The daemon on this host.
    Daemon,
    /// A capture.
    Capture(PathBuf),
}

/// A command, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextStep {
    /// Ends with a colon: the command follows.
    pub purpose: &'static str,
    /// For a shell.
    pub command: String,
}

/// What to do about a finding, if there is something to do.
pub fn next_step(record: &FindingRecord, origin: &Origin) -> Option<NextStep> {
    if record.drill {
        return None;
    }
    match record.finding {
        FindingKind::NewBinding => None,
        FindingKind::Moved => Some(NextStep {
            purpose: "if nobody moved it on purpose, see which machine has it now:",
            command: machines(
                &macs_of(record, |owner| owner.role == Role::Current),
                origin,
            ),
        }),
        FindingKind::ConflictQuiet | FindingKind::ConflictExpired
            if can_be_asked(record, origin) =>
        {
            Some(NextStep {
                purpose: "a silent duplicate answers only when asked:",
                command: check(record.ip, &record.interface, record.vlan, ""),
            })
        }
        FindingKind::Contested | FindingKind::Conflict | FindingKind::ConflictQuiet => {
            Some(dispute(record, origin))
        }
        FindingKind::ConflictResolved if can_be_asked(record, origin) => Some(NextStep {
            purpose: "nothing, or see whether it stays so:",
            command: check(record.ip, &record.interface, record.vlan, " --for 60s"),
        }),
        FindingKind::ConflictResolved | FindingKind::ConflictExpired => Some(NextStep {
            purpose: "nothing, or see whether it stays so:",
            command: stay(record, origin),
        }),
        FindingKind::ProbeDenied => Some(NextStep {
            purpose: "give the newcomer another address; to see which machine it is:",
            command: machines(&macs_of(record, |owner| owner.role == Role::Prober), origin),
        }),
        FindingKind::BogusClaim | FindingKind::SourceMismatch => Some(NextStep {
            purpose: "see which machine sends these frames:",
            command: machines(&macs_of(record, |owner| owner.role == Role::Sender), origin),
        }),
        FindingKind::Silent if can_be_asked(record, origin) => Some(NextStep {
            purpose: "ask for it:",
            command: check(record.ip, &record.interface, record.vlan, ""),
        }),
        FindingKind::Silent => Some(NextStep {
            purpose: "ask for it:",
            command: format!("ping -c 3 {}", record.ip),
        }),
    }
}

/// Whether the segment is at hand, and has ARP.
fn can_be_asked(record: &FindingRecord, origin: &Origin) -> bool {
    record.ip.is_ipv4() && !matches!(origin, Origin::Capture(_))
}

/// What to do about what a check found out, if there is something to do.
pub fn after_check(record: &CheckRecord) -> Option<NextStep> {
    let macs = |local: bool| -> Vec<_> {
        let owners = record.owners.iter().filter(|owner| owner.local == local);
        owners
            .flat_map(|owner| owner.macs.iter().copied())
            .collect()
    };
    let by_hint = record
        .hint
        .and_then(|hint| about_cause(hint, &record.interface, record.vlan));
    if by_hint.is_some() {
        return by_hint;
    }
    match record.verdict {
        Verdict::Conflict if record.owners.iter().any(|owner| owner.holds) => Some(NextStep {
            purpose: "see which machine the other one is, and take the address off one of the two:",
            command: machines(&macs(false), &Origin::Attached),
        }),
        Verdict::Conflict => Some(NextStep {
            purpose: "see which machines these are, and take the address off all but one:",
            command: machines(&[macs(false), macs(true)].concat(), &Origin::Attached),
        }),
        Verdict::Moved => Some(NextStep {
            purpose: "nothing, if somebody moved it; to see whether it stays:",
            command: check(
                record.ip.into(),
                &record.interface,
                record.vlan,
                " --for 60s",
            ),
        }),
        Verdict::OneOwner | Verdict::Nobody | Verdict::NotAsked => None,
    }
}

/// Asks on the segment of an address who has it.
fn check(ip: std::net::IpAddr, interface: &str, vlan: Vlan, options: &str) -> String {
    let vlan = match vlan {
        Vlan::UNTAGGED => String::new(),
        vlan => format!(" --vlan {vlan}"),
    };
    format!("probe check -i {}{vlan}{options} {ip}", quoted(interface))
}

fn dispute(record: &FindingRecord, origin: &Origin) -> NextStep {
    if record.cluster.is_some() && *origin == Origin::Daemon {
        return NextStep {
            purpose: "see who has it now, who should, and what to do about it:",
            command: format!("probe explain {}", record.ip),
        };
    }
    if let Some(step) = about_cluster(record, origin) {
        return step;
    }
    let by_hint = record
        .hint
        .and_then(|hint| about_cause(hint, &record.interface, record.vlan));
    by_hint.unwrap_or_else(|| owners(record, origin))
}

/// What to look at where the cluster knows the cause; `None` where what was seen says as much.
fn about_cluster(record: &FindingRecord, origin: &Origin) -> Option<NextStep> {
    let context = record.cluster.as_deref()?;
    let speakers = || {
        let pool = context.pool.as_ref().map(|pool| pool.namespace.as_str());
        let namespace = pool.filter(|namespace| !namespace.is_empty());
        namespace.unwrap_or("metallb-system").to_owned()
    };
    let (purpose, command) = match context.cause.as_ref()?.kind {
        CauseKind::NodeAddress => (
            "on the node that does not announce it, see where it has it, and take it off there:",
            format!("ip address show to {}", record.ip),
        ),
        CauseKind::StaleSpeaker => (
            "see which speakers run where; restart the one that should not announce it:",
            "kubectl get pods -A -o wide -l component=speaker".to_owned(),
        ),
        CauseKind::SeveralInstalls => (
            "see what each install hands out; one of them has to go:",
            "kubectl get ipaddresspools -A".to_owned(),
        ),
        CauseKind::SplitBrain => (
            "see whether the speakers see each other; restart them if they do:",
            format!(
                "kubectl -n {} logs -l component=speaker --prefix --tail 200 | grep -i member",
                quoted(&speakers())
            ),
        ),
        CauseKind::ExternalDevice => (
            "see which machine the other one is; take the address off it, or out of the pool:",
            machines(
                &macs_of(record, |owner| owner.node.is_none() && !owner.local),
                origin,
            ),
        ),
        CauseKind::OtherCluster => (
            "compare the pools of both clusters, and agree whose range it is:",
            "probe pools check --context ONE --context OTHER".to_owned(),
        ),
        CauseKind::SharedWithoutKey => (
            "see whose it is; all but one get another address, or all one sharing key:",
            format!("kubectl get services -A | grep -F {}", record.ip),
        ),
        CauseKind::ArpFlux => return about_cause(Hint::ArpFlux, &record.interface, record.vlan),
        CauseKind::IpvsStrictArp => {
            return about_cause(Hint::IpvsStrictArp, &record.interface, record.vlan);
        }
        CauseKind::Unknown => return None,
    };
    Some(NextStep { purpose, command })
}

/// What to look at where a cause is likely; `None` where the owners themselves are the next step.
fn about_cause(hint: Hint, interface: &str, vlan: Vlan) -> Option<NextStep> {
    Some(match hint {
        Hint::IpvsStrictArp => NextStep {
            purpose: "in Kubernetes, see that strictARP is true:",
            command: "kubectl -n kube-system get configmap kube-proxy -o yaml | grep strictARP"
                .to_owned(),
        },
        Hint::ArpFlux => NextStep {
            purpose: "with 1, each interface answers for its own addresses only:",
            command: "sysctl net.ipv4.conf.all.arp_ignore".to_owned(),
        },
        Hint::TwoMasters => NextStep {
            purpose: "see who says that it is master; two sources are two masters:",
            command: router_advertisements(interface, vlan),
        },
        Hint::TwoRouterGroups => NextStep {
            purpose: "see which groups (vrid) announce it:",
            command: router_advertisements(interface, vlan),
        },
        Hint::BalanceAlb => NextStep {
            purpose: "on that machine, see the mode of its bond:",
            command: "grep -H Mode /proc/net/bonding/*".to_owned(),
        },
        Hint::TwoAnnouncers => NextStep {
            purpose: "in each cluster, see who runs speakers; one install may announce it:",
            command: "kubectl get pods -A -o wide | grep -e speaker -e kube-vip".to_owned(),
        },
        Hint::RouterAndHost | Hint::AnnouncerAndHost => return None,
    })
}

fn owners(record: &FindingRecord, origin: &Origin) -> NextStep {
    if record.evidence == Some(Evidence::Local) && *origin != Origin::Attached {
        // The stranger is the unknown here; who holds the address is known.
        return NextStep {
            purpose: "see which machine the other one is, and take the address off one of the two:",
            command: machines(&macs_of(record, |owner| !owner.local), origin),
        };
    }
    if record.evidence == Some(Evidence::Local) {
        return NextStep {
            purpose: "see where this host has it; take it off here, or off the other machine:",
            command: format!("ip address show to {}", record.ip),
        };
    }
    NextStep {
        purpose: "see which machines these are, and take the address off all but one:",
        command: machines(&macs_of(record, |_| true), origin),
    }
}

/// Shows what else the machines with these MACs are known as.
pub fn machines(macs: &[MacAddr], origin: &Origin) -> String {
    let macs: Vec<_> = macs.iter().map(ToString::to_string).collect();
    match origin {
        Origin::Attached => format!("ip neigh | grep -e {}", macs.join(" -e ")),
        Origin::Daemon => format!("probe bindings --mac {}", macs.join(",")),
        Origin::Capture(file) => {
            let file = file.to_string_lossy();
            format!(
                "probe watch --read {} --mac {}",
                quoted(&file),
                macs.join(",")
            )
        }
    }
}

fn stay(record: &FindingRecord, origin: &Origin) -> String {
    match origin {
        Origin::Attached => format!("probe watch -i {} --ip {}", record.interface, record.ip),
        Origin::Daemon => format!("probe watch --ip {}", record.ip),
        Origin::Capture(file) => format!(
            "probe watch --read {} --ip {} --claims",
            quoted(&file.to_string_lossy()),
            record.ip
        ),
    }
}

/// VRRP and CARP are IP protocol 112.
fn router_advertisements(interface: &str, vlan: Vlan) -> String {
    let tags: String = match vlan {
        Vlan([0, _]) => String::new(),
        Vlan([outer, 0]) => format!("vlan {outer} and "),
        Vlan([outer, inner]) => format!("vlan {outer} and vlan {inner} and "),
    };
    format!("tcpdump -c 10 -nvi {interface} {tags}ip proto 112")
}

fn macs_of(record: &FindingRecord, wanted: impl Fn(&OwnerRecord) -> bool) -> Vec<MacAddr> {
    let wanted = record.owners.iter().filter(|owner| wanted(owner));
    wanted
        .flat_map(|owner| owner.macs.iter().copied())
        .collect()
}

/// For a shell: as it is where that is safe, else in single quotes.
fn quoted(word: &str) -> Cow<'_, str> {
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
    fn each_cause_that_a_cluster_knows_has_a_step_of_its_own() {
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
                "counts": {"duplicate_replies": 1, "returns": 0, "local": 0, "confirmed": 0, "held_back": 0},
                "cluster": {
                    "pool": {"namespace": "lb", "name": "production"}, "announced": "layer2",
                    "cause": {"kind": kind, "scope": "unknown", "evidence": []},
                },
            }))
            .unwrap()
        };
        let unknown = next_step(&record(CauseKind::Unknown), &Origin::Attached).unwrap();
        for &kind in CauseKind::ALL {
            let step = next_step(&record(kind), &Origin::Attached).unwrap();
            assert!(step.purpose.ends_with(':'), "{kind}");
            assert_eq!(
                step == unknown,
                kind == CauseKind::Unknown,
                "{kind}: {step:?}"
            );
        }
        let external = next_step(&record(CauseKind::ExternalDevice), &Origin::Attached).unwrap();
        assert_eq!(external.command, "ip neigh | grep -e 02:00:00:00:00:09");
        let split = next_step(&record(CauseKind::SplitBrain), &Origin::Attached).unwrap();
        assert!(split.command.starts_with("kubectl -n lb logs"), "{split:?}");
    }

    #[test]
    fn the_name_of_a_capture_survives_a_shell() {
        assert_eq!(quoted("/tmp/a-1.pcapng"), "/tmp/a-1.pcapng");
        assert_eq!(quoted("two words"), "'two words'");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted(""), "''");
    }
}
