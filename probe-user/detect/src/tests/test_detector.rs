//! A detector on a network of one address, with times in microseconds.

use std::net::{IpAddr, Ipv4Addr};

use probe_common::{
    counter::Direction,
    wire::{BogusFrameReason, MacAddr, Vlan},
};
use probe_model::{BindingKey, BogusReason, Finding, FindingKind, Segment, Timestamp};

use crate::{
    BogusFrame, Claim, ClaimFlags, DetectConfig, Detector, HostFacts, Observation, ObservationBody,
    ObservedProbe, PreviousClaim, ProbeReply, ProbeRequest, RequestId,
};

/// Microseconds in a millisecond.
pub const MS: u64 = 1_000;
/// Microseconds in a second.
pub const S: u64 = 1_000_000;

pub const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
pub const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
pub const C: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);
/// A MAC of this host.
pub const HOST: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
/// Another MAC of this host.
pub const HOST_TOO: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
/// A client that sends requests.
pub const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);
/// Virtual-router MACs.
pub const V: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 51]);
pub const V2: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 52]);

/// A point in time, counted from an arbitrary beginning.
pub fn time(micros: u64) -> Timestamp {
    Timestamp((1_000 * S + micros) * 1_000)
}

pub fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

pub const SEGMENT: Segment = Segment {
    interface: 2,
    vlan: Vlan::UNTAGGED,
};

/// The address that most tests are about.
pub fn key() -> BindingKey {
    BindingKey {
        segment: SEGMENT,
        ip: ip(80),
    }
}

fn claim(mac: MacAddr, form: ClaimFlags) -> Claim {
    Claim {
        ip: key().ip,
        mac,
        eth_src: mac,
        form,
        reply: None,
        previous: None,
        rate_limited: false,
    }
}

/// A gratuitous request, broadcast.
pub fn announce(mac: MacAddr) -> Claim {
    claim(
        mac,
        ClaimFlags {
            announcement: true,
            ..ClaimFlags::default()
        },
    )
}

/// A gratuitous reply, broadcast.
pub fn announce_by_reply(mac: MacAddr) -> Claim {
    claim(
        mac,
        ClaimFlags {
            announcement: true,
            reply: true,
            unicast: false,
        },
    )
}

/// A unicast reply with spa = tpa.
pub fn unicast_announcement(mac: MacAddr) -> Claim {
    claim(
        mac,
        ClaimFlags {
            announcement: true,
            reply: true,
            unicast: true,
        },
    )
}

/// The claim in a request for another address.
pub fn request_by(mac: MacAddr) -> Claim {
    claim(mac, ClaimFlags::default())
}

/// A reply to a request of `requester` at `requested_at`.
pub fn reply_to(requester: MacAddr, mac: MacAddr, requested_at: u64) -> Claim {
    Claim {
        reply: Some(ProbeReply {
            requester,
            to_probe: false,
            request: Some(RequestId(time(requested_at))),
        }),
        ..claim(
            mac,
            ClaimFlags {
                reply: true,
                unicast: true,
                announcement: false,
            },
        )
    }
}

/// A reply to a request of the client at `requested_at`.
pub fn reply_by(mac: MacAddr, requested_at: u64) -> Claim {
    reply_to(CLIENT, mac, requested_at)
}

/// A reply to an ARP probe that `requester` sent at `requested_at`.
pub fn reply_to_probe(requester: MacAddr, mac: MacAddr, requested_at: u64) -> Claim {
    let mut claim = reply_to(requester, mac, requested_at);
    if let Some(reply) = &mut claim.reply {
        reply.to_probe = true;
    }
    claim
}

/// `claim`, carrying `previous` as the claim before it, seen at `at`.
pub fn after(previous: Claim, at: u64, claim: Claim) -> Claim {
    Claim {
        previous: Some(PreviousClaim {
            at: time(at),
            mac: previous.mac,
            form: previous.form,
            direction: Direction::Ingress,
            request: previous.reply.and_then(|reply| reply.request),
        }),
        ..claim
    }
}

