//! kube-vip.

use anyhow::{Result, ensure};
use jiff::Timestamp;
use probe_tests::{ExpectedFinding, KubeVip, Scenario, ScenarioRun, Topology};

use crate::{CLIENT, FIRST, SECOND, SHARED, SHARED_BYTES, in_network};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kube_vip_periodic_announcements_are_no_conflict",
        topology: Topology::Switch,
        run: one_node,
    },
    Scenario {
        name: "kube_vip_on_two_nodes_is_a_conflict_within_ten_seconds",
        topology: Topology::Switch,
        run: two_nodes,
    },
];

fn one_node(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let first = run.host("first", Some(&in_network(FIRST)))?;
    run.watch(&client, "tc", &[])?;
    let mut node = KubeVip::start(&first, SHARED_BYTES)?;
    node.wait_for_announcements(2)?;
    client.resolve(SHARED)?.success()?;
    node.wait_for_announcements(5)?;
    run.expect_findings(&[ExpectedFinding::new_binding(SHARED, &[first.mac()])])
}

/// No host sends a request: the announcements alone show it.
fn two_nodes(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let first = run.host("first", Some(&in_network(FIRST)))?;
    let second = run.host("second", Some(&in_network(SECOND)))?;
    let both = [first.mac(), second.mac()];
    run.watch(&client, "tc", &[])?;
    let mut node = KubeVip::start(&first, SHARED_BYTES)?;
    node.wait_for_announcements(2)?;

    let start = Timestamp::now();
    let _other = KubeVip::start(&second, SHARED_BYTES)?;
    let after = run.wait_for("conflict", SHARED)?.seconds_after(start)?;
    ensure!(after < 10.0, "only after {after} s");
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[first.mac()]),
        ExpectedFinding::contested(SHARED, &both).optional(),
        ExpectedFinding::conflict(SHARED, "alternation", &both).with_hint("two_announcers"),
    ])
}
