//! `MetalLB`'s speaker in layer 2 mode, as it was seen on the wire.

use std::time::{Duration, Instant};

use probe_common::wire::{ArpFrame, MacAddr};

use super::host_emulation::{Behaviour, Station};
use crate::{frame::Frame, host::Host};

/// A burst has this many rounds…
const ROUNDS: u32 = 5;

/// …this far apart…
const ROUND: Duration = Duration::from_millis(1100);

/// …of a gratuitous request and a gratuitous reply.
const FRAMES: u64 = 2;

/// For a burst, on a machine that is busy with other tests.
const BURST_DEADLINE: Duration = Duration::from_secs(20);

/// For an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A speaker on a node. It speaks for its one address or is silent; a cluster would tell it which.
#[derive(Debug)]
pub struct MetalLbSpeaker {
    station: Station<Order>,
    bursts: u64,
}

#[derive(Debug)]
enum Order {
    /// Take the address, or say again that it is here.
    Announce { after: Duration },
    /// Give the address up.
    Stop,
}

impl MetalLbSpeaker {
    /// A speaker that is silent yet.
    pub fn start(host: &Host, address: [u8; 4]) -> anyhow::Result<Self> {
        let station = Station::start(
            host,
            Speaker {
                mac: host.mac(),
                address,
                speaks: false,
                next: None,
            },
        )?;
        Ok(Self { station, bursts: 0 })
    }

    /// Lets it take the address: it announces, and answers who asks. Where it has the address, it announces
    /// again, as it does whenever another speaker joins or leaves.
    pub fn announce(&mut self) -> anyhow::Result<()> {
        self.announce_after(Duration::ZERO)
    }

    /// Lets it take the address in a while: a cluster takes its time to find that it should.
    pub fn announce_after(&mut self, after: Duration) -> anyhow::Result<()> {
        self.bursts += 1;
        self.station.tell(Order::Announce { after })
    }

    /// Lets it give the address up, in the middle of a burst or not.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.station.tell(Order::Stop)
    }

    /// Waits until all bursts that it was told of are over. None of them may have been cut short.
    pub fn wait_for_burst(&mut self) -> anyhow::Result<()> {
        let frames = self.bursts * u64::from(ROUNDS) * FRAMES;
        self.station.wait_until_acted(frames, BURST_DEADLINE)
    }

    /// Waits until it has answered so often.
    pub fn wait_for_answers(&mut self, answers: u64) -> anyhow::Result<()> {
        self.station.wait_until_answered(answers, ANSWER_DEADLINE)
    }
}

#[derive(Debug)]
struct Speaker {
    mac: MacAddr,
    address: [u8; 4],
    speaks: bool,
    /// When the next round is due, and how many are left.
    next: Option<(Instant, u32)>,
}

impl Behaviour for Speaker {
    type Order = Order;

    fn obey(&mut self, order: Order, now: Instant) {
        match order {
            Order::Announce { after } => self.next = Some((now + after, ROUNDS)),
            Order::Stop => {
                self.speaks = false;
                self.next = None;
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.next.map(|(due, _)| due)
    }

    fn act(&mut self, now: Instant) -> Vec<Frame> {
        self.speaks = true;
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

    /// It answers every request for the address, announcements of others included.
    fn answer(&self, heard: &ArpFrame) -> Option<Frame> {
        let asked = heard.oper == ArpFrame::REQUEST && heard.tpa == self.address;
        (self.speaks && asked).then(|| {
            Frame::reply(self.mac, self.address, heard.sha, heard.spa).of_length(Frame::MINIMUM)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const ADDRESS: [u8; 4] = [192, 0, 2, 10];

    #[test]
    fn a_burst_is_five_rounds_of_both_forms_to_all() {
        let mut speaker = Speaker {
            mac: MAC,
            address: ADDRESS,
            speaks: false,
            next: None,
        };
        let start = Instant::now();
        speaker.obey(
            Order::Announce {
                after: Duration::ZERO,
            },
            start,
        );
        let mut rounds = Vec::new();
        while let Some(due) = speaker.due() {
            let frames = speaker.act(due);
            rounds.push(due - start);
            let bytes: Vec<_> = frames.iter().map(Frame::bytes).collect();
            assert!(bytes.iter().all(|bytes| bytes.len() == 60));
            // Destination, operation, target hardware address.
            let read = |bytes: &[u8]| (bytes[..6].to_vec(), bytes[21], bytes[32..38].to_vec());
            let all = vec![0xff; 6];
            assert_eq!(read(&bytes[0]), (all.clone(), 1, all.clone()));
            assert_eq!(read(&bytes[1]), (all.clone(), 2, all));
        }
        assert_eq!(rounds, [0, 1, 2, 3, 4].map(|round| ROUND * round));
    }

    #[test]
    fn only_a_speaker_that_has_the_address_answers_and_that_to_who_asked() {
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
            speaks: true,
            next: None,
        };
        let answer = Frame::reply(MAC, ADDRESS, other, ADDRESS).of_length(60);
        assert_eq!(speaker.answer(&announced), Some(answer));
        let elsewhere = ArpFrame {
            tpa: [192, 0, 2, 11],
            ..announced
        };
        assert_eq!(speaker.answer(&elsewhere), None);
        speaker.obey(Order::Stop, Instant::now());
        assert_eq!(speaker.answer(&announced), None);
    }
}
