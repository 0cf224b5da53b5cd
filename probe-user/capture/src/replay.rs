//! Replays the frames of a capture through the event filter of the BPF programs: matches replies with requests and adds
//! previous claims. No frame is suppressed.

use std::num::NonZeroUsize;

use lru::LruCache;
use probe_common::{
    counter::Direction,
    event::{ArpEvent, ClaimObservation, Hook},
    event_filter::{AddressKey, ClaimState, FilterSettings, RequestState, is_resolution_request},
    wire::{ArpFrame, FrameKind},
};

/// The maximum number of addresses with state: more than in the kernel, because user-space memory is cheaper.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::MIN.saturating_add((1 << 18) - 1);

/// The state of the event filter for all addresses.
pub struct KernelReplay {
    settings: FilterSettings,
    claims: LruCache<AddressKey, ClaimState>,
    requests: LruCache<AddressKey, RequestState>,
}

impl Default for KernelReplay {
    fn default() -> Self {
        Self {
            settings: FilterSettings {
                refresh_ns: 0,
                ..FilterSettings::default()
            },
            claims: LruCache::new(MAX_ADDRESSES),
            requests: LruCache::new(MAX_ADDRESSES),
        }
    }
}

impl KernelReplay {
    /// The event that the BPF programs would have emitted for a frame.
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
            FrameKind::Bogus => {}
            FrameKind::Probe => self.record_request(frame, ktime_ns, ifindex),
            FrameKind::Claim => {
                if is_resolution_request(frame) {
                    self.record_request(frame, ktime_ns, ifindex);
                }
                self.record_claim(&mut event);
            }
        }
        event
    }

    fn record_request(&mut self, frame: &ArpFrame, ktime_ns: u64, ifindex: u32) {
        let key = key(frame, frame.tpa, ifindex);
        match self.requests.get_mut(&key) {
            Some(state) => state.record(frame, ktime_ns),
            None => drop(self.requests.put(key, RequestState::new(frame, ktime_ns))),
        }
    }

    fn record_claim(&mut self, event: &mut ArpEvent) {
        let (frame, now) = (event.frame, event.ktime_ns);
        let key = key(&frame, frame.spa, event.ifindex);
        let request = self.requests.get(&key);
        let matched = request.and_then(|request| request.match_reply(&frame, now));
        let (request_ns, replies_to_probe) = matched.unwrap_or((0, false));
        event.request_ns = request_ns;
        let direction = event.hook().map_or(Direction::Ingress, Hook::direction);
        let claim = ClaimObservation::from_frame(&frame, direction, now, request_ns);
        if let Some(state) = self.claims.get_mut(&key) {
            event.previous = state.previous(&claim);
            state.filter(claim, replies_to_probe, &self.settings);
            state.record_emitted(claim);
        } else {
            let state = ClaimState::new(claim, RequestState::default());
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
    const CLIENT_ADDRESS: [u8; 4] = [192, 0, 2, 1];
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
            tpa: CLIENT_ADDRESS,
            ..ArpFrame::default()
        }
    }

    #[test]
    fn two_replies_to_one_request_have_its_time() {
        let mut replay = KernelReplay::default();
        let mut observe = |frame: &ArpFrame, at| replay.event(frame, at, 1, Hook::TcIngress);
        observe(&request(CLIENT_ADDRESS), 5_000 * MS);
        let first = observe(&reply(A), 5_001 * MS);
        let second = observe(&reply(B), 5_002 * MS);
        assert_eq!(first.request_ns, 5_000 * MS);
        assert!(!first.previous.is_some());
        assert_eq!(second.request_ns, 5_000 * MS);
        assert_eq!(second.previous, first.claim_observation());
    }

    #[test]
    fn a_reply_matches_an_arp_probe_as_well() {
        let mut replay = KernelReplay::default();
        replay.event(&request([0; 4]), 5_000 * MS, 1, Hook::TcIngress);
        let reply_to_probe = ArpFrame {
            tpa: [0; 4],
            ..reply(A)
        };
        let event = replay.event(&reply_to_probe, 5_001 * MS, 1, Hook::TcIngress);
        assert_eq!(event.request_ns, 5_000 * MS);
    }

    #[test]
    fn late_replies_and_replies_to_other_hosts_match_no_request() {
        let mut replay = KernelReplay::default();
        let mut observe = |frame: &ArpFrame, at| replay.event(frame, at, 1, Hook::TcIngress);
        observe(&request(CLIENT_ADDRESS), 5_000 * MS);
        let to_another = ArpFrame { tha: B, ..reply(A) };
        assert_eq!(observe(&to_another, 5_001 * MS).request_ns, 0);
        assert_eq!(observe(&reply(A), 6_001 * MS).request_ns, 0);
    }

    #[test]
    fn the_state_of_an_address_is_per_interface_and_vlan() {
        let mut replay = KernelReplay::default();
        replay.event(&request(CLIENT_ADDRESS), 5_000 * MS, 1, Hook::TcIngress);
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
    fn every_claim_is_an_event() {
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
