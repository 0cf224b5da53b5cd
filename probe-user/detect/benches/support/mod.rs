//! A network of many addresses for the benchmarks.

use std::{net::IpAddr, time::Duration};

use probe_common::{
    counter::Direction,
    wire::{MacAddr, Vlan},
};
use probe_detect::{
    Claim, ClaimFlags, DetectConfig, Detector, Observation, ObservationBody, ProbeReply, RequestId,
};
use probe_model::{Finding, Segment, Timestamp};

/// The requester.
const CLIENT: MacAddr = MacAddr([2, 0xc, 0, 0, 0, 1]);

/// A detector with room for `bindings`, all used, each with an owner of its own.
pub fn detector(bindings: u32) -> Detector {
    let mut detector = Detector::new(DetectConfig {
        max_bindings: bindings as usize,
        ..DetectConfig::default()
    });
    let mut findings = Vec::new();
    for number in 0..bindings {
        observe(
            &mut detector,
            announcement(at(number), number, 0),
            &mut findings,
        );
        findings.clear();
    }
    detector
}

/// One observation, and what follows from it.
pub fn observe(detector: &mut Detector, observation: Observation, findings: &mut Vec<Finding>) {
    detector.observe(std::hint::black_box(&observation), findings);
}

/// A microsecond for each number.
pub fn at(number: u32) -> Timestamp {
    Timestamp(1_000_000_000_000) + Duration::from_micros(u64::from(number))
}

/// An owner of address `number` announces it; `owner` distinguishes the owners of one address.
pub fn announcement(at: Timestamp, number: u32, owner: u8) -> Observation {
    let form = ClaimFlags {
        announcement: true,
        ..ClaimFlags::default()
    };
    claim(at, number, owner, form, None)
}

/// An owner of address `number` replies to a request of the client at `requested_at`.
pub fn reply_by(at: Timestamp, number: u32, owner: u8, requested_at: Timestamp) -> Observation {
    let form = ClaimFlags {
        reply: true,
        unicast: true,
        announcement: false,
    };
    let reply = ProbeReply {
        requester: CLIENT,
        to_probe: false,
        request: Some(RequestId(requested_at)),
    };
    claim(at, number, owner, form, Some(reply))
}

fn claim(
    at: Timestamp,
    number: u32,
    owner: u8,
    form: ClaimFlags,
    reply: Option<ProbeReply>,
) -> Observation {
    let [a, b, c, d] = number.to_be_bytes();
    let mac = MacAddr([2, owner, a, b, c, d]);
    Observation {
        at,
        segment: Segment {
            interface: 2,
            vlan: Vlan::UNTAGGED,
        },
        direction: Direction::Ingress,
        body: ObservationBody::Claim(Claim {
            ip: IpAddr::from([10 + a, b, c, d]),
            mac,
            eth_src: mac,
            form,
            reply,
            previous: None,
            rate_limited: false,
        }),
    }
}
