//! Records the frames received for each address, until the address is reported.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use fixedbitset::FixedBitSet;
use probe_common::wire::{ArpFrame, MacAddr, Operation};
use probe_model::Timestamp;
use smallvec::SmallVec;

/// The time after a probe within which a reply is matched to it.
const REPLY_WINDOW: Duration = Duration::from_secs(1);

/// The maximum number of MACs that are recorded for one address; frames of others are only counted.
const MAX_RESPONDERS: usize = 64;

/// The maximum number of Ethernet sources that are recorded for one MAC.
const MAX_SOURCES: usize = 4;

/// The form of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeForm {
    /// An ARP probe, whose sender address is 0.0.0.0 (RFC 5227).
    ArpProbe,
    /// An ARP request with an address of this host as sender.
    Request,
}

/// A probe that was sent for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentProbe {
    /// The number of the probe, from 1.
    pub attempt: u32,
    /// Its form.
    pub form: ProbeForm,
    /// When it was sent.
    pub at: Timestamp,
}

/// One MAC that replied for an address or claimed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespondingMac {
    /// Its MAC (sha).
    pub mac: MacAddr,
    /// Replies to the probes of this program.
    pub replies: u32,
    /// Of these, how many followed another reply to the same probe.
    pub repeats: u32,
    /// The first and the last probe that it replied to, counted from 1.
    pub probe_range: Option<(u32, u32)>,
    /// Of the probes that it replied to, how many were ARP requests with a sender address.
    pub requests_answered: u32,
    /// Replies to other hosts.
    pub replies_to_others: u32,
    /// Announcements (gratuitous ARP).
    pub announcements: u32,
    /// Its own requests with the address as sender.
    pub requests: u32,
    /// Ethernet sources of its frames other than its MAC: the hosts that really sent them.
    pub sources: SmallVec<[MacAddr; 1]>,
    /// When it was first observed.
    pub first: Timestamp,
    /// When it was last observed.
    pub last: Timestamp,
    /// The response times of the fastest and the slowest reply.
    pub response_times: Option<(Duration, Duration)>,
}

/// The frames received for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressResponses {
    /// The MACs, in the order of appearance.
    pub responders: SmallVec<[RespondingMac; 1]>,
    /// Frames of MACs beyond those that are recorded.
    pub more: u32,
}

/// The frames received for all addresses that are not yet reported.
#[derive(Debug)]
pub struct ResponseTable {
    responses: HashMap<u32, AddressResponses>,
    /// The last probe for each address, as long as replies are awaited.
    sent: HashMap<u32, SentProbe>,
    /// The same, the oldest first.
    deadlines: VecDeque<(u32, Timestamp)>,
    reported: FixedBitSet,
    window: Duration,
    late: u64,
}

impl ResponseTable {
    /// A table for `total` addresses, whose replies are awaited for at least `wait`.
    pub fn new(total: u32, wait: Duration) -> Self {
        Self {
            window: wait.max(REPLY_WINDOW),
            responses: HashMap::new(),
            sent: HashMap::new(),
            deadlines: VecDeque::new(),
            reported: FixedBitSet::with_capacity(total as usize),
            late: 0,
        }
    }

    /// Records that a probe for an address was sent.
    pub fn record_probe(&mut self, number: u32, probe: SentProbe) {
        self.sent.insert(number, probe);
        self.deadlines.push_back((number, probe.at));
    }

    /// Records a claim to an address; returns whether it replies to a probe of this program, sent from the MAC `own`.
    pub fn record_frame(
        &mut self,
        number: u32,
        frame: &ArpFrame,
        own: MacAddr,
        now: Timestamp,
    ) -> bool {
        let is_reply = frame.operation() == Operation::Reply;
        let is_ours = is_reply && (frame.tha == own || frame.eth_dst == own);
        if self.reported.contains(number as usize) {
            self.late += u64::from(is_ours);
            return false;
        }
        let probe = self.sent.get(&number).copied();
        let responses = self.responses.entry(number).or_default();
        let Some(responder) = responses.responder(frame.sha, now) else {
            responses.more = responses.more.saturating_add(1);
            return false;
        };
        responder.last = now;
        responder.record_source(frame.eth_src);
        if is_ours {
            responder.replies = responder.replies.saturating_add(1);
            if let Some(probe) = probe {
                responder.record_reply(probe, now);
            }
            return true;
        }
        let counted = match (is_reply, frame.is_announcement()) {
            (_, true) => &mut responder.announcements,
            (true, false) => &mut responder.replies_to_others,
            (false, false) => &mut responder.requests,
        };
        *counted = counted.saturating_add(1);
        false
    }

