//! The next steps for an address, by its status.

use probe_model::{
    AnnouncementMode, CauseKind, CauseSubject, CheckStatus, ClusterCause, FindingOrigin, NextStep,
    after_check, cause_step, identify_hosts,
};

use super::{AddressStatus, Explanation, OwnerActivity};

/// The reason for an address that was not probed on request.
pub(super) const NO_PROBE: &str = "--no-probe";

/// Maximum number of steps.
const MAX_STEPS: usize = 3;

/// The next commands, the most useful first.
pub fn steps(explanation: &Explanation) -> Vec<NextStep> {
    let mut steps = match explanation.status {
        AddressStatus::Conflict => conflict_steps(explanation),
        AddressStatus::WrongOwner => vec![
            identify_host(explanation),
            NextStep::new(
                "after that host has released it, check for a minute that a node has it:",
                format!("probe check {} --expect-owner --for 60s", explanation.ip),
            ),
        ],
        AddressStatus::Silent => silent_steps(explanation),
        AddressStatus::Claimed => claimed_steps(explanation),
        AddressStatus::NotLocal => elsewhere_steps(explanation),
        AddressStatus::Unknown => unknown_steps(explanation),
        AddressStatus::Contested => contested_steps(explanation),
        AddressStatus::OneOwner | AddressStatus::Free => Vec::new(),
    };
    steps.truncate(MAX_STEPS);
    steps
}

/// The namespace of MetalLB.
fn namespace(explanation: &Explanation) -> &str {
    let pool = explanation.pool.as_ref();
    let namespace = pool.and_then(|pool| pool.namespace.as_deref());
    namespace.unwrap_or("metallb-system")
}

fn identify_host(explanation: &Explanation) -> NextStep {
    let external = explanation
        .owners
        .iter()
        .filter(|owner| owner.node.is_none() && !owner.local);
    let mut macs: Vec<_> = external.flat_map(|owner| owner.macs.clone()).collect();
    if macs.is_empty() {
        let all = explanation.owners.iter();
        macs = all.flat_map(|owner| owner.macs.clone()).collect();
    }
    // The daemon knows more than the neighbour table.
    let origin = if explanation.history.is_empty() && explanation.conflict.is_none() {
        FindingOrigin::Attached
    } else {
        FindingOrigin::Daemon
    };
    let purpose = match macs.len() {
        0 | 1 => "identify the host by its other addresses:",
        _ => "identify the hosts by their other addresses:",
    };
    NextStep::new(purpose, identify_hosts(&macs, &origin))
}

fn conflict_steps(explanation: &Explanation) -> Vec<NextStep> {
    // A speaker on this host does not receive probes from its own host.
    let mut owners = explanation.owners.iter();
    let unprobed = [OwnerActivity::Known, OwnerActivity::Announces];
    let can_check = !owners.any(|owner| owner.local && unprobed.contains(&owner.activity));
    let check = explanation.check.as_ref();
    let one_replies = check.is_some_and(|check| check.status == CheckStatus::OneOwner);
    if one_replies && can_check {
        return vec![NextStep::new(
            "only one host replies to this node now; check whether it stays so:",
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
    let purpose = if can_check {
        "after the fix, check for a minute that it stays fixed:"
    } else {
        "after the fix, check on another node for a minute that it stays fixed:"
    };
    steps.push(NextStep::new(
        purpose,
        format!("probe check {} --expect-owner --for 60s", explanation.ip),
    ));
    steps
}

fn contested_steps(explanation: &Explanation) -> Vec<NextStep> {
    let check = explanation.check.as_ref();
    check.and_then(after_check).into_iter().collect()
}

fn cause_steps(explanation: &Explanation, cause: &ClusterCause) -> Vec<NextStep> {
    let machines = identify_host(explanation);
    let announcers = &explanation.announcers;
    let owners = explanation.owners.iter();
    let mut nodes = owners.filter_map(|owner| owner.node.as_deref());
    let blamed = CauseSubject {
        ip: explanation.ip,
        namespace: Some(namespace(explanation)),
        node: nodes.find(|node| !announcers.iter().any(|named| named == node)),
        identify_command: &machines.command,
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
            "list the advertisements; none is for its pool:",
            format!("kubectl -n {namespace} get l2advertisements,bgpadvertisements -o wide"),
        )];
    }
    let mut steps = Vec::new();
    if let Some(service) = explanation.services.first() {
        let named = &service.named;
        steps.push(NextStep::new(
            "without a ready endpoint no speaker announces it:",
            format!(
                "kubectl -n {} get endpointslices -l kubernetes.io/service-name={}",
                named.namespace, named.name
            ),
        ));
        steps.push(NextStep::new(
            "see the events of the service:",
            format!(
                "kubectl -n {} describe service {}",
                named.namespace, named.name
            ),
        ));
    }
    steps.push(NextStep::new(
        "check that the speakers run:",
        format!("kubectl -n {namespace} get pods -o wide"),
    ));
    steps
}

fn claimed_steps(explanation: &Explanation) -> Vec<NextStep> {
    let mut steps = vec![identify_host(explanation)];
    if explanation.announced == Some(AnnouncementMode::Bgp) {
        return steps;
    }
    let may_announce = |activity| activity != OwnerActivity::Holds;
    let is_node = explanation
        .owners
        .iter()
        .any(|owner| owner.node.is_some() && may_announce(owner.activity));
    if is_node {
        steps.push(NextStep::new(
            "if a speaker continues to announce it, restart that speaker:",
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
        "run it on a host in its network, such as a node:",
        format!(
            "kubectl -n arp-monitor exec ds/arp-monitor -- probe explain {}",
            explanation.ip
        ),
    )]
}

fn unknown_steps(explanation: &Explanation) -> Vec<NextStep> {
    let check = explanation.check.as_ref();
    if check.is_some_and(|check| check.status == CheckStatus::NoReply) {
        return vec![NextStep::new(
            "run probe explain on another node, in one of these pods:",
            "kubectl -n arp-monitor get pods -o wide",
        )];
    }
    let not_probed = explanation.not_probed.as_deref().unwrap_or_default();
    if !not_probed.contains("CAP_NET_RAW") && not_probed != NO_PROBE {
        return vec![NextStep::new(
            "see the state of the interfaces:",
            "ip -br link",
        )];
    }
    vec![NextStep::new(
        "run it as root or with CAP_NET_RAW:",
        format!("probe explain {}", explanation.ip),
    )]
}
