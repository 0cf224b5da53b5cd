//! `MetalLB`'s speaker in layer 2 mode, simulated from captures of the real program.

use std::time::{Duration, Instant};

use probe_common::wire::{ArpFrame, MacAddr};

use super::simulated_host::{Behaviour, SimulatedHost};
use crate::{frame::Frame, host::Host};

/// The number of rounds in a burst.
const ROUNDS: u32 = 5;

/// The time between two rounds.
const ROUND: Duration = Duration::from_millis(1100);

/// The frames of a round: a gratuitous request and a gratuitous reply.
const FRAMES: u64 = 2;

/// Timeout for a burst on a busy machine.
const BURST_DEADLINE: Duration = Duration::from_secs(20);

/// Timeout for a reply.
const REPLY_DEADLINE: Duration = Duration::from_secs(5);

/// A simulated speaker on a node. It announces one address when the test commands it.
#[derive(Debug)]
pub struct MetalLbSpeaker {
    simulated_host: SimulatedHost<Command>,
    bursts: u64,
}

#[derive(Debug)]
enum Command {
    /// Announce the address after a delay.
    Announce { after: Duration },
    /// Stop announcing and replying.
    Stop,
}

impl MetalLbSpeaker {
    /// Starts a speaker that does not announce yet.
    pub fn start(host: &Host, address: [u8; 4]) -> anyhow::Result<Self> {
        let simulated_host = SimulatedHost::start(
            host,
            Speaker {
                mac: host.mac(),
                address,
                announcing: false,
                next: None,
            },
        )?;
        Ok(Self {
            simulated_host,
            bursts: 0,
        })
    }

    /// Starts a burst of announcements and replies to requests from then on. A speaker that owns the address sends
    /// another burst, as MetalLB does whenever a speaker joins or leaves.
    pub fn announce(&mut self) -> anyhow::Result<()> {
        self.announce_after(Duration::ZERO)
    }

    /// Starts a burst after a delay, as in a cluster that needs time to elect the node.
    pub fn announce_after(&mut self, after: Duration) -> anyhow::Result<()> {
        self.bursts += 1;
        self.simulated_host
            .send_command(Command::Announce { after })
    }

    /// Stops announcing and replying, even during a burst.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.simulated_host.send_command(Command::Stop)
    }

    /// Waits until all requested bursts were sent completely.
    pub fn wait_for_burst(&mut self) -> anyhow::Result<()> {
        let frames = self.bursts * u64::from(ROUNDS) * FRAMES;
        self.simulated_host.wait_until_sent(frames, BURST_DEADLINE)
    }

    /// Waits until this many replies were sent.
    pub fn wait_for_replies(&mut self, replies: u64) -> anyhow::Result<()> {
        self.simulated_host
            .wait_until_replied(replies, REPLY_DEADLINE)
    }
}

#[derive(Debug)]
struct Speaker {
    mac: MacAddr,
    address: [u8; 4],
    announcing: bool,
    /// The time of the next round and the number of rounds left.
    next: Option<(Instant, u32)>,
}

impl Behaviour for Speaker {
    type Command = Command;

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Announce { after } => self.next = Some((now + after, ROUNDS)),
            Command::Stop => {
                self.announcing = false;
                self.next = None;
            }
        }
    }

    fn next_send(&self) -> Option<Instant> {
        self.next.map(|(next_send, _)| next_send)
    }

    fn send_due(&mut self, now: Instant) -> Vec<Frame> {
        self.announcing = true;
        self.next = self
            .next
            .and_then(|(_, left)| (left > 1).then_some((now + ROUND, left - 1)));
        [
            Frame::announcement(self.mac, self.address).tha(MacAddr::BROADCAST),
            Frame::announcing_reply(self.mac, self.address),
        ]
        .map(|frame| frame.of_length(Frame::MINIMUM))
        .into()
    }

    /// Replies to every request for the address, including announcements of others.
    fn reply(&self, received: &ArpFrame) -> Option<Frame> {
        let is_request = received.oper == ArpFrame::REQUEST && received.tpa == self.address;
        (self.announcing && is_request).then(|| {
            Frame::reply(self.mac, self.address, received.sha, received.spa)
                .of_length(Frame::MINIMUM)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const ADDRESS: [u8; 4] = [192, 0, 2, 10];

    #[test]
    fn a_burst_is_five_broadcast_rounds_of_request_and_reply() {
        let mut speaker = Speaker {
            mac: MAC,
            address: ADDRESS,
            announcing: false,
            next: None,
        };
        let start = Instant::now();
        speaker.handle_command(
            Command::Announce {
                after: Duration::ZERO,
            },
            start,
        );
        let mut rounds = Vec::new();
        while let Some(next_send) = speaker.next_send() {
            let frames = speaker.send_due(next_send);
            rounds.push(next_send - start);
            let bytes: Vec<_> = frames.iter().map(Frame::bytes).collect();
            assert!(bytes.iter().all(|bytes| bytes.len() == 60));
            // Destination, operation and target hardware address.
            let read = |bytes: &[u8]| (bytes[..6].to_vec(), bytes[21], bytes[32..38].to_vec());
            let all = vec![0xff; 6];
            assert_eq!(read(&bytes[0]), (all.clone(), 1, all.clone()));
            assert_eq!(read(&bytes[1]), (all.clone(), 2, all));
        }
        assert_eq!(rounds, [0, 1, 2, 3, 4].map(|round| ROUND * round));
    }

    #[test]
    fn a_speaker_replies_to_the_requester_only_while_it_has_the_address() {
        let other = MacAddr([2, 0, 0, 0, 0, 2]);
        let announced = ArpFrame {
            oper: 1,
            sha: other,
            spa: ADDRESS,
            tpa: ADDRESS,
            ..ArpFrame::default()
        };
        let mut speaker = Speaker {
            mac: MAC,
            address: ADDRESS,
            announcing: true,
            next: None,
        };
        let reply = Frame::reply(MAC, ADDRESS, other, ADDRESS).of_length(60);
        assert_eq!(speaker.reply(&announced), Some(reply));
        let elsewhere = ArpFrame {
            tpa: [192, 0, 2, 11],
            ..announced
        };
        assert_eq!(speaker.reply(&elsewhere), None);
        speaker.handle_command(Command::Stop, Instant::now());
        assert_eq!(speaker.reply(&announced), None);
    }
}
