//! The next step for each cause in a cluster, for findings and for `probe explain`.

use std::net::IpAddr;

use super::next_step::{NextStep, quoted};
use crate::CauseKind;

/// The parameters of the next step for a dispute with a known cause.
#[derive(Clone, Copy, Debug)]
pub struct CauseSubject<'a> {
    /// The address in dispute.
    pub ip: IpAddr,
    /// The namespace of the speakers; if unknown, MetalLB's default is used.
    pub namespace: Option<&'a str>,
    /// The node that should not have the address, if known.
    pub node: Option<&'a str>,
    /// The command that identifies the unknown hosts.
    pub identify_command: &'a str,
}

/// The next step for a cause; `None` if the cause is unknown.
pub fn cause_step(kind: CauseKind, subject: CauseSubject<'_>) -> Option<NextStep> {
    let CauseSubject { ip, node, .. } = subject;
    let namespace = subject.namespace.filter(|namespace| !namespace.is_empty());
    let namespace = quoted(namespace.unwrap_or("metallb-system"));
    let (purpose, command) = match kind {
        CauseKind::NodeAddress => (
            format!(
                "on {}, see where it has the address, and take it off there:",
                node.unwrap_or("the node that does not announce it")
            ),
            format!("ip address show to {ip}"),
        ),
        CauseKind::StaleSpeaker => (
            format!(
                "restart the speaker on {}: delete its pod, after a look at its log:",
                node.unwrap_or("the node that should not announce it")
            ),
            match node {
                Some(node) => format!(
                    "kubectl -n {namespace} get pods -o wide --field-selector spec.nodeName={}",
                    quoted(node)
                ),
                None => format!("kubectl -n {namespace} get pods -o wide"),
            },
        ),
        CauseKind::SeveralInstalls => (
            "see who runs speakers; all installations but one have to go:".to_owned(),
            "kubectl get pods -A -o wide | grep -e speaker -e kube-vip".to_owned(),
        ),
        CauseKind::SplitBrain => (
            "see whether the speakers hear each other (memberlist, port 7946); restart them if they do:"
                .to_owned(),
            format!(
                "kubectl -n {namespace} get pods -o name | grep speaker | xargs -n1 kubectl -n {namespace} logs --prefix --tail=200 | grep -i memberlist"
            ),
        ),
        CauseKind::ExternalDevice => (
            "identify the other host; take the address off it, or out of the pool:"
                .to_owned(),
            subject.identify_command.to_owned(),
        ),
        CauseKind::OtherCluster => (
            "compare the pools of both clusters, and agree whose range it is:".to_owned(),
            "probe pools check --context THIS --context OTHER".to_owned(),
        ),
        CauseKind::SharedWithoutKey => (
            "see whose it is; all but one get another address, or all one sharing key:".to_owned(),
            format!("kubectl get services -A | grep -wF {ip}"),
        ),
        CauseKind::ArpFlux => return Some(arp_flux()),
        CauseKind::IpvsStrictArp => return Some(ipvs_strict_arp()),
        CauseKind::Unknown => return None,
    };
    Some(NextStep { purpose, command })
}

/// One host replies on several interfaces of one network.
pub fn arp_flux() -> NextStep {
    NextStep::new(
        "on that host, set arp_ignore=1 and arp_announce=2, or arp_filter=1 with routes by source:",
        "sysctl net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce net.ipv4.conf.all.arp_filter",
    )
}

/// The next step if all nodes reply for the addresses that kube-proxy has configured on a dummy interface.
pub fn ipvs_strict_arp() -> NextStep {
    NextStep::new(
        "in Kubernetes, see that strictARP is true:",
        "kubectl -n kube-system get configmap kube-proxy -o yaml | grep strictARP",
    )
}
