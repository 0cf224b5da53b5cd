//! The list of all metrics with names, help texts and labels. A test compares it with `docs/metrics.md`.
//!
//! No label is called namespace, service, pod, node, instance or job: Prometheus sets these. `service_namespace`,
//! `service_name` and `owner_node` are used instead.

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

        /// All metrics.
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
        "Claims, ARP probes and bogus frames by their outcome in the kernel.";
    RECEIVED = Counter "events_received_total" ["interface", "direction"]
        "Events received by user space; equals the emitted ones.";
    UNDECODABLE = Counter "events_undecodable_total" []
        "Events that user space could not decode.";
    EVENT_DELAY = Histogram "detection_latency_seconds" []
        "Detection latency: time from the kernel's time stamp of a change event to its evaluation.";

    INTERFACE_INFO = Gauge "interface_info" ["interface", "mode", "reason", "vlan_visible"]
        "1 for each watched interface, with the attach mode for received frames, its reason, and whether VLANs are visible.";
    INTERFACE_ATTACHED = Gauge "interface_attached" ["interface"]
        "Whether the programs are attached to an interface that should be watched.";
    INTERFACE_LINK_UP = Gauge "interface_link_up" ["interface"]
        "Whether a watched interface is up and has a carrier.";
    LOCAL_MAC_INFO = Gauge "local_mac_info" ["interface", "mac"]
        "1 for each MAC address of this host on a watched network, to identify owners.";

    BINDINGS = Gauge "bindings" []
        "Addresses with stored owners.";
    EVICTED = Counter "evicted_bindings_total" []
        "Addresses evicted to make room for others.";
    EVICTED_MACS = Counter "evicted_macs_total" ["tracked"]
        "MAC addresses evicted to make room among the owners of one address.";
    TURNED_AWAY = Counter "claims_dropped_total" []
        "Claims dropped because every stored address is tracked or has an open conflict.";
    CLOCK_STEPS = Counter "clock_steps_total" []
        "Times that the clock was set back.";
    FINDINGS = Counter "findings_total" ["finding", "severity"]
        "Findings reported.";
    HELD_BACK = Counter "suppressed_findings_total" ["finding"]
        "Findings not reported because a similar one was just reported.";
    IGNORED = Counter "ignored_findings_total" ["finding"]
        "Findings suppressed by the ignore list.";

    OPEN_CONFLICTS = Gauge "open_conflicts" []
        "Addresses that have more than one owner now, ignored ones included.";
    QUIET_CONFLICTS = Gauge "quiet_conflicts" []
        "Open conflicts without new evidence for a while.";
    CONFLICT_OWNERS = Gauge "conflict_owners" ["segment", "interface", "vlan", "ip", "tracked", "drill", "service_namespace", "service_name", "pool", "cause", "scope"]
        "Owners of an address with an open conflict that is not ignored.";
    CONFLICT_OWNER_INFO = Gauge "conflict_owner_info" ["segment", "interface", "vlan", "ip", "mac", "vendor", "drill", "owner_node"]
        "1 for each MAC address that claims an address with an open conflict, with its vendor.";
    CONTESTED = Gauge "contested" ["segment", "interface", "vlan", "ip", "tracked", "service_namespace", "service_name", "pool"]
        "1 for each address whose ownership is flapping, with less evidence than a conflict needs.";

    TRACKED = Gauge "tracked_addresses" []
        "Tracked addresses with stored owners.";
    TRACKED_CLAIM = Gauge "tracked_claim_timestamp_seconds" ["segment", "vlan", "ip", "owner", "owner_node"]
        "When the current owner of a tracked address last claimed it, since 1970. The owner is one MAC address also where it has several.";
    TRACKED_SILENT = Gauge "tracked_silent" ["segment", "interface", "vlan", "ip", "service_namespace", "service_name", "pool"]
        "Whether no host has claimed a tracked address for the time after which it counts as silent.";
    TRACKED_RATE_LIMITED = Gauge "tracked_rate_limited" ["segment", "interface", "vlan", "ip", "service_namespace", "service_name", "pool"]
        "1 while claims of a tracked address exceed the kernel's rate limit: some are not observed.";
    TRACKED_STALE = Gauge "tracked_stale_announcement" ["segment", "interface", "vlan", "ip", "service_namespace", "service_name", "pool"]
        "1 while neighbour caches may hold the MAC address of a host that announced a tracked address and does not reply for it.";
    TRACKED_FINDINGS = Counter "tracked_findings_total" ["segment", "interface", "vlan", "ip", "finding", "service_namespace", "service_name", "pool"]
        "Findings about a tracked address.";
    NEIGHBOR_MISMATCH = Gauge "neighbor_mismatch" ["segment", "interface", "vlan", "ip"]
        "Whether this host's own neighbour entry for a tracked address has another MAC address than the observed owner. No sample without an entry.";
    NOT_EXPORTED = Gauge "addresses_not_exported" ["series"]
        "Addresses without series of their own because there are too many.";

    POOL_ADDRESSES = Gauge "pool_addresses" ["pool_namespace", "pool", "family"]
        "Addresses that a pool of the cluster can assign. Only exported by the leader.";
    POOL_ASSIGNED = Gauge "pool_assigned_addresses" ["pool_namespace", "pool", "family"]
        "Addresses of a pool of the cluster that services have. Only exported by the leader.";
    DRIFTS = Gauge "drifts" ["drift"]
        "Drifts between the cluster and the network, by kind. Only exported by the leader.";
    DRIFT = Gauge "drift" ["drift", "reason", "service_namespace", "service_name", "pool_namespace", "pool", "object", "ip"]
        "1 for each drift between the cluster and the network. Only exported by the leader.";
    CLUSTER_NOT_EXPORTED = Gauge "cluster_series_not_exported" ["series"]
        "Pools and drifts without series of their own because there are too many. Only exported by the leader.";

    ASKS = Counter "arp_probes_sent_total" ["purpose"]
        "ARP probes sent.";
    ASKS_NOT_SENT = Counter "arp_probes_not_sent_total" ["reason"]
        "ARP probes that were postponed or dropped.";
    ASKING = Gauge "active_probing" ["state"]
        "1 for the state of active ARP probing: on, off, or not permitted because CAP_NET_RAW is missing.";

    NOTIFICATIONS = Counter "notifications_total" ["channel", "result"]
        "Delivery attempts by result: delivered, failed and retried, or rejected.";
    NOTIFICATIONS_WAITING = Gauge "notifications_pending" ["channel"]
        "Subjects with notifications that are not delivered yet.";
    NOTIFICATIONS_DROPPED = Counter "notifications_dropped_total" ["channel"]
        "Notifications that were not delivered individually: sent as a number only, or rejected.";
    KUBERNETES_RESOURCE = Gauge "kubernetes_resource_state" ["resource", "state"]
        "1 for the state of a resource of the cluster: current, stale, never, missing or forbidden.";
    KUBERNETES_LAST_UPDATE = Gauge "kubernetes_last_contact_timestamp_seconds" ["resource"]
        "Time of the last update of a resource by the API server, since 1970. No sample before the first update.";
    KUBERNETES_OBJECTS = Gauge "kubernetes_objects" ["resource"]
        "Stored objects of the cluster.";
    KUBERNETES_BROKEN = Gauge "kubernetes_invalid_objects" ["resource"]
        "Objects of the cluster that are invalid, in part or as a whole.";
    KUBERNETES_REQUESTS = Counter "kubernetes_requests_total" ["request", "outcome"]
        "Requests to the API server by outcome. A truncated or invalid response is also counted as such.";
    KUBERNETES_LEADER = Gauge "kubernetes_leader" []
        "Whether this node is the leader: it holds the Lease.";
    KUBERNETES_ON_LINK = Gauge "kubernetes_addresses_on_link" []
        "Addresses of services, announced on layer 2, that are on a network that this node watches. No sample while unknown.";
    KUBERNETES_LOST = Counter "kubernetes_unannotated_findings_total" []
        "Findings lost because they came faster than they could be annotated.";

    CONFIG_SUCCESSFUL = Gauge "config_last_reload_successful" []
        "Whether the last load of the settings succeeded; if not, the previous ones apply.";
    CONFIG_SUCCESS = Gauge "config_last_reload_success_timestamp_seconds" []
        "Time of the last successful load of the settings, since 1970.";
    LOG_DROPPED = Counter "log_lines_dropped_total" ["stream"]
        "Lines of stdout (conflicts) or stderr (log) that were dropped because their reader was too slow or writing failed.";
    CONNECTIONS_REFUSED = Counter "connections_refused_total" ["server", "reason"]
        "Connections that were closed because there were too many: of the metrics port from one host or in all, or of the API socket.";
    BUILD_INFO = Gauge "build_info" ["version"]
        "1, with the version of this program.";
}
