//! kube-vip, as it was seen on the wire.

use std::time::{Duration, Instant};

use probe_common::wire::{ArpFrame, MacAddr};

use super::host_emulation::{Behaviour, Never, Station};
use crate::{frame::Frame, host::Host};

/// It announces this often, for as long as it has the address.
const INTERVAL: Duration = Duration::from_secs(3);

/// kube-vip on a node that has the address.
#[derive(Debug)]
pub struct KubeVip(Station<Never>);

impl KubeVip {
    /// Starts to announce: the address is configured, so the kernel answers whoever asks, and every three
    /// seconds a gratuitous frame goes out, a request and a reply in turn.
    pub fn start(host: &Host, address: [u8; 4]) -> anyhow::Result<Self> {
        let [a, b, c, d] = address;
        host.add_address(&format!("{a}.{b}.{c}.{d}/32"))?;
        Ok(Self(Station::start(
            host,
            Announcer {
                mac: host.mac(),
                address,
                next: Instant::now(),
                as_reply: false,
            },
        )?))
    }

    /// Waits until it has announced so often.
    pub fn wait_for_announcements(&mut self, count: u64) -> anyhow::Result<()> {
        let patience = INTERVAL * u32::try_from(count)? + Duration::from_secs(10);
        self.0.wait_until_acted(count, patience)
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
    type Order = Never;

    fn obey(&mut self, order: Never, _now: Instant) {
        match order {}
    }

    fn due(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn act(&mut self, now: Instant) -> Vec<Frame> {
        self.next = now + INTERVAL;
        self.as_reply = !self.as_reply;
        vec![if self.as_reply {
            Frame::announcement(self.mac, self.address)
        } else {
            Frame::announcing_reply(self.mac, self.address)
        }]
    }

    fn answer(&self, _heard: &ArpFrame) -> Option<Frame> {
        None
    }
}
