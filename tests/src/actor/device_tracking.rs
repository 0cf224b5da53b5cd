//! A switch with IP device tracking.

use std::time::{Duration, Instant};

use probe_common::wire::{ArpFrame, MacAddr};

use super::host_emulation::{Behaviour, Never, Station};
use crate::{frame::Frame, host::Host};

/// A switch that sends each device that it knows a unicast ARP probe at an interval.
#[derive(Debug)]
pub struct DeviceTracking(Station<Never>);

impl DeviceTracking {
    /// Starts to probe every `interval`. Real switches probe every 30 s.
    pub fn start(
        host: &Host,
        devices: Vec<(MacAddr, [u8; 4])>,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        Ok(Self(Station::start(
            host,
            Tracker {
                mac: host.mac(),
                devices,
                interval,
                next: Instant::now(),
            },
        )?))
    }

    /// Waits up to two minutes until it has sent this many probes.
    pub fn wait_for_probes(&mut self, count: u64) -> anyhow::Result<()> {
        self.0.wait_until_acted(count, Duration::from_mins(2))
    }
}

#[derive(Debug)]
struct Tracker {
    mac: MacAddr,
    devices: Vec<(MacAddr, [u8; 4])>,
    interval: Duration,
    next: Instant,
}

impl Behaviour for Tracker {
    type Order = Never;

    fn obey(&mut self, order: Never, _now: Instant) {
        match order {}
    }

    fn due(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn act(&mut self, now: Instant) -> Vec<Frame> {
        self.next = now + self.interval;
        self.devices
            .iter()
            .map(|&(mac, address)| Frame::probe(self.mac, address).eth_dst(mac))
            .collect()
    }

    fn answer(&self, _heard: &ArpFrame) -> Option<Frame> {
        None
    }
}