    /// An address whose last probe was sent so long ago that no more replies are expected, if any frame was received
    /// for it. It counts as reported.
    pub fn pop_settled(&mut self, now: Timestamp) -> Option<(u32, AddressResponses)> {
        while let Some(&(number, at)) = self.deadlines.front() {
            if now.since(at) < self.window {
                return None;
            }
            self.deadlines.pop_front();
            let is_last = self.sent.get(&number).is_some_and(|last| last.at == at);
            if is_last {
                self.sent.remove(&number);
                if let Some(responses) = self.take(number) {
                    return Some((number, responses));
                }
            }
        }
        None
    }

    /// When [`Self::pop_settled`] may return an address.
    pub fn next_settled_at(&self) -> Option<Timestamp> {
        self.deadlines.front().map(|(_, at)| *at + self.window)
    }

    /// Forgets the probes that were sent too long ago for a reply.
    pub fn expire_probes(&mut self, now: Timestamp) {
        while let Some(&(_, at)) = self.deadlines.front()
            && now.since(at) >= self.window
        {
            self.deadlines.pop_front();
        }
    }

    /// The frames received for an address, which counts as reported from now on.
    pub fn take(&mut self, number: u32) -> Option<AddressResponses> {
        let responses = self.responses.remove(&number)?;
        self.reported.insert(number as usize);
        Some(responses)
    }

    /// Whether an address was reported.
    pub fn is_reported(&self, number: u32) -> bool {
        self.reported.contains(number as usize)
    }

    /// Replies for addresses that had been reported.
    pub fn late(&self) -> u64 {
        self.late
    }
}

impl AddressResponses {
    /// The entry of a MAC, which is created if necessary; `None` if the maximum is reached.
    fn responder(&mut self, mac: MacAddr, now: Timestamp) -> Option<&mut RespondingMac> {
        let index = self.responders.iter().position(|known| known.mac == mac);
        let index = match index {
            Some(index) => index,
            None if self.responders.len() == MAX_RESPONDERS => return None,
            None => {
                self.responders.push(RespondingMac::new(mac, now));
                self.responders.len() - 1
            }
        };
        self.responders.get_mut(index)
    }
}

impl RespondingMac {
    fn new(mac: MacAddr, now: Timestamp) -> Self {
        Self {
            mac,
            replies: 0,
            repeats: 0,
            probe_range: None,
            requests_answered: 0,
            replies_to_others: 0,
            announcements: 0,
            requests: 0,
            sources: SmallVec::new(),
            first: now,
            last: now,
            response_times: None,
        }
    }

    fn record_source(&mut self, source: MacAddr) {
        let is_new = source != self.mac && !self.sources.contains(&source);
        if is_new && self.sources.len() < MAX_SOURCES {
            self.sources.push(source);
        }
    }

    fn record_reply(&mut self, probe: SentProbe, now: Timestamp) {
        let (first, last) = self.probe_range.unwrap_or((probe.attempt, 0));
        if last == probe.attempt {
            // A late reply to the probe before is no second reply to this one.
            self.repeats += u32::from(self.probes_answered() > probe.attempt);
            return;
        }
        self.requests_answered += u32::from(probe.form == ProbeForm::Request);
        self.probe_range = Some((first.min(probe.attempt), last.max(probe.attempt)));
        let after = now.since(probe.at);
        let (fastest, slowest) = self.response_times.unwrap_or((after, after));
        self.response_times = Some((fastest.min(after), slowest.max(after)));
    }

    /// How many probes it replied to.
    pub fn probes_answered(&self) -> u32 {
        self.replies.saturating_sub(self.repeats)
    }

