//! VRRP, by keepalived.

use std::time::Duration;

use anyhow::Result;
use probe_common::wire::MacAddr;
use probe_tests::{
    ExpectedFinding, Host, Keepalived, Router, RouterMac, Scenario, ScenarioRun, Topology,
    eventually,
};

use crate::{CLIENT, FIRST, SECOND, SHARED, SHARED_BYTES, in_network};

/// Timeout for a reply to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "keepalived_failover_and_failback_are_two_moves",
        topology: Topology::Switch,
        run: failover_and_failback,
    },
    Scenario {
        name: "keepalived_split_brain_is_a_conflict_until_it_heals",
        topology: Topology::Switch,
        run: split_brain,
    },
    Scenario {
        name: "keepalived_failover_of_a_virtual_mac_is_no_conflict",
        topology: Topology::Switch,
        run: virtual_mac,
    },
    Scenario {
        name: "keepalived_masters_with_one_virtual_mac_are_contested",
        topology: Topology::Switch,
        run: split_brain_of_a_virtual_mac,
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
    fn start(run: &ScenarioRun, mac: RouterMac) -> Result<Self> {
        let host = |name, address| run.host(name, Some(&in_network(address)));
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

    /// Isolates the routers from each other, or reconnects them. The client reaches both all the time.
    fn set_isolated(&self, run: &ScenarioRun, apart: bool) -> Result<()> {
        run.switch().set_isolated(&self.first, apart)?;
        run.switch().set_isolated(&self.second, apart)
    }
}

pub fn failover_and_failback(run: &mut ScenarioRun) -> Result<()> {
    let group = Group::start(run, RouterMac::Own)?;
    let [first, second] = [group.first.mac(), group.second.mac()];
    run.watch(&group.client, "tc", &[])?;
    group.client.resolve(SHARED)?.success()?;

    run.switch().unplug(&group.first)?;
    run.wait_for("moved", SHARED)?;
    group.client.resolve(SHARED)?.success()?;

    run.switch().plug(&group.first)?;
    group.master.wait_for_master(2)?;
    run.wait_for_more("moved", SHARED, 2)?;
    group.client.resolve(SHARED)?.success()?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[first]),
        ExpectedFinding::moved(SHARED, first, second),
        ExpectedFinding::moved(SHARED, second, first),
    ])
}

/// Both routers are masters, and a client that uses the address as its gateway gets two replies; then they reach
/// each other again.
fn split_and_heal(run: &mut ScenarioRun, options: &[&str]) -> Result<Group> {
    let group = Group::start(run, RouterMac::Own)?;
    let gateway = ["route", "add", "default", "via", SHARED];
    group.client.ip(gateway)?;
    run.watch(&group.client, "tc", options)?;
    group.client.resolve(SHARED)?.success()?;

    group.set_isolated(run, true)?;
    group.backup.wait_for_master(1)?;
    group.client.resolve(SHARED)?;
    run.wait_for("conflict", SHARED)?;

    group.set_isolated(run, false)?;
    group.backup.wait_for_backup(2)?;
    Ok(group)
}

fn split_brain(run: &mut ScenarioRun) -> Result<()> {
    // Without active probing, the end of the conflict takes a silence that is longer than the pause between
    // keepalived's announcements.
    let group = split_and_heal(run, &["--quiet-after", "8s", "--expire-after", "12s"])?;
    let both = [group.first.mac(), group.second.mac()];
    run.wait_for("conflict_quiet", SHARED)?;
    run.wait_for("conflict_expired", SHARED)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[group.first.mac()]),
        // If the old master replies first, and the new one has been master for a second.
        ExpectedFinding::contested(SHARED, &both).optional(),
        ExpectedFinding::conflict(SHARED, "duplicate_reply", &both).critical(),
        ExpectedFinding::conflict_quiet(SHARED, "duplicate_reply"),
        ExpectedFinding::conflict_expired(SHARED, "duplicate_reply"),
    ])
}

/// The same with active probing, which determines the remaining owner.
pub fn split_brain_that_heals(run: &mut ScenarioRun) -> Result<()> {
    let group = split_and_heal(run, &["--quiet-after", "8s"])?;
    let both = [group.first.mac(), group.second.mac()];
    run.wait_for("conflict_resolved", SHARED)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[group.first.mac()]),
        ExpectedFinding::contested(SHARED, &both).optional(),
        ExpectedFinding::conflict(SHARED, "duplicate_reply", &both).critical(),
        ExpectedFinding::conflict_resolved(SHARED, "duplicate_reply"),
    ])
}

pub fn virtual_mac(run: &mut ScenarioRun) -> Result<()> {
    let group = Group::start(run, RouterMac::Virtual)?;
    let shared_mac: MacAddr = Keepalived::VIRTUAL_MAC.parse()?;
    run.watch(&group.client, "native", &[])?;
    let capture = group.client.capture()?;
    // The master replies with the virtual MAC, and sends requests with the MAC of its interface.
    let use_address = |router: &Host| -> Result<()> {
        // The first ping after an election can get lost.
        eventually("the master to reply to a ping", PING_TIMEOUT, || {
            let ping = group.client.resolve(SHARED)?;
            Ok(ping.status.success().then_some(()))
        })?;
        capture.wait_for_arp(Duration::from_secs(5), |arp| {
            arp.spa == SHARED_BYTES && arp.oper == 2 && arp.sha == shared_mac
        })?;
        router.flush_neighbours()?;
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
    run.switch().unplug(&group.first)?;
    group.backup.wait_for_master(1)?;
    use_address(&group.second)?;
    run.expect_findings(&[ExpectedFinding::new_binding(SHARED, &[shared_mac])])
}

/// There is only one MAC, so it is no conflict of MACs; but there are two replies.
fn split_brain_of_a_virtual_mac(run: &mut ScenarioRun) -> Result<()> {
    let group = Group::start(run, RouterMac::Virtual)?;
    let shared_mac: MacAddr = Keepalived::VIRTUAL_MAC.parse()?;
    run.watch(&group.client, "tc", &[])?;
    group.set_isolated(run, true)?;
    group.backup.wait_for_master(1)?;
    group.client.resolve(SHARED)?;
    run.wait_for("contested", SHARED)?;
    run.expect_findings(&[
        ExpectedFinding::new_binding(SHARED, &[shared_mac]),
        // The router that gets the ping requests the client's address with the MAC of its own interface.
        ExpectedFinding::contested(SHARED, &[shared_mac])
            .allowing_macs(&[group.first.mac(), group.second.mac()])
            .with_hint("two_masters"),
    ])
}
