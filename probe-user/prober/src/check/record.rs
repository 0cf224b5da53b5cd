//! The record of one checked address.

use std::{net::Ipv4Addr, time::Duration};

use probe_common::wire::{MacAddr, Vlan};
use probe_model::{
    CheckOwnerRecord, CheckRecord, Clock, NeighborRecord, Timestamp, vendor::vendor,
};

use super::{CheckResult, CheckedHost, LocalOwnership, RespondingMac};

/// The address that was checked, and the frames that were sent for it.
#[derive(Clone, Copy, Debug)]
pub struct CheckDetails<'a> {
    /// The address.
    pub ip: Ipv4Addr,
    /// The interface.
    pub interface: &'a str,
    /// The VLAN.
    pub vlan: Vlan,
    /// Frames sent, of either form.
    pub probes_sent: u32,
    /// Of these, ARP requests with a sender address.
    pub requests_sent: u32,
    /// The host that sent ARP probes for the address.
    pub probed_by: Option<MacAddr>,
    /// Frames of MACs beyond those that are recorded.
    pub frames_dropped: u32,
    /// The MAC in this host's neighbour table.
    pub neighbour: Option<MacAddr>,
}

/// The record of one checked address: its result at the time `at`, with names and the time of day.
pub fn check_record(
    checked: CheckDetails,
    result: &CheckResult,
    at: Timestamp,
    clock: Clock,
) -> CheckRecord {
    let clock = clock.read_once();
    let owners = result.hosts.iter().map(|host| owner_record(host, clock));
    let is_owner = |mac| {
        let owners = result.hosts.iter().filter(|host| host.is_owner());
        owners.flat_map(CheckedHost::macs).any(|one| one == mac)
    };
    CheckRecord {
        time: clock.to_wall_clock(at),
        ip: checked.ip,
        interface: checked.interface.to_owned(),
        vlan: checked.vlan,
        status: result.status,
        probes_sent: checked.probes_sent,
        requests_sent: checked.requests_sent,
        probed_by: checked.probed_by,
        owners: owners.collect(),
        frames_dropped: checked.frames_dropped,
        hint: result.hint,
        neighbor: checked.neighbour.map(|mac| NeighborRecord {
            mac,
            agrees: is_owner(mac),
        }),
        expected: None,
        cluster: None,
    }
}

fn owner_record(host: &CheckedHost, clock: Clock) -> CheckOwnerRecord {
    let macs = host.macs();
    let sum = |count: fn(&RespondingMac) -> u32| {
        let numbers = host.responders.iter().map(count);
        numbers.fold(0, u32::saturating_add)
    };
    let response_times = host.responders.iter().filter_map(|one| one.response_times);
    let is_observed = !host.responders.is_empty();
    let mut sources: Vec<_> = host
        .responders
        .iter()
        .flat_map(|one| one.sources.iter().copied())
        .filter(|source| !macs.contains(source))
        .collect();
    sources.sort_unstable();
    sources.dedup();
    CheckOwnerRecord {
        vendor: macs.iter().copied().find_map(vendor),
        node: None,
        macs,
        local: host.local,
        holds: host.held.is_some(),
        speaker: matches!(host.held, Some(LocalOwnership::Announced(_))),
        probes_answered: sum(RespondingMac::probes_answered),
        replies: sum(|one| one.replies),
        requests_answered: sum(|one| one.requests_answered),
        replies_to_others: sum(|one| one.replies_to_others),
        announcements: sum(|one| one.announcements),
        requests: sum(|one| one.requests),
        sources,
        first_seen: is_observed.then(|| clock.to_wall_clock(host.first())),
        last_seen: is_observed.then(|| clock.to_wall_clock(host.last())),
        min_rtt_us: response_times
            .clone()
            .map(|(fastest, _)| microseconds(fastest))
            .min(),
        max_rtt_us: response_times
            .map(|(_, slowest)| microseconds(slowest))
            .max(),
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
