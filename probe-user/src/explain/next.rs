//! What to do about an address, by what it is about.

use super::{Explanation, NextRecord, Part, Situation};
use crate::{
    check::Verdict,
    cluster::{Announced, Cause, CauseKind},
    report::{Origin, machines},
};

/// More commands than these nobody reads.
const MOST: usize = 3;

/// The next commands, the most useful first.
pub fn steps(explanation: &Explanation) -> Vec<NextRecord> {
    let mut steps = match explanation.situation {
        Situation::Conflict => conflict(explanation),
        Situation::Foreign => vec![
            which_machine(explanation),
            step(
                "after that machine has let go of it, see that a node has it, for a minute:",
                format!("probe check {} --expect-owner --for 60s", explanation.ip),
            ),
        ],
        Situation::Silent => silent(explanation),
        Situation::Claimed => claimed(explanation),
        Situation::Elsewhere => elsewhere(explanation),
        Situation::Unknown => unknown(explanation),
        Situation::Fine | Situation::Free => Vec::new(),
    };
    steps.truncate(MOST);
    steps
}

fn step(purpose: impl Into<String>, command: impl Into<String>) -> NextRecord {
    NextRecord {
        purpose: purpose.into(),
        command: command.into(),
    }
}

/// Where MetalLB lives.
fn namespace(explanation: &Explanation) -> &str {
    let pool = explanation.pool.as_ref();
    let namespace = pool.and_then(|pool| pool.namespace.as_deref());
    namespace.unwrap_or("metallb-system")
}

fn which_machine(explanation: &Explanation) -> NextRecord {
    let strangers = explanation
        .owners
        .iter()
        .filter(|owner| owner.node.is_none() && !owner.local);
    let mut macs: Vec<_> = strangers.flat_map(|owner| owner.macs.clone()).collect();
    if macs.is_empty() {
        let all = explanation.owners.iter();
        macs = all.flat_map(|owner| owner.macs.clone()).collect();
    }
    // The daemon knows more than this host's neighbour table.
    let origin = if explanation.history.is_empty() && explanation.conflict.is_none() {
        Origin::Attached
    } else {
        Origin::Daemon
    };
    let purpose = match macs.len() {
        0 | 1 => "see which machine that is, by its other addresses:",
        _ => "see which machines these are, by their other addresses:",
    };
    step(purpose, machines(&macs, &origin))
}

fn conflict(explanation: &Explanation) -> Vec<NextRecord> {
    let ended = explanation
        .check
        .as_ref()
        .is_some_and(|check| check.verdict == Verdict::OneOwner);
    if ended {
        return vec![step(
            "only one answers now; see whether it stays so:",
            format!("probe check {} --expect-owner --for 60s", explanation.ip),
        )];
    }
    let mut steps = match &explanation.cause {
        Some(cause) => by_cause(explanation, cause),
        None => Vec::new(),
    };
    if steps.is_empty() {
        steps.push(which_machine(explanation));
    }
    steps.push(step(
        "when it is mended, see that it stays so for a minute:",
        format!("probe check {} --expect-owner --for 60s", explanation.ip),
    ));
    steps
}

