//! A switch with IP device tracking.

use std::time::{Duration, Instant};

use probe_common::wire::{ArpFrame, MacAddr};

use super::simulated_host::{Behaviour, NoCommand, SimulatedHost};
use crate::{frame::Frame, host::Host};

/// A switch that sends unicast ARP probes to its known devices at an interval.
#[derive(Debug)]
pub struct DeviceTracking(SimulatedHost<NoCommand>);

impl DeviceTracking {
    /// Starts to send probes every `interval`. Real switches send one every 30 s.
    pub fn start(
        host: &Host,
        devices: Vec<(MacAddr, [u8; 4])>,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        Ok(Self(SimulatedHost::start(
            host,
            Tracker {
                mac: host.mac(),
                devices,
                interval,
                next: Instant::now(),
            },
        )?))
    }

    /// Waits up to two minutes until this many probes were sent.
    pub fn wait_for_probes(&mut self, count: u64) -> anyhow::Result<()> {
        self.0.wait_until_sent(count, Duration::from_mins(2))
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
    type Command = NoCommand;

    fn handle_command(&mut self, command: NoCommand, _now: Instant) {
        match command {}
    }

    fn next_send(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn send_due(&mut self, now: Instant) -> Vec<Frame> {
        self.next = now + self.interval;
        self.devices
            .iter()
            .map(|&(mac, address)| Frame::probe(self.mac, address).eth_dst(mac))
            .collect()
    }

    fn reply(&self, _received: &ArpFrame) -> Option<Frame> {
        None
    }
}
