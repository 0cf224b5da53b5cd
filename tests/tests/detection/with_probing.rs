//! Scenarios with active probing: the probes create no conflict and find how one ends.

use probe_tests::{Scenario, Topology};

use crate::{keepalived, metallb};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "probing_keepalived_failover_and_failback_are_two_moves",
        topology: Topology::Switch,
        run: keepalived::failover_and_failback,
    },
    Scenario {
        name: "probing_keepalived_healed_split_brain_is_resolved",
        topology: Topology::Switch,
        run: keepalived::split_brain_that_heals,
    },
    Scenario {
        name: "probing_keepalived_failover_of_a_virtual_mac_is_no_conflict",
        topology: Topology::Switch,
        run: keepalived::virtual_mac,
    },
    Scenario {
        name: "probing_metallb_repeated_announcement_is_no_conflict_on_the_announcing_node",
        topology: Topology::Switch,
        run: metallb::announcing_again,
    },
    Scenario {
        name: "probing_metallb_clean_handover_is_one_move",
        topology: Topology::Hub,
        run: metallb::handover_on_another_host,
    },
    Scenario {
        name: "probing_metallb_clean_handover_is_one_move_on_the_new_node_too",
        topology: Topology::Switch,
        run: metallb::handover_on_the_new_owner,
    },
    Scenario {
        name: "probing_metallb_rolling_restart_is_no_conflict",
        topology: Topology::Switch,
        run: metallb::rolling_restart,
    },
];
