//! CARP, by ucarp.

use anyhow::Result;
use probe_tests::{ExpectedFinding, Scenario, ScenarioRun, Topology, Ucarp};

use crate::{CLIENT, FIRST, SECOND, SHARED, in_network};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "ucarp_failover_is_a_move",
    topology: Topology::Switch,
    run: failover,
}];

fn failover(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let first = run.host("first", Some(&in_network(FIRST)))?;
    let second = run.host("second", Some(&in_network(SECOND)))?;
    let master = Ucarp::start(&first, FIRST, SHARED, 0)?;
    master.wait_for_master()?;
    let backup = Ucarp::start(&second, SECOND, SHARED, 100)?;
    run.watch(&client, "tc", &[])?;
    client.resolve(SHARED)?.success()?;

    run.switch().unplug(&first)?;
    backup.wait_for_master()?;
    run.wait_for("moved", SHARED)?;
    client.resolve(SHARED)?.success()?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[first.mac()]),
        ExpectedFinding::moved(SHARED, first.mac(), second.mac()),
    ])
}
