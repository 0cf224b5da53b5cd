//! CARP, by ucarp.

use anyhow::Result;
use probe_tests::{Expected, Scenario, Stage, Ucarp, Wires};

use crate::{CLIENT, FIRST, SECOND, SHARED, in_network};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "ucarp_failover_is_a_move",
    wires: Wires::Switch,
    play: failover,
}];

fn failover(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let first = stage.host("first", Some(&in_network(FIRST)))?;
    let second = stage.host("second", Some(&in_network(SECOND)))?;
    let master = Ucarp::start(&first, FIRST, SHARED, 0)?;
    master.wait_for_master()?;
    let backup = Ucarp::start(&second, SECOND, SHARED, 100)?;
    stage.watch(&client, "tc", &[])?;
    client.ask(SHARED)?.success()?;

    stage.switch().unplug(&first)?;
    backup.wait_for_master()?;
    stage.wait_for("moved", SHARED)?;
    client.ask(SHARED)?.success()?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &[first.mac()]),
        Expected::moved(SHARED, first.mac(), second.mac()),
    ])
}
