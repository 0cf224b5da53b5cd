//! VRRP, by keepalived.

use std::time::Duration;

use anyhow::Result;
use probe_common::wire::MacAddr;
use probe_tests::{Expected, Host, Keepalived, Router, RouterMac, Scenario, Stage, Wires};

use crate::{CLIENT, FIRST, SECOND, SHARED, SHARED_BYTES, in_network};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "keepalived_failover_and_failback_are_two_moves",
        wires: Wires::Switch,
        play: failover_and_failback,
    },
    Scenario {
        name: "keepalived_masters_that_do_not_see_each_other_are_a_conflict_until_they_do",
        wires: Wires::Switch,
        play: split_brain,
    },
    Scenario {
        name: "keepalived_failover_of_a_virtual_mac_is_nothing",
        wires: Wires::Switch,
        play: virtual_mac,
    },
    Scenario {
        name: "keepalived_masters_that_answer_with_one_virtual_mac_are_contested",
        wires: Wires::Switch,
        play: split_brain_of_a_virtual_mac,
    },
];

/// A client and two routers, of which the first is master.
struct Group {
    client: Host,
    first: Host,
    second: Host,
    master: Keepalived,
    backup: Keepalived,
}

impl Group {
    fn start(stage: &Stage, mac: RouterMac) -> Result<Self> {
        let host = |name, address| stage.host(name, Some(&in_network(address)));
        let client = host("client", CLIENT)?;
        let first = host("first", FIRST)?;
        let second = host("second", SECOND)?;
        let shared = in_network(SHARED);
        let router = |priority| Router {
            address: &shared,
            priority,
            mac,
        };
        let master = Keepalived::start(&first, router(150))?;
        let backup = Keepalived::start(&second, router(100))?;
        master.wait_for_master(1)?;
        Ok(Self {
            client,
            first,
            second,
            master,
            backup,
        })
    }

    /// Cuts the network between the routers, or heals it. The client reaches both all the time.
    fn keep_apart(&self, stage: &Stage, apart: bool) -> Result<()> {
        stage.switch().keep_apart(&self.first, apart)?;
        stage.switch().keep_apart(&self.second, apart)
    }
}

pub fn failover_and_failback(stage: &mut Stage) -> Result<()> {
    let group = Group::start(stage, RouterMac::Own)?;
    let [first, second] = [group.first.mac(), group.second.mac()];
    stage.watch(&group.client, "tc", &[])?;
    group.client.ask(SHARED)?.success()?;

    stage.switch().unplug(&group.first)?;
    stage.wait_for("moved", SHARED)?;
    group.client.ask(SHARED)?.success()?;

    stage.switch().plug(&group.first)?;
    group.master.wait_for_master(2)?;
    stage.wait_for_more("moved", SHARED, 2)?;
    group.client.ask(SHARED)?.success()?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &[first]),
        Expected::moved(SHARED, first, second),
        Expected::moved(SHARED, second, first),
    ])
}

/// Both are masters, and a client whose gateway the address is, as it is for most groups of routers, gets two
/// answers; then they hear each other again.
fn split_and_heal(stage: &mut Stage, options: &[&str]) -> Result<Group> {
    let group = Group::start(stage, RouterMac::Own)?;
    let gateway = ["route", "add", "default", "via", SHARED];
    group.client.ip(gateway)?;
    stage.watch(&group.client, "tc", options)?;
    group.client.ask(SHARED)?.success()?;

    group.keep_apart(stage, true)?;
    group.backup.wait_for_master(1)?;
    group.client.ask(SHARED)?;
    stage.wait_for("conflict", SHARED)?;

    group.keep_apart(stage, false)?;
    group.backup.wait_for_backup(2)?;
    Ok(group)
}

fn split_brain(stage: &mut Stage) -> Result<()> {
    // It may not ask who is left, so it takes silence: longer than keepalived is silent between its bursts.
    let group = split_and_heal(stage, &["--quiet-after", "8s", "--expire-after", "12s"])?;
    let both = [group.first.mac(), group.second.mac()];
    stage.wait_for("conflict_quiet", SHARED)?;
    stage.wait_for("conflict_expired", SHARED)?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &[group.first.mac()]),
        // If the answer of the old master is the first, and the new one has been master for a second.
        Expected::contested(SHARED, &both).optional(),
        Expected::conflict(SHARED, "duplicate_reply", &both).critical(),
        Expected::conflict_quiet(SHARED, "duplicate_reply"),
        Expected::conflict_expired(SHARED, "duplicate_reply"),
    ])
}

/// The same, watched by a daemon that asks: it knows who is left.
pub fn split_brain_that_heals(stage: &mut Stage) -> Result<()> {
    let group = split_and_heal(stage, &["--quiet-after", "8s"])?;
    let both = [group.first.mac(), group.second.mac()];
    stage.wait_for("conflict_resolved", SHARED)?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &[group.first.mac()]),
        Expected::contested(SHARED, &both).optional(),
        Expected::conflict(SHARED, "duplicate_reply", &both).critical(),
        Expected::conflict_resolved(SHARED, "duplicate_reply"),
    ])
}

pub fn virtual_mac(stage: &mut Stage) -> Result<()> {
    let group = Group::start(stage, RouterMac::Virtual)?;
    let shared_mac: MacAddr = Keepalived::VIRTUAL_MAC.parse()?;
    stage.watch(&group.client, "native", &[])?;
    let capture = group.client.capture()?;
    // Whoever has the address answers with the virtual MAC, and asks with that of its network card.
    let use_address = |router: &Host| -> Result<()> {
        group.client.ask(SHARED)?.success()?;
        capture.wait_for_arp(Duration::from_secs(5), |arp| {
            arp.spa == SHARED_BYTES && arp.oper == 2 && arp.sha == shared_mac
        })?;
        router.forget_neighbours()?;
        router
            .exec(["ping", "-c1", "-W5", "-I", SHARED, CLIENT])
            .map(drop)?;
        capture
            .wait_for_arp(Duration::from_secs(5), |arp| {
                arp.spa == SHARED_BYTES && arp.oper == 1 && arp.sha == router.mac()
            })
            .map(drop)
    };
    use_address(&group.first)?;
    stage.switch().unplug(&group.first)?;
    group.backup.wait_for_master(1)?;
    use_address(&group.second)?;
    stage.conclude(&[Expected::new_binding(SHARED, &[shared_mac])])
}

/// There is one MAC only, so it is no conflict of MACs; but there are two answers.
fn split_brain_of_a_virtual_mac(stage: &mut Stage) -> Result<()> {
    let group = Group::start(stage, RouterMac::Virtual)?;
    let shared_mac: MacAddr = Keepalived::VIRTUAL_MAC.parse()?;
    stage.watch(&group.client, "tc", &[])?;
    group.keep_apart(stage, true)?;
    group.backup.wait_for_master(1)?;
    group.client.ask(SHARED)?;
    stage.wait_for("contested", SHARED)?;
    stage.conclude(&[
        Expected::new_binding(SHARED, &[shared_mac]),
        // Whoever gets the ping asks for the client, with the MAC of its network card.
        Expected::contested(SHARED, &[shared_mac])
            .perhaps_with(&[group.first.mac(), group.second.mac()])
            .hinting("two_masters"),
    ])
}
