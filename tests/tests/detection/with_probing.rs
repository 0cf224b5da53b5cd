//! The same, watched by a daemon that asks: its questions make no conflict of what is none, and find how one ends.

use probe_tests::{Scenario, Wires};

use crate::{keepalived, metallb};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "asking_keepalived_failover_and_failback_are_two_moves",
        wires: Wires::Switch,
        play: keepalived::failover_and_failback,
    },
    Scenario {
        name: "asking_keepalived_split_brain_that_heals_is_resolved",
        wires: Wires::Switch,
        play: keepalived::split_brain_that_heals,
    },
    Scenario {
        name: "asking_keepalived_failover_of_a_virtual_mac_is_nothing",
        wires: Wires::Switch,
        play: keepalived::virtual_mac,
    },
    Scenario {
        name: "asking_metallb_announcing_again_is_nothing_on_its_own_node_too",
        wires: Wires::Switch,
        play: metallb::announcing_again,
    },
    Scenario {
        name: "asking_metallb_clean_handover_is_one_move",
        wires: Wires::Hub,
        play: metallb::handover_seen_by_a_bystander,
    },
    Scenario {
        name: "asking_metallb_clean_handover_is_one_move_on_the_node_that_takes_over_too",
        wires: Wires::Switch,
        play: metallb::handover_seen_by_the_node_that_takes_over,
    },
    Scenario {
        name: "asking_metallb_rolling_restart_is_nothing",
        wires: Wires::Switch,
        play: metallb::rolling_restart,
    },
];
