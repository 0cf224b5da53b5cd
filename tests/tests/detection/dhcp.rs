//! Addresses that a DHCP server gives.

use anyhow::{Result, ensure};
use probe_tests::{DhcpClient, DhcpServer, Expected, Scenario, Stage, Wires};

use crate::{CLIENT, SHARED, in_network};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "dhcp_address_given_to_another_after_its_holder_left_is_a_move",
    wires: Wires::Switch,
    play: reuse,
}];

fn reuse(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let server = stage.host("server", Some("192.0.2.2/24"))?;
    let first = stage.host("first", None)?;
    let second = stage.host("second", None)?;
    stage.watch(&client, "tc", &[])?;
    let _dhcp = DhcpServer::start(&server, SHARED)?;

    let (holder, address) = DhcpClient::start(&first)?;
    ensure!(address == SHARED, "leased {address}");
    client.ask(SHARED)?.success()?;
    holder.release()?;

    let (_holder, address) = DhcpClient::start(&second)?;
    ensure!(address == SHARED, "leased {address}");
    client.ask(SHARED)?.success()?;
    stage.wait_for("moved", SHARED)?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &[first.mac()]),
        Expected::moved(SHARED, first.mac(), second.mac()),
    ])
}