/// A detector and its findings.
pub struct TestDetector {
    pub inner: Detector,
    pub findings: Vec<Finding>,
}

impl TestDetector {
    pub fn new() -> Self {
        Self::with(DetectConfig::default())
    }

    pub fn with(config: DetectConfig) -> Self {
        Self {
            inner: Detector::new(config),
            findings: Vec::new(),
        }
    }

    /// With active probing.
    pub fn with_probing() -> Self {
        Self::with(DetectConfig {
            can_probe: true,
            ..DetectConfig::default()
        })
    }

    /// This host has the MACs [`HOST`] and [`HOST_TOO`], and the address if `has_address`.
    pub fn host(&mut self, at: u64, has_address: bool) {
        self.learn(
            at,
            HostFacts {
                macs: [HOST, HOST_TOO].into(),
                addresses: has_address.then_some((key(), HOST)).into_iter().collect(),
                ..HostFacts::default()
            },
        );
    }

    pub fn learn(&mut self, at: u64, facts: HostFacts) {
        self.inner.learn(facts, time(at), &mut self.findings);
    }

    /// Replaces the configuration.
    pub fn reconfigure(&mut self, at: u64, config: DetectConfig) {
        self.inner.reconfigure(config, time(at), &mut self.findings);
    }

    pub fn observe(
        &mut self,
        at: u64,
        direction: Direction,
        segment: Segment,
        body: ObservationBody,
    ) {
        let observation = Observation {
            at: time(at),
            segment,
            direction,
            body,
        };
        self.inner.observe(&observation, &mut self.findings);
    }

    /// This host receives a claim.
    pub fn receive(&mut self, at: u64, claim: Claim) {
        self.observe(
            at,
            Direction::Ingress,
            SEGMENT,
            ObservationBody::Claim(claim),
        );
    }

    /// This host sends a claim.
    pub fn send(&mut self, at: u64, claim: Claim) {
        self.observe(
            at,
            Direction::Egress,
            SEGMENT,
            ObservationBody::Claim(claim),
        );
    }

    /// This host receives an ARP probe for the address.
    pub fn probe(&mut self, at: u64, prober: MacAddr, unicast: bool) {
        let probe = ObservedProbe {
            target: key().ip,
            prober,
            unicast,
            has_sender_ip: false,
        };
        self.observe(
            at,
            Direction::Ingress,
            SEGMENT,
            ObservationBody::Probe(probe),
        );
    }

    /// This host receives a bogus frame.
    pub fn bogus(&mut self, at: u64, eth_src: MacAddr, reason: BogusFrameReason) {
        let frame = BogusFrame {
            ip: key().ip,
            mac: MacAddr::ZERO,
            eth_src,
            reason: BogusReason::Frame(reason),
        };
        self.observe(
            at,
            Direction::Ingress,
            SEGMENT,
            ObservationBody::Bogus(frame),
        );
    }

    /// No frame arrives until `at`.
    pub fn wait(&mut self, at: u64) {
        self.inner.tick(time(at), &mut self.findings);
    }

    /// Hosts reply to a probe request, or none.
    pub fn record_replies(&mut self, at: u64, probe_request: &ProbeRequest, by: &[MacAddr]) {
        self.inner
            .record_replies(probe_request, time(at), by, &mut self.findings);
    }

    /// The kinds of the findings since the last call, without `new_binding`.
    pub fn kinds(&mut self) -> Vec<FindingKind> {
        let kinds = self.take().into_iter().map(|finding| finding.kind);
        kinds
            .filter(|&kind| kind != FindingKind::NewBinding)
            .collect()
    }

    /// The findings since the last call.
    pub fn take(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// The one finding since the last call that is not `new_binding`.
    pub fn only(&mut self) -> Finding {
        let mut findings = self.take();
        findings.retain(|finding| finding.kind != FindingKind::NewBinding);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }
}

/// The MACs of a finding's owners, in its order.
pub fn macs(finding: &Finding) -> Vec<MacAddr> {
    finding
        .owners
        .iter()
        .flat_map(|owner| owner.macs.clone())
        .collect()
}