    /// Whether it was observed to reply for the address, to this host or another.
    pub fn is_replying(&self) -> bool {
        self.replies > 0 || self.replies_to_others > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xff]);
    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const IP: [u8; 4] = [192, 0, 2, 7];

    fn reply(sha: MacAddr) -> ArpFrame {
        ArpFrame {
            eth_dst: OWN,
            eth_src: sha,
            oper: ArpFrame::REPLY,
            sha,
            spa: IP,
            tha: OWN,
            ..ArpFrame::default()
        }
    }

    fn sent(attempt: u32, at: Timestamp) -> SentProbe {
        SentProbe {
            attempt,
            form: ProbeForm::ArpProbe,
            at,
        }
    }

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(1_000_000_000 + milliseconds * 1_000_000)
    }

    #[test]
    fn replies_are_counted_timed_and_distinguished_from_repeats_and_claims() {
        let mut table = ResponseTable::new(3, Duration::ZERO);
        table.record_probe(1, sent(1, at(0)));
        assert!(table.record_frame(1, &reply(A), OWN, at(2)));
        assert!(table.record_frame(1, &reply(A), OWN, at(3)));
        table.record_probe(1, sent(2, at(200)));
        assert!(table.record_frame(1, &reply(A), OWN, at(205)));
        let announcement = ArpFrame {
            eth_dst: MacAddr::BROADCAST,
            oper: ArpFrame::REQUEST,
            tpa: IP,
            ..reply(B)
        };
        assert!(!table.record_frame(1, &announcement, OWN, at(206)));
        let request = ArpFrame {
            tpa: [192, 0, 2, 1],
            ..announcement
        };
        assert!(!table.record_frame(1, &request, OWN, at(207)));
        let to_another_host = ArpFrame {
            tha: B,
            eth_dst: B,
            ..reply(B)
        };
        assert!(!table.record_frame(1, &to_another_host, OWN, at(208)));

        let responses = table.take(1).unwrap();
        let [a, b] = &responses.responders[..] else {
            panic!("{responses:?}")
        };
        assert_eq!((a.replies, a.repeats, a.probes_answered()), (3, 1, 2));
        assert_eq!(a.probe_range, Some((1, 2)));
        let expected_times = (Duration::from_millis(2), Duration::from_millis(5));
        assert_eq!(a.response_times, Some(expected_times));
        assert_eq!((b.replies, b.announcements, b.requests), (0, 1, 1));
        assert_eq!(b.replies_to_others, 1);
        assert_eq!((b.first, b.last), (at(206), at(208)));
        assert!(!table.record_frame(1, &reply(B), OWN, at(300)), "too late");
        assert_eq!(table.late(), 1);
    }

    #[test]
    fn an_address_settles_a_second_after_its_last_probe_and_its_state_is_removed() {
        let mut table = ResponseTable::new(100, Duration::ZERO);
        for number in 0..100 {
            table.record_probe(number, sent(1, at(u64::from(number))));
        }
        table.record_frame(7, &reply(A), OWN, at(8));
        table.record_frame(8, &reply(A), OWN, at(9));
        table.record_probe(8, sent(2, at(500)));
        assert_eq!(table.pop_settled(at(1006)), None);
        assert_eq!(table.pop_settled(at(1007)).unwrap().0, 7);
        assert_eq!(table.pop_settled(at(1499)), None);
        assert_eq!(table.pop_settled(at(1500)).unwrap().0, 8);
        assert_eq!(table.pop_settled(at(9999)), None);
        assert!(table.sent.is_empty() && table.deadlines.is_empty());
        assert!(table.responses.is_empty());
    }

    #[test]
    fn frames_of_too_many_macs_are_counted_and_not_recorded() {
        let mut table = ResponseTable::new(1, Duration::ZERO);
        table.record_probe(0, sent(1, at(0)));
        for number in 0..=255 {
            table.record_frame(0, &reply(MacAddr([2, 0, 0, 0, 1, number])), OWN, at(1));
        }
        let responses = table.take(0).unwrap();
        assert_eq!(responses.responders.len(), MAX_RESPONDERS);
        assert_eq!(responses.more, 256 - 64);
    }

    #[test]
    fn a_late_reply_to_the_probe_before_is_no_second_reply() {
        let mut table = ResponseTable::new(1, Duration::ZERO);
        table.record_probe(0, sent(1, at(0)));
        table.record_probe(0, sent(2, at(200)));
        table.record_frame(0, &reply(A), OWN, at(201));
        table.record_frame(0, &reply(A), OWN, at(202));
        table.record_frame(0, &reply(A), OWN, at(203));
        let responses = table.take(0).unwrap();
        let [a] = &responses.responders[..] else {
            panic!("{responses:?}")
        };
        assert_eq!((a.replies, a.repeats), (3, 1));
    }

    #[test]
    fn the_real_sender_of_a_frame_is_recorded() {
        let mut table = ResponseTable::new(1, Duration::ZERO);
        let proxied = ArpFrame {
            eth_src: B,
            ..reply(A)
        };
        for frame in [reply(A), proxied, proxied] {
            table.record_frame(0, &frame, OWN, at(1));
        }
        let responses = table.take(0).unwrap();
        assert_eq!(responses.responders[0].sources[..], [B]);
    }

    #[test]
    fn replies_to_requests_are_distinguished_from_replies_to_arp_probes() {
        let mut table = ResponseTable::new(1, Duration::ZERO);
        table.record_probe(0, sent(1, at(0)));
        let request = SentProbe {
            form: ProbeForm::Request,
            ..sent(2, at(200))
        };
        table.record_probe(0, request);
        table.record_frame(0, &reply(A), OWN, at(201));
        let responses = table.take(0).unwrap();
        let [a] = &responses.responders[..] else {
            panic!("{responses:?}")
        };
        assert_eq!((a.probes_answered(), a.requests_answered), (1, 1));
    }
}
