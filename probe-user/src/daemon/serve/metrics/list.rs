//! Every metric: its name, what it says, its labels. `docs/metrics.md` is held against this.
//!
//! No label is called namespace, service, pod, node, instance or job: those are Prometheus' own to give.
//! `service_namespace`, `service_name` and `owner_node` are for whoever knows them.

use super::family::{MetricDescription, MetricKind};

/// A metric without the number of its labels.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub struct ListedMetric {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
}

const fn count(labels: &[&str]) -> usize {
    labels.len()
}

macro_rules! metrics {
    ($( $constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal; )+) => {
        $(
            pub const $constant: MetricDescription<{ count(&[$($label),*]) }> = MetricDescription {
                name: concat!("arp_monitor_", $name),
                help: $help,
                kind: MetricKind::$kind,
                labels: [$($label),*],
            };
        )+

        /// All of them.
        #[cfg(test)]
        pub const ALL: &[ListedMetric] = &[$(
            ListedMetric {
                name: $constant.name,
                help: $constant.help,
                kind: $constant.kind,
                labels: &$constant.labels,
            },
        )+];
    };
}

metrics! {
    FRAMES = Counter "frames_total" ["interface", "direction", "operation"]
        "Frames with the ARP ethertype.";
    MALFORMED = Counter "malformed_frames_total" ["interface", "direction", "reason"]
        "Frames with the ARP ethertype that are not ARP for IPv4 over Ethernet.";
    BOGUS = Counter "bogus_frames_total" ["interface", "direction", "reason"]
        "ARP frames whose sender addresses make no valid claim.";
    CLAIMS = Counter "claims_total" ["interface", "direction"]
        "ARP frames that claim an address.";
    PROBES = Counter "arp_probes_total" ["interface", "direction"]
        "ARP probes (RFC 5227): requests that claim no address.";
    OUTCOMES = Counter "frame_outcomes_total" ["interface", "direction", "kind", "outcome"]
        "What became of claims, ARP probes and bogus frames in the kernel.";
    RECEIVED = Counter "events_received_total" ["interface", "direction"]
        "Events that user space received; equals the emitted ones.";
    UNDECODABLE = Counter "events_undecodable_total" []
        "Events that user space could not understand.";
    EVENT_DELAY = Histogram "detection_latency_seconds" []
        "Time from the kernel's time stamp of a frame that says something new until it was judged.";

    INTERFACE_INFO = Gauge "interface_info" ["interface", "mode", "reason", "vlan_visible"]
        "1 for each watched interface, with how its arriving frames are seen, why so, and whether their VLAN can be told.";
    INTERFACE_ATTACHED = Gauge "interface_attached" ["interface"]
        "Whether the programs are attached to an interface that should be watched.";
    INTERFACE_LINK_UP = Gauge "interface_link_up" ["interface"]
        "Whether a watched interface is up and has a carrier.";
    LOCAL_MAC_INFO = Gauge "local_mac_info" ["interface", "mac"]
        "1 for each MAC address of this host on a watched network, to tell whose an owner is.";

    BINDINGS = Gauge "bindings" []
        "Addresses whose owners are remembered.";
    EVICTED = Counter "evicted_bindings_total" []
        "Addresses forgotten to make room for others.";
    EVICTED_MACS = Counter "evicted_macs_total" ["tracked"]
        "MAC addresses evicted to make room among the owners of one address.";
    TURNED_AWAY = Counter "claims_dropped_total" []
        "Claims not followed because every remembered address is tracked or has an open conflict.";
    CLOCK_STEPS = Counter "clock_steps_total" []
        "Times that the clock was set back.";
    FINDINGS = Counter "findings_total" ["finding", "severity"]
        "Findings reported.";
    HELD_BACK = Counter "suppressed_findings_total" ["finding"]
        "Findings not reported because their like was just reported.";
    IGNORED = Counter "ignored_findings_total" ["finding"]
        "Findings that the ignore list kept from being reported.";

    OPEN_CONFLICTS = Gauge "open_conflicts" []
        "Addresses that have more than one owner now, ignored ones included.";
    QUIET_CONFLICTS = Gauge "quiet_conflicts" []
        "Open conflicts without new evidence for a while.";
    CONFLICT_OWNERS = Gauge "conflict_owners" ["segment", "interface", "vlan", "ip", "tracked", "drill", "service_namespace", "service_name", "pool", "cause", "scope"]
        "Owners of an address with an open conflict that is not ignored.";
    CONFLICT_OWNER_INFO = Gauge "conflict_owner_info" ["segment", "interface", "vlan", "ip", "mac", "vendor", "drill", "owner_node"]
        "1 for each MAC address that claims an address with an open conflict, with its registered maker.";
    CONTESTED = Gauge "contested" ["segment", "interface", "vlan", "ip", "tracked", "service_namespace", "service_name", "pool"]
        "1 for each address that owners take turns on, but less than a conflict needs.";

    TRACKED = Gauge "tracked_addresses" []
        "Tracked addresses that are remembered.";
    TRACKED_CLAIM = Gauge "tracked_claim_timestamp_seconds" ["segment", "vlan", "ip", "owner", "owner_node"]
        "When the current owner of a tracked address last claimed it, since 1970. The owner is one MAC address also where it has several.";
    TRACKED_SILENT = Gauge "tracked_silent" ["segment", "interface", "vlan", "ip", "service_namespace", "service_name", "pool"]
        "Whether nobody has claimed a tracked address for the time after which it counts as silent.";
    TRACKED_RATE_LIMITED = Gauge "tracked_rate_limited" ["segment", "interface", "vlan", "ip", "service_namespace", "service_name", "pool"]
        "1 while claims of a tracked address exceed the kernel's rate limit: some are not observed.";
    TRACKED_STALE = Gauge "tracked_stale_announcement" ["segment", "interface", "vlan", "ip", "service_namespace", "service_name", "pool"]
        "1 while neighbour caches may hold the MAC address of a host that announced a tracked address and does not reply for it.";
    TRACKED_FINDINGS = Counter "tracked_findings_total" ["segment", "interface", "vlan", "ip", "finding", "service_namespace", "service_name", "pool"]
        "Findings about a tracked address.";
    NEIGHBOR_MISMATCH = Gauge "neighbor_mismatch" ["segment", "interface", "vlan", "ip"]
        "Whether this host's own neighbour entry for a tracked address names another MAC address than its owner's on the wire. Without an entry there is no sample.";
    NOT_EXPORTED = Gauge "addresses_not_exported" ["series"]
        "Addresses that have no series of their own because there are too many.";

    POOL_ADDRESSES = Gauge "pool_addresses" ["pool_namespace", "pool", "family"]
        "Addresses that a pool of the cluster can hand out. Only from the node that speaks for the cluster.";
    POOL_ASSIGNED = Gauge "pool_assigned_addresses" ["pool_namespace", "pool", "family"]
        "Addresses of a pool of the cluster that services have. Only from the node that speaks for the cluster.";
    DRIFTS = Gauge "drifts" ["drift"]
        "Ways in which the cluster and the wire have drifted apart, by kind. Only from the node that speaks for the cluster.";
    DRIFT = Gauge "drift" ["drift", "reason", "service_namespace", "service_name", "pool_namespace", "pool", "object", "ip"]
        "1 for each way in which the cluster and the wire have drifted apart. Only from the node that speaks for the cluster.";
    CLUSTER_NOT_EXPORTED = Gauge "cluster_series_not_exported" ["series"]
        "Pools and drifts that have no series of their own because there are too many. Only from the node that speaks for the cluster.";

    ASKS = Counter "arp_probes_sent_total" ["purpose"]
        "ARP probes that this program has sent.";
    ASKS_NOT_SENT = Counter "arp_probes_not_sent_total" ["reason"]
        "ARP probes that were put off or dropped.";
    ASKING = Gauge "active_probing" ["state"]
        "1 for whether this program asks: on, off, or, for want of the capability, not permitted.";

    NOTIFICATIONS = Counter "notifications_total" ["channel", "result"]
        "Messages that were sent, or were not and are tried again, or were refused for good.";
    NOTIFICATIONS_WAITING = Gauge "notifications_pending" ["channel"]
        "Addresses of which there is something to tell that nobody was told yet.";
    NOTIFICATIONS_DROPPED = Counter "notifications_dropped_total" ["channel"]
        "News that nobody was told one by one: told as a number only, or refused.";
    KUBERNETES_RESOURCE = Gauge "kubernetes_resource_state" ["resource", "state"]
        "1 for how well a resource of the cluster is known: current, stale, never, missing or forbidden.";
    KUBERNETES_HEARD = Gauge "kubernetes_last_contact_timestamp_seconds" ["resource"]
        "When the API server last said something about a resource, since 1970. Without a word so far there is no sample.";
    KUBERNETES_OBJECTS = Gauge "kubernetes_objects" ["resource"]
        "Objects of the cluster that are known.";
    KUBERNETES_BROKEN = Gauge "kubernetes_invalid_objects" ["resource"]
        "Objects of the cluster that could not be read, or not all of them.";
    KUBERNETES_REQUESTS = Counter "kubernetes_requests_total" ["request", "outcome"]
        "Requests to the API server, by how they ended. An answer that broke off or made no sense is counted for that as well.";
    KUBERNETES_LEADER = Gauge "kubernetes_leader" []
        "Whether this node speaks for the cluster: it holds the Lease.";
    KUBERNETES_ON_LINK = Gauge "kubernetes_addresses_on_link" []
        "Addresses of services, announced on layer 2, that are on a network that this node watches. Until that is known there is no sample.";
    KUBERNETES_LOST = Counter "kubernetes_unannotated_findings_total" []
        "Findings that nobody was shown, because they came faster than the cluster could be asked about them.";

    CONFIG_SUCCESSFUL = Gauge "config_last_reload_successful" []
        "Whether the settings could be used when they were last read; if not, the ones before hold.";
    CONFIG_SUCCESS = Gauge "config_last_reload_success_timestamp_seconds" []
        "When settings that could be used were last read, since 1970.";
    LOG_DROPPED = Counter "log_lines_dropped_total" ["stream"]
        "Lines of stdout (conflicts) or stderr (log) that were dropped because their reader was too slow or writing failed.";
    CONNECTIONS_REFUSED = Counter "connections_refused_total" ["server", "reason"]
        "Connections that were closed because there were too many: of the metrics port from one host or in all, or of the API socket.";
    BUILD_INFO = Gauge "build_info" ["version"]
        "1, with the version of this program.";
}
