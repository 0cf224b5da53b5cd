//! kube-vip.

use anyhow::{Result, ensure};
use jiff::Timestamp;
use probe_tests::{Expected, KubeVip, Scenario, Stage, Wires};

use crate::{CLIENT, FIRST, SECOND, SHARED, SHARED_BYTES, in_network};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kube_vip_announcing_for_ever_is_nothing",
        wires: Wires::Switch,
        play: one_node,
    },
    Scenario {
        name: "kube_vip_on_two_nodes_is_a_conflict_within_ten_seconds",
        wires: Wires::Switch,
        play: two_nodes,
    },
];

fn one_node(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let first = stage.host("first", Some(&in_network(FIRST)))?;
    stage.watch(&client, "tc", &[])?;
    let mut node = KubeVip::start(&first, SHARED_BYTES)?;
    node.wait_for_announcements(2)?;
    client.ask(SHARED)?.success()?;
    node.wait_for_announcements(5)?;
    stage.conclude(&[Expected::new_binding(SHARED, &[first.mac()])])
}

/// Nobody asks: the announcements alone show it.
fn two_nodes(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let first = stage.host("first", Some(&in_network(FIRST)))?;
    let second = stage.host("second", Some(&in_network(SECOND)))?;
    let both = [first.mac(), second.mac()];
    stage.watch(&client, "tc", &[])?;
    let mut node = KubeVip::start(&first, SHARED_BYTES)?;
    node.wait_for_announcements(2)?;

    let start = Timestamp::now();
    let _other = KubeVip::start(&second, SHARED_BYTES)?;
    let after = stage.wait_for("conflict", SHARED)?.seconds_after(start)?;
    ensure!(after < 10.0, "only after {after} s");
    stage.conclude(&[
        Expected::new_binding(SHARED, &[first.mac()]),
        Expected::contested(SHARED, &both).optional(),
        Expected::conflict(SHARED, "alternation", &both).hinting("two_announcers"),
    ])
}
