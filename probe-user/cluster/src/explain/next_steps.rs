//! What to do about an address, by what it is about.

use probe_model::{
    AnnouncementMode, CauseKind, CauseSubject, CheckVerdict, ClusterCause, FindingOrigin, NextStep,
    cause_step, identify_hosts,
};

use super::{Explanation, OwnerPart, Situation};

/// More commands than these nobody reads.
const MAX_STEPS: usize = 3;

/// The next commands, the most useful first.
pub fn steps(explanation: &Explanation) -> Vec<NextStep> {
    let mut steps = match explanation.situation {
        Situation::Conflict => conflict_steps(explanation),
        Situation::UnassignedOwner => vec![
            identify_host(explanation),
            NextStep::new(
                "after that machine has let go of it, see that a node has it, for a minute:",
                format!("probe check {} --expect-owner --for 60s", explanation.ip),
            ),
        ],
        Situation::Silent => silent_steps(explanation),
        Situation::Claimed => claimed_steps(explanation),
        Situation::NotLocal => elsewhere_steps(explanation),
        Situation::Unknown => unknown_steps(explanation),
        Situation::Healthy | Situation::Free => Vec::new(),
    };
    steps.truncate(MAX_STEPS);
    steps
}

/// Where MetalLB lives.
fn namespace(explanation: &Explanation) -> &str {
    let pool = explanation.pool.as_ref();
    let namespace = pool.and_then(|pool| pool.namespace.as_deref());
    namespace.unwrap_or("metallb-system")
}

fn identify_host(explanation: &Explanation) -> NextStep {
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
        FindingOrigin::Attached
    } else {
        FindingOrigin::Daemon
    };
    let purpose = match macs.len() {
        0 | 1 => "see which machine that is, by its other addresses:",
        _ => "see which machines these are, by their other addresses:",
    };
    NextStep::new(purpose, identify_hosts(&macs, &origin))
}

fn conflict_steps(explanation: &Explanation) -> Vec<NextStep> {
    // What a load balancer on this host answers, this host does not hear.
    let mut owners = explanation.owners.iter();
    let is_heard = !owners.any(|owner| owner.local && owner.part == OwnerPart::Known);
    let check = explanation.check.as_ref();
    let one_answers = check.is_some_and(|check| check.verdict == CheckVerdict::OneOwner);
    if one_answers && is_heard {
        return vec![NextStep::new(
            "only one answers now; see whether it stays so:",
            format!("probe check {} --expect-owner --for 60s", explanation.ip),
        )];
    }
    let mut steps = match &explanation.cause {
        Some(cause) => cause_steps(explanation, cause),
        None => Vec::new(),
    };
    if steps.is_empty() {
        steps.push(identify_host(explanation));
    }
    let purpose = if is_heard {
        "when it is mended, see that it stays so for a minute:"
    } else {
        "when it is mended, see on another node that it stays so for a minute:"
    };
    steps.push(NextStep::new(
        purpose,
        format!("probe check {} --expect-owner --for 60s", explanation.ip),
    ));
    steps
}

fn cause_steps(explanation: &Explanation, cause: &ClusterCause) -> Vec<NextStep> {
    let machines = identify_host(explanation);
    let announcers = &explanation.announcers;
    let owners = explanation.owners.iter();
    let mut nodes = owners.filter_map(|owner| owner.node.as_deref());
    let blamed = CauseSubject {
        ip: explanation.ip,
        namespace: Some(namespace(explanation)),
        node: nodes.find(|node| !announcers.iter().any(|said| said == node)),
        machines: &machines.command,
    };
    let mut steps: Vec<_> = cause_step(cause.kind, blamed).into_iter().collect();
    if cause.kind == CauseKind::OtherCluster {
        steps.push(machines);
    }
    steps
}

fn silent_steps(explanation: &Explanation) -> Vec<NextStep> {
    let namespace = namespace(explanation);
    if explanation.announced == Some(AnnouncementMode::NotAnnounced) {
        return vec![NextStep::new(
            "see what is advertised; its pool is not:",
            format!("kubectl -n {namespace} get l2advertisements,bgpadvertisements -o wide"),
        )];
    }
    let mut steps = Vec::new();
    if let Some(service) = explanation.services.first() {
        let named = &service.named;
        steps.push(NextStep::new(
            "without a ready endpoint nobody announces it:",
            format!(
                "kubectl -n {} get endpointslices -l kubernetes.io/service-name={}",
                named.namespace, named.name
            ),
        ));
        steps.push(NextStep::new(
            "see what the announcer says about the service:",
            format!(
                "kubectl -n {} describe service {}",
                named.namespace, named.name
            ),
        ));
    }
    steps.push(NextStep::new(
        "see whether the speakers run:",
        format!("kubectl -n {namespace} get pods -o wide"),
    ));
    steps
}

fn claimed_steps(explanation: &Explanation) -> Vec<NextStep> {
    let mut steps = vec![identify_host(explanation)];
    if explanation.announced == Some(AnnouncementMode::Bgp) {
        return steps;
    }
    let answers = |part| {
        matches!(
            part,
            OwnerPart::Replies | OwnerPart::Claims | OwnerPart::Known
        )
    };
    let is_node = explanation
        .owners
        .iter()
        .any(|owner| owner.node.is_some() && answers(owner.part));
    if is_node {
        steps.push(NextStep::new(
            "if a speaker goes on announcing it, restart that one:",
            format!("kubectl -n {} get pods -o wide", namespace(explanation)),
        ));
    }
    if let Some(pool) = explanation
        .pool
        .as_ref()
        .filter(|pool| pool.kind == "IPAddressPool")
    {
        steps.push(NextStep::new(
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

fn elsewhere_steps(explanation: &Explanation) -> Vec<NextStep> {
    if explanation.announced == Some(AnnouncementMode::Bgp) || explanation.ip.is_ipv6() {
        return Vec::new();
    }
    vec![NextStep::new(
        "ask on a host that is in its network, such as a node:",
        format!(
            "kubectl -n arp-monitor exec ds/arp-monitor -- probe explain {}",
            explanation.ip
        ),
    )]
}

fn unknown_steps(explanation: &Explanation) -> Vec<NextStep> {
    let check = explanation.check.as_ref();
    if check.is_some_and(|check| check.verdict == CheckVerdict::NoReply) {
        return vec![NextStep::new(
            "ask on another node: probe explain, in the pod that this names for it:",
            "kubectl -n arp-monitor get pods -o wide",
        )];
    }
    vec![NextStep::new(
        "ask, as root or with CAP_NET_RAW:",
        format!("probe explain {}", explanation.ip),
    )]
}