fn by_cause(explanation: &Explanation, cause: &Cause) -> Vec<NextRecord> {
    let ip = explanation.ip;
    let namespace = namespace(explanation);
    let unsaid = explanation
        .owners
        .iter()
        .filter_map(|owner| owner.node.as_deref())
        .find(|node| !explanation.announcers.iter().any(|said| said == node));
    match cause.kind {
        CauseKind::NodeAddress => vec![step(
            format!(
                "on {}, see where it has the address, and take it off:",
                unsaid.unwrap_or("the node that has it")
            ),
            format!("ip address show to {ip}"),
        )],
        CauseKind::StaleSpeaker => vec![step(
            format!(
                "restart the speaker on {}: delete its pod, after a look at its log:",
                unsaid.unwrap_or("the node that should not announce it")
            ),
            format!("kubectl -n {namespace} get pods -o wide"),
        )],
        CauseKind::SeveralInstalls => vec![step(
            "see who runs speakers; one installation may announce it:",
            "kubectl get pods -A -o wide | grep -e speaker -e kube-vip",
        )],
        CauseKind::SplitBrain => vec![step(
            "see whether the speakers hear each other (memberlist, port 7946):",
            format!(
                "kubectl -n {namespace} logs -l component=speaker --prefix --tail=200 | grep -i memberlist"
            ),
        )],
        CauseKind::ExternalDevice => vec![which_machine(explanation)],
        CauseKind::OtherCluster => vec![
            step(
                "see what the pools of the two clusters have in common:",
                "probe pools check --context THIS --context OTHER",
            ),
            which_machine(explanation),
        ],
        CauseKind::SharedWithoutKey => vec![step(
            "see which services have it; give one of them another address:",
            format!("kubectl get services -A | grep -w {ip}"),
        )],
        CauseKind::ArpFlux => vec![step(
            "on that node: with 1, each interface answers for its own addresses only:",
            "sysctl net.ipv4.conf.all.arp_ignore",
        )],
        CauseKind::IpvsStrictArp => vec![step(
            "see that strictARP is true:",
            "kubectl -n kube-system get configmap kube-proxy -o yaml | grep strictARP",
        )],
        CauseKind::Unknown => Vec::new(),
    }
}

fn silent(explanation: &Explanation) -> Vec<NextRecord> {
    let namespace = namespace(explanation);
    if explanation.announced == Some(Announced::Nowhere) {
        return vec![step(
            "see what is advertised; its pool is not:",
            format!("kubectl -n {namespace} get l2advertisements,bgpadvertisements -o wide"),
        )];
    }
    let mut steps = Vec::new();
    if let Some(service) = explanation.services.first() {
        let named = &service.named;
        steps.push(step(
            "without a ready endpoint nobody announces it:",
            format!(
                "kubectl -n {} get endpointslices -l kubernetes.io/service-name={}",
                named.namespace, named.name
            ),
        ));
        steps.push(step(
            "see what the announcer says about the service:",
            format!(
                "kubectl -n {} describe service {}",
                named.namespace, named.name
            ),
        ));
    }
    steps.push(step(
        "see whether the speakers run:",
        format!("kubectl -n {namespace} get pods -o wide"),
    ));
    steps
}

fn claimed(explanation: &Explanation) -> Vec<NextRecord> {
    let mut steps = vec![which_machine(explanation)];
    if explanation.announced == Some(Announced::Bgp) {
        return steps;
    }
    let answers = |part| matches!(part, Part::Answers | Part::Claims | Part::Known);
    let is_node = explanation
        .owners
        .iter()
        .any(|owner| owner.node.is_some() && answers(owner.part));
    if is_node {
        steps.push(step(
            "if a speaker goes on announcing it, restart that one:",
            format!("kubectl -n {} get pods -o wide", namespace(explanation)),
        ));
    }
    if let Some(pool) = explanation
        .pool
        .as_ref()
        .filter(|pool| pool.kind == "IPAddressPool")
    {
        steps.push(step(
            "or print the pool without it, to apply:",
            format!(
                "kubectl -n {} get ipaddresspool {} -o yaml | probe pools exclude {} -",
                namespace(explanation),
                pool.name,
                explanation.ip
            ),
        ));
    }
    steps
}

fn elsewhere(explanation: &Explanation) -> Vec<NextRecord> {
    if explanation.announced == Some(Announced::Bgp) || explanation.ip.is_ipv6() {
        return Vec::new();
    }
    vec![step(
        "ask on a host that is in its network, such as a node:",
        format!(
            "kubectl -n arp-monitor exec ds/arp-monitor -- probe explain {}",
            explanation.ip
        ),
    )]
}

fn unknown(explanation: &Explanation) -> Vec<NextRecord> {
    vec![step(
        "ask, as root or with CAP_NET_RAW:",
        format!("probe explain {}", explanation.ip),
    )]
}
