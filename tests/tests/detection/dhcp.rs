//! Addresses from a DHCP server.

use anyhow::{Result, ensure};
use probe_tests::{DhcpClient, DhcpServer, ExpectedFinding, Scenario, ScenarioRun, Topology};

use crate::{CLIENT, SHARED, in_network};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "dhcp_address_leased_to_another_client_is_a_move",
    topology: Topology::Switch,
    run: lease_to_another_client,
}];

fn lease_to_another_client(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let server = run.host("server", Some("192.0.2.2/24"))?;
    let first = run.host("first", None)?;
    let second = run.host("second", None)?;
    run.watch(&client, "tc", &[])?;
    let _dhcp = DhcpServer::start(&server, SHARED)?;

    let (holder, address) = DhcpClient::start(&first)?;
    ensure!(address == SHARED, "leased {address}");
    client.resolve(SHARED)?.success()?;
    holder.release()?;

    let (_holder, address) = DhcpClient::start(&second)?;
    ensure!(address == SHARED, "leased {address}");
    client.resolve(SHARED)?.success()?;
    run.wait_for("moved", SHARED)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[first.mac()]),
        ExpectedFinding::moved(SHARED, first.mac(), second.mac()),
    ])
}
