//! `MetalLB` in layer 2 mode.

use std::time::Duration;

use anyhow::Result;
use probe_tests::{Expected, Host, MetalLbSpeaker, Scenario, Stage, Wires};

use crate::{CLIENT, FIRST, SECOND, SHARED, SHARED_BYTES, in_network};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "metallb_announcement_is_nothing",
        wires: Wires::Switch,
        play: announcement,
    },
    Scenario {
        name: "metallb_announcing_again_is_nothing_on_its_own_node_too",
        wires: Wires::Switch,
        play: announcing_again,
    },
    Scenario {
        name: "metallb_clean_handover_is_one_move",
        wires: Wires::Hub,
        play: handover_seen_by_a_bystander,
    },
    Scenario {
        name: "metallb_clean_handover_is_one_move_on_the_node_that_takes_over_too",
        wires: Wires::Switch,
        play: handover_seen_by_the_node_that_takes_over,
    },
    Scenario {
        name: "metallb_rolling_restart_is_nothing",
        wires: Wires::Switch,
        play: rolling_restart,
    },
    Scenario {
        name: "metallb_split_brain_is_a_conflict_while_both_announce",
        wires: Wires::Switch,
        play: split_brain_while_announcing,
    },
    Scenario {
        name: "metallb_split_brain_is_a_conflict_for_a_client_that_asks_later",
        wires: Wires::Switch,
        play: split_brain_asked_about_later,
    },
];

/// An election, as long as a rolling restart takes to bring the address back.
const ELECTION: Duration = Duration::from_millis(1800);

/// A client, and two nodes with a silent speaker each.
struct Cluster {
    client: Host,
    nodes: [Host; 2],
    speakers: [MetalLbSpeaker; 2],
}

impl Cluster {
    fn start(stage: &Stage) -> Result<Self> {
        let host = |name, address| stage.host(name, Some(&in_network(address)));
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

fn announcement(stage: &mut Stage) -> Result<()> {
    let Cluster {
        client,
        nodes: [first, _],
        speakers: [mut speaker, _silent],
    } = Cluster::start(stage)?;
    stage.watch(&client, "tc", &[])?;
    speaker.announce()?;
    client.run(["arping", "-c1", "-w5", "-I", "eth0", SHARED])?;
    speaker.wait_for_burst()?;
    stage.conclude(&[Expected::new_binding(SHARED, &[first.mac()])])
}

pub fn announcing_again(stage: &mut Stage) -> Result<()> {
    let Cluster {
        client: _client,
        nodes: [first, _],
        speakers: [mut speaker, _silent],
    } = Cluster::start(stage)?;
    stage.watch(&first, "tc", &[])?;
    for _ in 0..2 {
        speaker.announce()?;
        speaker.wait_for_burst()?;
    }
    stage.conclude(&[Expected::new_binding(SHARED, &[first.mac()])])
}

pub fn handover_seen_by_a_bystander(stage: &mut Stage) -> Result<()> {
    let cluster = Cluster::start(stage)?;
    stage.watch(&cluster.client, "tc", &[])?;
    hand_over(stage, cluster)
}

pub fn handover_seen_by_the_node_that_takes_over(stage: &mut Stage) -> Result<()> {
    let cluster = Cluster::start(stage)?;
    stage.watch(&cluster.nodes[1], "tc", &[])?;
    hand_over(stage, cluster)
}

/// The outgoing speaker answers the incoming one's first announcement, and is silent from then on.
fn hand_over(stage: &mut Stage, cluster: Cluster) -> Result<()> {
    let [first, second] = &cluster.nodes;
    let [mut outgoing, mut incoming] = cluster.speakers;
    outgoing.announce()?;
    outgoing.wait_for_burst()?;

    let capture = second.capture()?;
    incoming.announce()?;
    outgoing.wait_for_answers(1)?;
    outgoing.stop()?;
    capture.wait_for_arp(Duration::from_secs(5), |arp| {
        arp.sha == first.mac() && arp.eth_dst == second.mac() && arp.is_announcement()
    })?;
    stage.wait_for("moved", SHARED)?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &[first.mac()]),
        Expected::moved(SHARED, first.mac(), second.mac()),
    ])
}

pub fn rolling_restart(stage: &mut Stage) -> Result<()> {
    let Cluster {
        client,
        nodes: [first, _],
        speakers: [mut restarting, mut standing_in],
    } = Cluster::start(stage)?;
    stage.watch(&client, "tc", &[])?;
    restarting.announce()?;
    restarting.wait_for_burst()?;

    standing_in.announce()?;
    restarting.wait_for_answers(1)?;
    restarting.stop()?;
    restarting.announce_after(ELECTION)?;
    standing_in.wait_for_answers(1)?;
    standing_in.stop()?;
    restarting.wait_for_burst()?;
    stage.conclude(&[Expected::new_binding(SHARED, &[first.mac()])])
}

fn split_brain_while_announcing(stage: &mut Stage) -> Result<()> {
    let Cluster {
        client,
        nodes: [first, second],
        speakers: [mut one, mut other],
    } = Cluster::start(stage)?;
    let both = [first.mac(), second.mac()];
    stage.watch(&client, "tc", &[])?;
    one.announce()?;
    stage.wait_for("new_binding", SHARED)?;
    other.announce()?;
    one.wait_for_burst()?;
    other.wait_for_burst()?;
    client.ask(SHARED)?;
    stage.wait_for("conflict", SHARED)?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &[first.mac()]),
        Expected::contested(SHARED, &both).optional(),
        Expected::conflict(SHARED, "alternation", &both).hinting("two_announcers"),
    ])
}

/// Both are silent for long: only who asks notices.
fn split_brain_asked_about_later(stage: &mut Stage) -> Result<()> {
    let Cluster {
        client,
        nodes: [first, second],
        speakers: [mut one, mut other],
    } = Cluster::start(stage)?;
    let both = [first.mac(), second.mac()];
    for speaker in [&mut one, &mut other] {
        speaker.announce()?;
    }
    for speaker in [&mut one, &mut other] {
        speaker.wait_for_burst()?;
    }
    stage.watch(&client, "tc", &[])?;
    client.ask(SHARED)?;
    stage.wait_for("conflict", SHARED)?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &both),
        Expected::conflict(SHARED, "duplicate_reply", &both),
    ])
}
