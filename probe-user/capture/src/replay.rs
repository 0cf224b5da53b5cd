//! What the kernel side would have said of the frames of a capture: the request that a reply answers and
//! the claim before a claim, by the kernel's own rules, with nothing held back.

use std::num::NonZeroUsize;

use lru::LruCache;
use probe_common::{
    counter::Direction,
    event::{ArpEvent, Hook, Sighting},
    event_filter::{AddressKey, AskedState, ClaimState, Settings, is_question},
    wire::{ArpFrame, Kind},
};

/// Addresses remembered. Far more than the kernel side has room for: here memory is not the kernel's.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::MIN.saturating_add((1 << 18) - 1);

/// The memory of the kernel side.
pub struct KernelReplay {
    settings: Settings,
    claims: LruCache<AddressKey, ClaimState>,
    asked: LruCache<AddressKey, AskedState>,
}

impl Default for KernelReplay {
    fn default() -> Self {
        Self {
            settings: Settings {
                refresh_ns: 0,
                ..Settings::default()
            },
            claims: LruCache::new(MAX_ADDRESSES),
            asked: LruCache::new(MAX_ADDRESSES),
        }
    }
}

impl KernelReplay {
    /// The event that the kernel side would have sent for a frame.
    pub fn event(&mut self, frame: &ArpFrame, ktime_ns: u64, ifindex: u32, hook: Hook) -> ArpEvent {
        let kind = frame.kind();
        let mut event = ArpEvent {
            ktime_ns,
            ifindex,
            kind: kind.number(),
            hook: hook.number(),
            frame: *frame,
            ..ArpEvent::default()
        };
        match kind {
            Kind::Bogus => {}
            Kind::Probe => self.ask(frame, ktime_ns, ifindex),
            Kind::Claim => {
                if is_question(frame) {
                    self.ask(frame, ktime_ns, ifindex);
                }
                self.apply_claim_rules(&mut event);
            }
        }
        event
    }

    fn ask(&mut self, frame: &ArpFrame, ktime_ns: u64, ifindex: u32) {
        let key = key(frame, frame.tpa, ifindex);
        match self.asked.get_mut(&key) {
            Some(asked) => asked.ask(frame, ktime_ns),
            None => drop(self.asked.put(key, AskedState::new(frame, ktime_ns))),
        }
    }

    fn apply_claim_rules(&mut self, event: &mut ArpEvent) {
        let (frame, now) = (event.frame, event.ktime_ns);
        let key = key(&frame, frame.spa, event.ifindex);
        let asked = self.asked.get(&key);
        let answered = asked.and_then(|asked| asked.answered_by(&frame, now));
        let (request_ns, answers_probe) = answered.unwrap_or((0, false));
        event.request_ns = request_ns;
        let direction = event.hook().map_or(Direction::Ingress, Hook::direction);
        let sighting = Sighting::of(&frame, direction, now, request_ns);
        if let Some(state) = self.claims.get_mut(&key) {
            event.previous = state.previous(&sighting);
            state.judge(sighting, answers_probe, &self.settings);
            state.emitted(sighting);
        } else {
            let state = ClaimState::new(sighting, AskedState::default());
            self.claims.put(key, state);
        }
    }
}

fn key(frame: &ArpFrame, address: [u8; 4], ifindex: u32) -> AddressKey {
    AddressKey {
        ifindex,
        vlan: frame.vlan(),
        address,
    }
}

#[cfg(test)]
mod tests {
    use probe_common::wire::{MacAddr, VlanTag, ethertype};

    use super::*;

    const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const ADDRESS: [u8; 4] = [192, 0, 2, 10];
    const HERE: [u8; 4] = [192, 0, 2, 1];
    const MS: u64 = 1_000_000;

    fn request(spa: [u8; 4]) -> ArpFrame {
        ArpFrame {
            eth_dst: MacAddr::BROADCAST,
            eth_src: CLIENT,
            oper: 1,
            sha: CLIENT,
            spa,
            tpa: ADDRESS,
            ..ArpFrame::default()
        }
    }

    fn reply(sha: MacAddr) -> ArpFrame {
        ArpFrame {
            eth_dst: CLIENT,
            eth_src: sha,
            oper: 2,
            sha,
            spa: ADDRESS,
            tha: CLIENT,
            tpa: HERE,
            ..ArpFrame::default()
        }
    }

    #[test]
    fn two_replies_to_one_request_say_so() {
        let mut replay = KernelReplay::default();
        let mut see = |frame: &ArpFrame, at| replay.event(frame, at, 1, Hook::TcIngress);
        see(&request(HERE), 5_000 * MS);
        let first = see(&reply(A), 5_001 * MS);
        let second = see(&reply(B), 5_002 * MS);
        assert_eq!(first.request_ns, 5_000 * MS);
        assert!(!first.previous.is_some());
        assert_eq!(second.request_ns, 5_000 * MS);
        assert_eq!(second.previous, first.sighting());
    }

    #[test]
    fn a_probe_is_a_question_too() {
        let mut replay = KernelReplay::default();
        replay.event(&request([0; 4]), 5_000 * MS, 1, Hook::TcIngress);
        let answer = ArpFrame {
            tpa: [0; 4],
            ..reply(A)
        };
        let event = replay.event(&answer, 5_001 * MS, 1, Hook::TcIngress);
        assert_eq!(event.request_ns, 5_000 * MS);
    }

    #[test]
    fn late_answers_and_answers_to_others_are_tied_to_nothing() {
        let mut replay = KernelReplay::default();
        let mut see = |frame: &ArpFrame, at| replay.event(frame, at, 1, Hook::TcIngress);
        see(&request(HERE), 5_000 * MS);
        let to_another = ArpFrame { tha: B, ..reply(A) };
        assert_eq!(see(&to_another, 5_001 * MS).request_ns, 0);
        assert_eq!(see(&reply(A), 6_001 * MS).request_ns, 0);
    }

    #[test]
    fn interfaces_and_vlans_know_nothing_of_each_other() {
        let mut replay = KernelReplay::default();
        replay.event(&request(HERE), 5_000 * MS, 1, Hook::TcIngress);
        let elsewhere = replay.event(&reply(A), 5_001 * MS, 2, Hook::TcIngress);
        let tagged = ArpFrame {
            tags: [VlanTag::new(ethertype::VLAN, 100), VlanTag::NONE],
            ..reply(B)
        };
        let tagged = replay.event(&tagged, 5_002 * MS, 1, Hook::TcIngress);
        for event in [elsewhere, tagged] {
            assert_eq!((event.request_ns, event.previous.is_some()), (0, false));
        }
    }

    #[test]
    fn nothing_is_held_back() {
        let mut replay = KernelReplay::default();
        for tick in 1..1_000 {
            let event = replay.event(&reply(A), tick * MS, 1, Hook::TcEgress);
            assert_eq!(
                event.previous.ktime_ns,
                (tick - 1) * MS,
                "the claim right before"
            );
        }
    }
}
