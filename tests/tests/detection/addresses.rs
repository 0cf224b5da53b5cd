//! Addresses as people configure them, rightly and wrongly.

use std::time::Duration;

use anyhow::{Result, ensure};
use probe_common::wire::MacAddr;
use probe_tests::{DeviceTracking, Expected, Frame, Host, INTERFACE, Scenario, Stage, Wires};

use crate::{CLIENT, FIRST, SECOND, SHARED, SHARED_BYTES, in_network};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "static_duplicate_that_answers_only_when_asked_is_a_conflict_for_who_asks",
        wires: Wires::Switch,
        play: static_duplicate,
    },
    Scenario {
        name: "own_address_claimed_by_a_stranger_is_a_conflict",
        wires: Wires::Switch,
        play: stranger_on_own_address,
    },
    Scenario {
        name: "newcomer_that_probes_for_a_used_address_is_denied",
        wires: Wires::Switch,
        play: newcomer,
    },
    Scenario {
        name: "ipvs_service_address_on_loopback_is_nothing_for_a_client",
        wires: Wires::Switch,
        play: ipvs_seen_by_a_client,
    },
    Scenario {
        name: "ipvs_service_address_on_loopback_is_nothing_on_a_real_server",
        wires: Wires::Switch,
        play: ipvs_seen_by_a_real_server,
    },
    Scenario {
        name: "switch_that_tracks_devices_is_nothing",
        wires: Wires::Switch,
        play: device_tracking,
    },
    Scenario {
        name: "one_address_in_two_vlans_is_nothing",
        wires: Wires::Switch,
        play: two_vlans,
    },
];

/// Of a switch that tracks devices: the first comes at once, and the third after a minute.
const PROBES: u64 = 3;

fn static_duplicate(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let first = stage.host("first", Some(&in_network(SHARED)))?;
    let second = stage.host("second", Some(&in_network(SHARED)))?;
    let both = [first.mac(), second.mac()];
    stage.watch(&client, "native", &[])?;
    client.ask(SHARED)?;
    stage.wait_for("conflict", SHARED)?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &both),
        Expected::conflict(SHARED, "duplicate_reply", &both),
    ])
}

fn stranger_on_own_address(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let stranger = stage.host("stranger", Some(&in_network(SECOND)))?;
    stage.watch(&client, "tc", &[])?;
    client.ask(SECOND)?.success()?;

    stranger.add_address(&in_network(CLIENT))?;
    // Unsolicited ARP is answered by nobody, which arping calls a failure.
    stranger.run(["arping", "-U", "-c3", "-w4", "-I", INTERFACE, CLIENT])?;
    stage.wait_for("conflict", CLIENT)?;
    stage.conclude(&[
        Expected::new_binding(CLIENT, &[client.mac()]),
        Expected::conflict(CLIENT, "local", &[client.mac(), stranger.mac()])
            .critical()
            .captured_as(&[]),
    ])
}

fn newcomer(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let newcomer = stage.host("newcomer", None)?;
    stage.watch(&client, "tc", &[])?;
    let asked = newcomer.run(["arping", "-D", "-c2", "-w5", "-I", INTERFACE, CLIENT])?;
    ensure!(!asked.status.success(), "the address is free: {asked:?}");
    stage.conclude(&[
        Expected::new_binding(CLIENT, &[client.mac()]),
        Expected::probe_denied(CLIENT, client.mac(), newcomer.mac()),
    ])
}

/// A director that announces a service address, and two servers that have it for themselves only.
struct Ipvs {
    client: Host,
    director: Host,
    servers: [Host; 2],
}

impl Ipvs {
    fn start(stage: &Stage) -> Result<Self> {
        let host = |name, address| stage.host(name, Some(&in_network(address)));
        let client = host("client", CLIENT)?;
        let director = host("director", "192.0.2.2")?;
        let servers = [host("first", FIRST)?, host("second", SECOND)?];
        for server in &servers {
            // The settings that the documentation of LVS asks for.
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

    /// The director takes the address, the client uses it, and the servers answer from it.
    fn serve(&self) -> Result<()> {
        self.director.add_address(&in_network(SHARED))?;
        self.director
            .run(["arping", "-U", "-c2", "-w3", "-I", INTERFACE, SHARED])?;
        for server in &self.servers {
            self.client.ask(SHARED)?.success()?;
            server.forget_neighbours()?;
            // The answer goes to the director, who has the address on the network; that it is asked is
            // what matters.
            server.run(["ping", "-c1", "-W1", "-I", SHARED, CLIENT])?;
        }
        self.director
            .run(["arping", "-U", "-c1", "-w2", "-I", INTERFACE, SHARED])
            .map(drop)
    }
}

fn ipvs_seen_by_a_client(stage: &mut Stage) -> Result<()> {
    let ipvs = Ipvs::start(stage)?;
    stage.watch(&ipvs.client, "tc", &[])?;
    ipvs.serve()?;
    stage.conclude(&[Expected::new_binding(SHARED, &[ipvs.director.mac()])])
}

/// It has the address, but not on the network: who announces it there is no stranger.
fn ipvs_seen_by_a_real_server(stage: &mut Stage) -> Result<()> {
    let ipvs = Ipvs::start(stage)?;
    stage.watch(&ipvs.servers[0], "tc", &[])?;
    ipvs.serve()?;
    stage.conclude(&[Expected::new_binding(SHARED, &[ipvs.director.mac()])])
}

fn device_tracking(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let switch = stage.host("tracker", None)?;
    let capture = switch.capture()?;
    stage.watch(&client, "tc", &[])?;
    let devices = vec![(client.mac(), [192, 0, 2, 1])];
    // The interval of real switches.
    let mut tracking = DeviceTracking::start(&switch, devices, Duration::from_secs(30))?;
    tracking.wait_for_probes(PROBES)?;
    for _ in 0..PROBES {
        capture.wait_for_arp(Duration::from_secs(5), |arp| {
            arp.sha == client.mac() && arp.oper == 2
        })?;
    }
    stage.conclude(&[Expected::new_binding(CLIENT, &[client.mac()])])
}

fn two_vlans(stage: &mut Stage) -> Result<()> {
    let client = stage.host("client", Some(&in_network(CLIENT)))?;
    let first = stage.host("first", None)?;
    let second = stage.host("second", None)?;
    // The network card of the client strips the tags, as most do, so this takes a hook that still sees them.
    stage.watch(&client, "tc", &[])?;
    let announce = |host: &Host, mac: MacAddr, vlan: u16| -> Result<()> {
        let frame = Frame::announcement(mac, SHARED_BYTES).tagged(vlan);
        host.sender()?.send(&frame)
    };
    for _ in 0..10 {
        announce(&first, first.mac(), 100)?;
        announce(&second, second.mac(), 200)?;
    }
    stage.conclude(&[
        Expected::new_binding(SHARED, &[first.mac()]).in_vlan(100),
        Expected::new_binding(SHARED, &[second.mac()]).in_vlan(200),
    ])
}
