//! `MetalLB` in layer 2 mode.

use std::time::Duration;

use anyhow::Result;
use probe_tests::{ExpectedFinding, Host, MetalLbSpeaker, Scenario, ScenarioRun, Topology};

use crate::{CLIENT, FIRST, SECOND, SHARED, SHARED_BYTES, in_network};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "metallb_announcement_is_no_conflict",
        topology: Topology::Switch,
        run: announcement,
    },
    Scenario {
        name: "metallb_repeated_announcement_is_no_conflict_on_the_announcing_node",
        topology: Topology::Switch,
        run: announcing_again,
    },
    Scenario {
        name: "metallb_clean_handover_is_one_move",
        topology: Topology::Hub,
        run: handover_on_another_host,
    },
    Scenario {
        name: "metallb_clean_handover_is_one_move_on_the_new_node_too",
        topology: Topology::Switch,
        run: handover_on_the_new_owner,
    },
    Scenario {
        name: "metallb_rolling_restart_is_no_conflict",
        topology: Topology::Switch,
        run: rolling_restart,
    },
    Scenario {
        name: "metallb_split_brain_is_a_conflict_while_both_announce",
        topology: Topology::Switch,
        run: split_brain_while_announcing,
    },
    Scenario {
        name: "metallb_split_brain_is_a_conflict_for_a_client_that_resolves_it_later",
        topology: Topology::Switch,
        run: split_brain_resolved_later,
    },
];

/// The duration of an election, also the time that a rolling restart needs to return the address.
const ELECTION: Duration = Duration::from_millis(1800);

/// A client, and two nodes with an inactive speaker each.
struct Cluster {
    client: Host,
    nodes: [Host; 2],
    speakers: [MetalLbSpeaker; 2],
}

impl Cluster {
    fn start(run: &ScenarioRun) -> Result<Self> {
        let host = |name, address| run.host(name, Some(&in_network(address)));
        let client = host("client", CLIENT)?;
        let nodes = [host("first", FIRST)?, host("second", SECOND)?];
        let [first, second] = &nodes;
        let speakers = [
            MetalLbSpeaker::start(first, SHARED_BYTES)?,
            MetalLbSpeaker::start(second, SHARED_BYTES)?,
        ];
        Ok(Self {
            client,
            nodes,
            speakers,
        })
    }
}

fn announcement(run: &mut ScenarioRun) -> Result<()> {
    let Cluster {
        client,
        nodes: [first, _],
        speakers: [mut speaker, _silent],
    } = Cluster::start(run)?;
    run.watch(&client, "tc", &[])?;
    speaker.announce()?;
    client.run(["arping", "-c1", "-w5", "-I", "eth0", SHARED])?;
    speaker.wait_for_burst()?;
    run.expect_findings(&[ExpectedFinding::new_binding(SHARED, &[first.mac()])])
}

pub fn announcing_again(run: &mut ScenarioRun) -> Result<()> {
    let Cluster {
        client: _client,
        nodes: [first, _],
        speakers: [mut speaker, _silent],
    } = Cluster::start(run)?;
    run.watch(&first, "tc", &[])?;
    for _ in 0..2 {
        speaker.announce()?;
        speaker.wait_for_burst()?;
    }
    run.expect_findings(&[ExpectedFinding::new_binding(SHARED, &[first.mac()])])
}

pub fn handover_on_another_host(run: &mut ScenarioRun) -> Result<()> {
    let cluster = Cluster::start(run)?;
    run.watch(&cluster.client, "tc", &[])?;
    hand_over(run, cluster)
}

pub fn handover_on_the_new_owner(run: &mut ScenarioRun) -> Result<()> {
    let cluster = Cluster::start(run)?;
    run.watch(&cluster.nodes[1], "tc", &[])?;
    hand_over(run, cluster)
}

/// The outgoing speaker replies to the first announcement of the incoming one and sends nothing after that.
fn hand_over(run: &mut ScenarioRun, cluster: Cluster) -> Result<()> {
    let [first, second] = &cluster.nodes;
    let [mut outgoing, mut incoming] = cluster.speakers;
    outgoing.announce()?;
    outgoing.wait_for_burst()?;

    let capture = second.capture()?;
    incoming.announce()?;
    outgoing.wait_for_replies(1)?;
    outgoing.stop()?;
    capture.wait_for_arp(Duration::from_secs(5), |arp| {
        arp.sha == first.mac() && arp.eth_dst == second.mac() && arp.is_announcement()
    })?;
    run.wait_for("moved", SHARED)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[first.mac()]),
        ExpectedFinding::moved(SHARED, first.mac(), second.mac()),
    ])
}

pub fn rolling_restart(run: &mut ScenarioRun) -> Result<()> {
    let Cluster {
        client,
        nodes: [first, _],
        speakers: [mut restarting, mut standing_in],
    } = Cluster::start(run)?;
    run.watch(&client, "tc", &[])?;
    restarting.announce()?;
    restarting.wait_for_burst()?;

    standing_in.announce()?;
    restarting.wait_for_replies(1)?;
    restarting.stop()?;
    restarting.announce_after(ELECTION)?;
    standing_in.wait_for_replies(1)?;
    standing_in.stop()?;
    restarting.wait_for_burst()?;
    run.expect_findings(&[ExpectedFinding::new_binding(SHARED, &[first.mac()])])
}

fn split_brain_while_announcing(run: &mut ScenarioRun) -> Result<()> {
    let Cluster {
        client,
        nodes: [first, second],
        speakers: [mut one, mut other],
    } = Cluster::start(run)?;
    let both = [first.mac(), second.mac()];
    run.watch(&client, "tc", &[])?;
    one.announce()?;
    run.wait_for("new_binding", SHARED)?;
    other.announce()?;
    one.wait_for_burst()?;
    other.wait_for_burst()?;
    client.resolve(SHARED)?;
    run.wait_for("conflict", SHARED)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[first.mac()]),
        ExpectedFinding::contested(SHARED, &both).optional(),
        ExpectedFinding::conflict(SHARED, "alternation", &both).with_hint("two_announcers"),
    ])
}

/// Both are silent for long: only a client that resolves the address notices.
fn split_brain_resolved_later(run: &mut ScenarioRun) -> Result<()> {
    let Cluster {
        client,
        nodes: [first, second],
        speakers: [mut one, mut other],
    } = Cluster::start(run)?;
    let both = [first.mac(), second.mac()];
    for speaker in [&mut one, &mut other] {
        speaker.announce()?;
    }
    for speaker in [&mut one, &mut other] {
        speaker.wait_for_burst()?;
    }
    run.watch(&client, "tc", &[])?;
    client.resolve(SHARED)?;
    run.wait_for("conflict", SHARED)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &both),
        ExpectedFinding::conflict(SHARED, "duplicate_reply", &both),
    ])
}
