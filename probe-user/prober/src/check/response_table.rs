//! What was heard about each address, until it is reported.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use fixedbitset::FixedBitSet;
use probe_common::wire::{ArpFrame, MacAddr, Operation};
use probe_model::Timestamp;
use smallvec::SmallVec;

/// How long after the question an answer belongs to it.
const REPLY_WINDOW: Duration = Duration::from_secs(1);

/// Stations that are kept of one address; the others are counted.
const MAX_RESPONDERS: usize = 64;

/// One MAC that has to do with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespondingMac {
    /// Its MAC (sha).
    pub mac: MacAddr,
    /// Answers to this program's questions.
    pub answers: u32,
    /// Of these, how many came after another one to the same question.
    pub repeats: u32,
    /// The first and the last question that it answered, counted from 1.
    pub probe_range: Option<(u32, u32)>,
    /// Announcements, and answers to everybody.
    pub announcements: u32,
    /// Questions of its own, in which it named the address as its own.
    pub requests: u32,
    /// When it was first heard.
    pub first: Timestamp,
    /// When it was last heard.
    pub last: Timestamp,
    /// How long the quickest and the slowest answer took.
    pub took: Option<(Duration, Duration)>,
}

/// All that was heard about an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressResponses {
    /// Who was heard, in the order of appearance.
    pub responders: SmallVec<[RespondingMac; 1]>,
    /// Frames of stations beyond those that are kept.
    pub more: u32,
}

/// What was heard about all addresses that are not yet reported.
#[derive(Debug)]
pub struct ResponseTable {
    sightings: HashMap<u32, AddressResponses>,
    /// When each address was last asked about, as long as answers are awaited.
    asked: HashMap<u32, (Timestamp, u32)>,
    /// The same, the oldest first.
    deadlines: VecDeque<(u32, Timestamp)>,
    reported: FixedBitSet,
    window: Duration,
    late: u64,
}

impl ResponseTable {
    /// A ledger for so many addresses, whose answers are waited for at least this long.
    pub fn new(total: u32, wait: Duration) -> Self {
        Self {
            window: wait.max(REPLY_WINDOW),
            sightings: HashMap::new(),
            asked: HashMap::new(),
            deadlines: VecDeque::new(),
            reported: FixedBitSet::with_capacity(total as usize),
            late: 0,
        }
    }

    /// The question with this number, from 1, was asked about an address.
    pub fn asked(&mut self, number: u32, question: u32, now: Timestamp) {
        self.asked.insert(number, (now, question));
        self.deadlines.push_back((number, now));
    }

    /// A claim to an address was heard; says whether it answers a question of this program, which `asker` put.
    pub fn record_frame(
        &mut self,
        number: u32,
        frame: &ArpFrame,
        asker: MacAddr,
        now: Timestamp,
    ) -> bool {
        let is_reply = frame.operation() == Operation::Reply;
        let is_answer = is_reply && (frame.tha == asker || frame.eth_dst == asker);
        if self.reported.contains(number as usize) {
            self.late += u64::from(is_answer);
            return false;
        }
        let question = self.asked.get(&number).copied();
        let sighting = self.sightings.entry(number).or_default();
        let Some(station) = sighting.responder(frame.sha, now) else {
            sighting.more = sighting.more.saturating_add(1);
            return false;
        };
        station.last = now;
        if is_answer {
            station.answers = station.answers.saturating_add(1);
            if let Some((at, question)) = question {
                station.record_reply(question, now.since(at));
            }
            return true;
        }
        let counted = if is_reply || frame.is_announcement() {
            &mut station.announcements
        } else {
            &mut station.requests
        };
        *counted = counted.saturating_add(1);
        false
    }

    /// An address whose last question lies so far back that nothing more is expected, if something was heard
    /// about it: with that. It counts as reported.
    pub fn pop_settled(&mut self, now: Timestamp) -> Option<(u32, AddressResponses)> {
        while let Some(&(number, at)) = self.deadlines.front() {
            if now.since(at) < self.window {
                return None;
            }
            self.deadlines.pop_front();
            let is_last = self.asked.get(&number).is_some_and(|(last, _)| *last == at);
            if is_last {
                self.asked.remove(&number);
                if let Some(sighting) = self.take(number) {
                    return Some((number, sighting));
                }
            }
        }
        None
    }

    /// When [`Self::pop_settled`] may have something.
    pub fn next_settled_at(&self) -> Option<Timestamp> {
        self.deadlines.front().map(|(_, at)| *at + self.window)
    }

    /// Forgets the questions that were asked too long ago to be answered.
    pub fn expire_probes(&mut self, now: Timestamp) {
        while let Some(&(_, at)) = self.deadlines.front()
            && now.since(at) >= self.window
        {
            self.deadlines.pop_front();
        }
    }

    /// What was heard about an address, which counts as reported from now on.
    pub fn take(&mut self, number: u32) -> Option<AddressResponses> {
        let sighting = self.sightings.remove(&number)?;
        self.reported.insert(number as usize);
        Some(sighting)
    }

    /// Whether an address was reported.
    pub fn is_reported(&self, number: u32) -> bool {
        self.reported.contains(number as usize)
    }

