//! From an event of the kernel side to an observation.

use probe_common::{
    counter::Direction,
    event::{ArpEvent, ClaimObservation, Hook},
    wire::{ArpFrame, BogusFrameReason, FrameKind, MacAddr, VlanTag},
};
use probe_model::{BogusReason, Timestamp};

use super::test_detector::{A, B, CLIENT};
use crate::{EventError, Observation, ObservationBody, ProbeReply, RequestId};

fn reply() -> ArpEvent {
    ArpEvent {
        ktime_ns: 50,
        request_ns: 40,
        ifindex: 7,
        kind: FrameKind::Claim.number(),
        hook: Hook::TcIngress.number(),
        frame: ArpFrame {
            eth_dst: CLIENT,
            eth_src: A,
            tags: [VlanTag::new(0x8100, 100), VlanTag::NONE],
            oper: ArpFrame::REPLY,
            sha: A,
            spa: [192, 0, 2, 80],
            tha: CLIENT,
            tpa: [192, 0, 2, 1],
        },
        ..ArpEvent::default()
    }
}

#[test]
fn a_reply_contains_its_claimant_and_its_requester() {
    let mut event = reply();
    event.previous = ClaimObservation {
        ktime_ns: 45,
        request_ns: 40,
        mac: B,
        flags: probe_common::event::claim_flags::REPLY | probe_common::event::claim_flags::EGRESS,
        padding: 0,
    };
    let observation = Observation::try_from(&event).unwrap();
    assert_eq!(
        (observation.at, observation.segment.interface),
        (Timestamp(50), 7)
    );
    assert_eq!(observation.segment.vlan.to_string(), "100");
    assert_eq!(observation.direction, Direction::Ingress);
    let ObservationBody::Claim(claim) = observation.body else {
        panic!("a claim");
    };
    assert_eq!(
        (claim.mac, claim.ip.to_string().as_str()),
        (A, "192.0.2.80")
    );
    assert!(claim.form.reply && claim.form.unicast && !claim.form.announcement);
    let request = Some(RequestId(Timestamp(40)));
    let reply = ProbeReply {
        requester: CLIENT,
        to_probe: false,
        request,
    };
    assert_eq!(claim.reply, Some(reply));
    let previous = claim.previous.unwrap();
    assert_eq!(
        (previous.mac, previous.at, previous.request),
        (B, Timestamp(45), request)
    );
    assert_eq!(previous.direction, Direction::Egress);
}

#[test]
fn an_announcement_has_no_requester_even_as_a_reply() {
    let mut event = reply();
    event.frame.tpa = event.frame.spa;
    let observation = Observation::try_from(&event).unwrap();
    let ObservationBody::Claim(claim) = observation.body else {
        panic!("a claim");
    };
    assert!(claim.form.announcement);
    assert_eq!((claim.reply, claim.previous), (None, None));
}

#[test]
fn an_arp_probe_has_a_target_and_a_prober() {
    let mut event = reply();
    event.kind = FrameKind::Probe.number();
    event.hook = Hook::TcEgress.number();
    event.frame.oper = ArpFrame::REQUEST;
    event.frame.spa = [0; 4];
    event.frame.eth_dst = MacAddr::BROADCAST;
    let observation = Observation::try_from(&event).unwrap();
    assert_eq!(observation.direction, Direction::Egress);
    let ObservationBody::Probe(probe) = observation.body else {
        panic!("a probe");
    };
    assert_eq!(
        (
            probe.prober,
            probe.target.to_string().as_str(),
            probe.unicast
        ),
        (A, "192.0.2.1", false)
    );
}

#[test]
fn a_bogus_frame_keeps_its_reason() {
    let mut event = reply();
    event.kind = FrameKind::Bogus.number();
    event.frame.sha = MacAddr::ZERO;
    let observation = Observation::try_from(&event).unwrap();
    let ObservationBody::Bogus(frame) = observation.body else {
        panic!("bogus");
    };
    assert_eq!(
        (frame.reason, frame.eth_src),
        (BogusReason::Frame(BogusFrameReason::ShaZero), A)
    );
}

#[test]
fn an_event_that_makes_no_sense_is_an_error() {
    let unknown_kind = ArpEvent { kind: 9, ..reply() };
    let unknown_hook = ArpEvent { hook: 9, ..reply() };
    let contradiction = ArpEvent {
        kind: FrameKind::Probe.number(),
        ..reply()
    };
    for (event, error) in [
        (unknown_kind, EventError::UnknownKind(9)),
        (unknown_hook, EventError::UnknownHook(9)),
        (
            contradiction,
            EventError::Contradiction {
                declared: FrameKind::Probe,
                derived: FrameKind::Claim,
            },
        ),
    ] {
        assert_eq!(Observation::try_from(&event), Err(error));
    }
}
