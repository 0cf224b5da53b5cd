//! Addresses that are configured correctly and incorrectly.

use std::time::Duration;

use anyhow::{Result, ensure};
use probe_common::wire::MacAddr;
use probe_tests::{
    DeviceTracking, ExpectedFinding, Frame, Host, INTERFACE, Scenario, ScenarioRun, Topology,
};

use crate::{CLIENT, FIRST, SECOND, SHARED, SHARED_BYTES, in_network};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "static_duplicate_is_a_conflict_for_the_requester",
        topology: Topology::Switch,
        run: static_duplicate,
    },
    Scenario {
        name: "own_address_claimed_by_another_host_is_a_conflict",
        topology: Topology::Switch,
        run: foreign_claim_of_own_address,
    },
    Scenario {
        name: "host_that_probes_for_a_used_address_is_denied",
        topology: Topology::Switch,
        run: denied_probe,
    },
    Scenario {
        name: "ipvs_service_address_on_loopback_is_no_conflict_for_a_client",
        topology: Topology::Switch,
        run: ipvs_seen_by_a_client,
    },
    Scenario {
        name: "ipvs_service_address_on_loopback_is_no_conflict_on_a_real_server",
        topology: Topology::Switch,
        run: ipvs_seen_by_a_real_server,
    },
    Scenario {
        name: "switch_with_device_tracking_is_no_conflict",
        topology: Topology::Switch,
        run: device_tracking,
    },
    Scenario {
        name: "scenario_with_one_address_in_two_vlans_is_no_conflict",
        topology: Topology::Switch,
        run: two_vlans,
    },
];

/// The number of probes of the switch: the first is sent at once, the third after a minute.
const PROBES: u64 = 3;

fn static_duplicate(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let first = run.host("first", Some(&in_network(SHARED)))?;
    let second = run.host("second", Some(&in_network(SHARED)))?;
    let both = [first.mac(), second.mac()];
    run.watch(&client, "native", &[])?;
    client.resolve(SHARED)?;
    run.wait_for("conflict", SHARED)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &both),
        ExpectedFinding::conflict(SHARED, "duplicate_reply", &both),
    ])
}

fn foreign_claim_of_own_address(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let unknown_host = run.host("unknown", Some(&in_network(SECOND)))?;
    run.watch(&client, "tc", &[])?;
    client.resolve(SECOND)?.success()?;

    unknown_host.add_address(&in_network(CLIENT))?;
    // Unsolicited ARP gets no reply, which arping reports as a failure.
    unknown_host.run(["arping", "-U", "-c3", "-w4", "-I", INTERFACE, CLIENT])?;
    run.wait_for("conflict", CLIENT)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(CLIENT, &[client.mac()]),
        ExpectedFinding::conflict(CLIENT, "local", &[client.mac(), unknown_host.mac()])
            .critical()
            .captured_as(&[ExpectedFinding::contested(
                CLIENT,
                &[client.mac(), unknown_host.mac()],
            )
            .optional()]),
    ])
}

fn denied_probe(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let prober = run.host("prober", None)?;
    run.watch(&client, "tc", &[])?;
    let arping = prober.run(["arping", "-D", "-c2", "-w5", "-I", INTERFACE, CLIENT])?;
    ensure!(!arping.status.success(), "the address is free: {arping:?}");
    run.expect_findings(&[
        ExpectedFinding::new_binding(CLIENT, &[client.mac()]),
        ExpectedFinding::probe_denied(CLIENT, client.mac(), prober.mac()),
    ])
}

/// A director that announces a service address, and two servers that have it on loopback only.
struct Ipvs {
    client: Host,
    director: Host,
    servers: [Host; 2],
}

impl Ipvs {
    fn start(run: &ScenarioRun) -> Result<Self> {
        let host = |name, address| run.host(name, Some(&in_network(address)));
        let client = host("client", CLIENT)?;
        let director = host("director", "192.0.2.2")?;
        let servers = [host("first", FIRST)?, host("second", SECOND)?];
        for server in &servers {
            // The settings from the LVS documentation.
            server.set_parameter("ipv4/conf/all/arp_ignore", "1")?;
            server.set_parameter("ipv4/conf/all/arp_announce", "2")?;
            server.ip(["address", "add", &format!("{SHARED}/32"), "dev", "lo"])?;
        }
        Ok(Self {
            client,
            director,
            servers,
        })
    }

    /// The director adds the address, the client uses it, and the servers send from it.
    fn serve(&self) -> Result<()> {
        self.director.add_address(&in_network(SHARED))?;
        self.director
            .run(["arping", "-U", "-c2", "-w3", "-I", INTERFACE, SHARED])?;
        for server in &self.servers {
            self.client.resolve(SHARED)?.success()?;
            server.flush_neighbours()?;
            // The reply goes to the director, which has the address on the network; only the ARP request matters
            // here.
            server.run(["ping", "-c1", "-W1", "-I", SHARED, CLIENT])?;
        }
        self.director
            .run(["arping", "-U", "-c1", "-w2", "-I", INTERFACE, SHARED])
            .map(drop)
    }
}

fn ipvs_seen_by_a_client(run: &mut ScenarioRun) -> Result<()> {
    let ipvs = Ipvs::start(run)?;
    run.watch(&ipvs.client, "tc", &[])?;
    ipvs.serve()?;
    run.expect_findings(&[ExpectedFinding::new_binding(SHARED, &[ipvs.director.mac()])])
}

/// The server has the address on loopback only, so the host that announces it is a valid owner.
fn ipvs_seen_by_a_real_server(run: &mut ScenarioRun) -> Result<()> {
    let ipvs = Ipvs::start(run)?;
    run.watch(&ipvs.servers[0], "tc", &[])?;
    ipvs.serve()?;
    run.expect_findings(&[ExpectedFinding::new_binding(SHARED, &[ipvs.director.mac()])])
}

fn device_tracking(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let switch = run.host("tracker", None)?;
    let capture = switch.capture()?;
    run.watch(&client, "tc", &[])?;
    let devices = vec![(client.mac(), [192, 0, 2, 1])];
    // The interval of real switches.
    let mut tracking = DeviceTracking::start(&switch, devices, Duration::from_secs(30))?;
    tracking.wait_for_probes(PROBES)?;
    for _ in 0..PROBES {
        capture.wait_for_arp(Duration::from_secs(5), |arp| {
            arp.sha == client.mac() && arp.oper == 2
        })?;
    }
    run.expect_findings(&[ExpectedFinding::new_binding(CLIENT, &[client.mac()])])
}

fn two_vlans(run: &mut ScenarioRun) -> Result<()> {
    let client = run.host("client", Some(&in_network(CLIENT)))?;
    let first = run.host("first", None)?;
    let second = run.host("second", None)?;
    // The client's interface strips the tags, as most do, so this needs a hook that still sees them.
    run.watch(&client, "tc", &[])?;
    let announce = |host: &Host, mac: MacAddr, vlan: u16| -> Result<()> {
        let frame = Frame::announcement(mac, SHARED_BYTES).tagged(vlan);
        host.sender()?.send(&frame)
    };
    for _ in 0..10 {
        announce(&first, first.mac(), 100)?;
        announce(&second, second.mac(), 200)?;
    }
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[first.mac()]).in_vlan(100),
        ExpectedFinding::new_binding(SHARED, &[second.mac()]).in_vlan(200),
    ])
}