    /// The addresses that something was heard about and that are not reported, in order.
    pub fn unsettled(&self) -> Vec<u32> {
        let mut numbers: Vec<_> = self.sightings.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Frames about addresses that had been reported.
    pub fn late(&self) -> u64 {
        self.late
    }
}

impl AddressResponses {
    /// This station, new if it must be, as long as there is room.
    fn responder(&mut self, mac: MacAddr, now: Timestamp) -> Option<&mut RespondingMac> {
        let place = self
            .responders
            .iter()
            .position(|station| station.mac == mac);
        let place = match place {
            Some(place) => place,
            None if self.responders.len() == MAX_RESPONDERS => return None,
            None => {
                self.responders.push(RespondingMac {
                    mac,
                    answers: 0,
                    repeats: 0,
                    probe_range: None,
                    announcements: 0,
                    requests: 0,
                    first: now,
                    last: now,
                    took: None,
                });
                self.responders.len() - 1
            }
        };
        self.responders.get_mut(place)
    }
}

impl RespondingMac {
    fn record_reply(&mut self, question: u32, after: Duration) {
        let (first, last) = self.probe_range.unwrap_or((question, 0));
        if last == question {
            self.repeats = self.repeats.saturating_add(1);
            return;
        }
        self.probe_range = Some((first.min(question), last.max(question)));
        let (quickest, slowest) = self.took.unwrap_or((after, after));
        self.took = Some((quickest.min(after), slowest.max(after)));
    }

    /// How many questions it answered.
    pub fn probes_answered(&self) -> u32 {
        self.answers.saturating_sub(self.repeats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xff]);
    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const IP: [u8; 4] = [192, 0, 2, 7];

    fn reply(sha: MacAddr) -> ArpFrame {
        ArpFrame {
            eth_dst: ASKER,
            eth_src: sha,
            oper: ArpFrame::REPLY,
            sha,
            spa: IP,
            tha: ASKER,
            ..ArpFrame::default()
        }
    }

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(1_000_000_000 + milliseconds * 1_000_000)
    }

    #[test]
    fn answers_are_counted_timed_and_told_from_repeats_and_claims() {
        let mut ledger = ResponseTable::new(3, Duration::ZERO);
        ledger.asked(1, 1, at(0));
        assert!(ledger.record_frame(1, &reply(A), ASKER, at(2)));
        assert!(ledger.record_frame(1, &reply(A), ASKER, at(3)));
        ledger.asked(1, 2, at(200));
        assert!(ledger.record_frame(1, &reply(A), ASKER, at(205)));
        let announcement = ArpFrame {
            eth_dst: MacAddr::BROADCAST,
            oper: ArpFrame::REQUEST,
            tpa: IP,
            ..reply(B)
        };
        assert!(!ledger.record_frame(1, &announcement, ASKER, at(206)));
        let request = ArpFrame {
            tpa: [192, 0, 2, 1],
            ..announcement
        };
        assert!(!ledger.record_frame(1, &request, ASKER, at(207)));
        let to_somebody_else = ArpFrame {
            tha: B,
            eth_dst: B,
            ..reply(B)
        };
        assert!(!ledger.record_frame(1, &to_somebody_else, ASKER, at(208)));

        let sighting = ledger.take(1).unwrap();
        let [a, b] = &sighting.responders[..] else {
            panic!("{sighting:?}")
        };
        assert_eq!((a.answers, a.repeats, a.probes_answered()), (3, 1, 2));
        assert_eq!(a.probe_range, Some((1, 2)));
        let took = (Duration::from_millis(2), Duration::from_millis(5));
        assert_eq!(a.took, Some(took));
        assert_eq!((b.answers, b.announcements, b.requests), (0, 2, 1));
        assert_eq!((b.first, b.last), (at(206), at(208)));
        assert!(
            !ledger.record_frame(1, &reply(B), ASKER, at(300)),
            "too late"
        );
        assert_eq!(ledger.late(), 1);
    }

    #[test]
    fn an_address_settles_a_second_after_its_last_question_and_leaves_nothing_behind() {
        let mut ledger = ResponseTable::new(100, Duration::ZERO);
        for number in 0..100 {
            ledger.asked(number, 1, at(u64::from(number)));
        }
        ledger.record_frame(7, &reply(A), ASKER, at(8));
        ledger.record_frame(8, &reply(A), ASKER, at(9));
        ledger.asked(8, 2, at(500));
        assert_eq!(ledger.pop_settled(at(1006)), None);
        assert_eq!(ledger.pop_settled(at(1007)).unwrap().0, 7);
        assert_eq!(ledger.pop_settled(at(1499)), None);
        assert_eq!(ledger.pop_settled(at(1500)).unwrap().0, 8);
        assert_eq!(ledger.pop_settled(at(9999)), None);
        assert!(ledger.asked.is_empty() && ledger.deadlines.is_empty());
        assert!(ledger.sightings.is_empty());
    }

    #[test]
    fn a_swarm_is_counted_not_kept() {
        let mut ledger = ResponseTable::new(1, Duration::ZERO);
        ledger.asked(0, 1, at(0));
        for number in 0..=255 {
            ledger.record_frame(0, &reply(MacAddr([2, 0, 0, 0, 1, number])), ASKER, at(1));
        }
        let sighting = ledger.take(0).unwrap();
        assert_eq!(sighting.responders.len(), MAX_RESPONDERS);
        assert_eq!(sighting.more, 256 - 64);
    }
}
