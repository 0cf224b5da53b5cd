//! Turns the judgement of one address into a record.

use std::{net::Ipv4Addr, time::Duration};

use probe_common::wire::{MacAddr, Vlan};
use probe_model::{
    CheckOwnerRecord, CheckRecord, Clock, NeighbourRecord, Timestamp, vendor::vendor,
};

use super::{CheckResult, CheckedHost, RespondingMac};

/// Which address was checked where, and how often it was asked about.
#[derive(Clone, Copy, Debug)]
pub struct CheckDetails<'a> {
    /// Which.
    pub ip: Ipv4Addr,
    /// On which interface.
    pub interface: &'a str,
    /// In which VLAN.
    pub vlan: Vlan,
    /// How often.
    pub asked: u32,
    /// Whether it was left alone because somebody asked whether it is free.
    pub probed: bool,
    /// Frames of stations beyond those that were told apart.
    pub more: u32,
    /// Whom this host's neighbour table names.
    pub neighbour: Option<MacAddr>,
}

/// The record of one checked address: its judgement at the time `at`, with names and the time of day.
pub fn check_record(
    checked: CheckDetails,
    judgement: &CheckResult,
    at: Timestamp,
    clock: Clock,
) -> CheckRecord {
    let clock = clock.read_once();
    let owners = judgement.machines.iter();
    let owners: Vec<_> = owners.map(|machine| owner_record(machine, clock)).collect();
    let has = |mac| {
        let having = judgement.machines.iter().filter(|machine| machine.has());
        having.flat_map(CheckedHost::macs).any(|one| one == mac)
    };
    CheckRecord {
        time: clock.to_wall_clock(at),
        ip: checked.ip,
        interface: checked.interface.to_owned(),
        vlan: checked.vlan,
        verdict: judgement.verdict,
        asked: checked.asked,
        probed: checked.probed,
        owners,
        more: checked.more,
        hint: judgement.hint,
        neighbour: checked.neighbour.map(|mac| NeighbourRecord {
            mac,
            agrees: has(mac),
        }),
        expected: None,
        cluster: None,
    }
}

fn owner_record(machine: &CheckedHost, clock: Clock) -> CheckOwnerRecord {
    let macs = machine.macs();
    let sum = |pick: fn(&RespondingMac) -> u32| {
        let numbers = machine.responders.iter().map(pick);
        numbers.fold(0, u32::saturating_add)
    };
    let took = machine.responders.iter().filter_map(|station| station.took);
    let heard = !machine.responders.is_empty();
    CheckOwnerRecord {
        vendor: macs.iter().copied().find_map(vendor),
        node: None,
        macs,
        local: machine.local,
        holds: machine.held.is_some(),
        answered: sum(RespondingMac::probes_answered),
        answers: sum(|station| station.answers),
        announcements: sum(|station| station.announcements),
        requests: sum(|station| station.requests),
        first_seen: heard.then(|| clock.to_wall_clock(machine.first())),
        last_seen: heard.then(|| clock.to_wall_clock(machine.last())),
        min_rtt_us: took.clone().map(|(fastest, _)| microseconds(fastest)).min(),
        max_rtt_us: took.map(|(_, slowest)| microseconds(slowest)).max(),
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
