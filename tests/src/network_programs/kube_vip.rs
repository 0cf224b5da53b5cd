//! kube-vip, simulated from captures of the real program.

use std::time::{Duration, Instant};

use probe_common::wire::{ArpFrame, MacAddr};

use super::simulated_host::{Behaviour, NoCommand, SimulatedHost};
use crate::{frame::Frame, host::Host};

/// The interval of announcements.
const INTERVAL: Duration = Duration::from_secs(3);

/// A simulated kube-vip on the node that owns the address.
#[derive(Debug)]
pub struct KubeVip(SimulatedHost<NoCommand>);

impl KubeVip {
    /// Adds the address to the host, whose kernel replies to requests, and sends a gratuitous ARP frame every three
    /// seconds, alternately a request and a reply.
    pub fn start(host: &Host, address: [u8; 4]) -> anyhow::Result<Self> {
        let [a, b, c, d] = address;
        host.add_address(&format!("{a}.{b}.{c}.{d}/32"))?;
        Ok(Self(SimulatedHost::start(
            host,
            Announcer {
                mac: host.mac(),
                address,
                next: Instant::now(),
                as_reply: false,
            },
        )?))
    }

    /// Waits until this many announcements were sent.
    pub fn wait_for_announcements(&mut self, count: u64) -> anyhow::Result<()> {
        let patience = INTERVAL * u32::try_from(count)? + Duration::from_secs(10);
        self.0.wait_until_sent(count, patience)
    }
}

#[derive(Debug)]
struct Announcer {
    mac: MacAddr,
    address: [u8; 4],
    next: Instant,
    as_reply: bool,
}

impl Behaviour for Announcer {
    type Command = NoCommand;

    fn handle_command(&mut self, command: NoCommand, _now: Instant) {
        match command {}
    }

    fn next_send(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn send_due(&mut self, now: Instant) -> Vec<Frame> {
        self.next = now + INTERVAL;
        self.as_reply = !self.as_reply;
        vec![if self.as_reply {
            Frame::announcement(self.mac, self.address)
        } else {
            Frame::announcing_reply(self.mac, self.address)
        }]
    }

    fn reply(&self, _received: &ArpFrame) -> Option<Frame> {
        None
    }
}
