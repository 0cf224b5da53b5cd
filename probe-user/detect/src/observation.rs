//! The input of detection: one frame.

use std::net::{IpAddr, Ipv4Addr};

use probe_common::{
    counter::Direction,
    event::{ArpEvent, ClaimObservation, claim_flags},
    wire::{FrameKind, MacAddr},
};
use probe_model::{BogusReason, Segment, Timestamp};

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When it was seen.
    pub at: Timestamp,
    /// The segment where it was observed.
    pub segment: Segment,
    /// Whether this host received or sent it.
    pub direction: Direction,
    /// Its content.
    pub body: ObservationBody,
}

/// The content of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservationBody {
    /// "`ip` is at `mac`": spa ≠ 0.0.0.0, request and reply alike.
    Claim(Claim),
    /// An RFC 5227 ARP probe: a request that claims no address.
    Probe(ObservedProbe),
    /// A frame without a valid claim.
    Bogus(BogusFrame),
}

/// "`ip` is at `mac`".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// spa.
    pub ip: IpAddr,
    /// sha.
    pub mac: MacAddr,
    /// The Ethernet source.
    pub eth_src: MacAddr,
    /// Its operation, kind and destination.
    pub form: ClaimFlags,
    /// The request that it replies to, if it is a reply and no announcement.
    pub reply: Option<ProbeReply>,
    /// The claim on the same address before this one, whether or not it was an observation itself.
    pub previous: Option<PreviousClaim>,
    /// Claims on this address since the last event were not emitted because of the kernel's rate limit.
    pub rate_limited: bool,
}

/// The operation, kind and destination of a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimFlags {
    /// A reply; otherwise a request.
    pub reply: bool,
    /// spa = tpa (gratuitous ARP).
    pub announcement: bool,
    /// Sent to one host.
    pub unicast: bool,
}

/// The request that a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReply {
    /// tha: the requester.
    pub requester: MacAddr,
    /// tpa is 0.0.0.0: the request was an ARP probe.
    pub to_probe: bool,
    /// The request, if it was observed.
    pub request: Option<RequestId>,
}

/// A request, identified by the time of its observation: two replies with one `RequestId` belong to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub Timestamp);

/// The claim before a claim. The kernel side may have suppressed it, so it is evidence of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousClaim {
    /// When it was seen.
    pub at: Timestamp,
    /// sha.
    pub mac: MacAddr,
    /// Its operation, kind and destination.
    pub form: ClaimFlags,
    /// Whether this host received or sent it.
    pub direction: Direction,
    /// The request that it replied to, if observed.
    pub request: Option<RequestId>,
}

/// An RFC 5227 ARP probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedProbe {
    /// tpa: the probed address.
    pub target: IpAddr,
    /// sha: the probing host.
    pub prober: MacAddr,
    /// Sent to one host, as switches that track devices do; a booting host's probe is a broadcast.
    pub unicast: bool,
    /// With the mark of this program's probes (tha = sha): sent by an agent, not by a booting host.
    pub has_sender_ip: bool,
}

/// A frame without a valid claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BogusFrame {
    /// spa.
    pub ip: IpAddr,
    /// sha.
    pub mac: MacAddr,
    /// The Ethernet source: the only reliable sender address here.
    pub eth_src: MacAddr,
    /// The reason why the claim is invalid.
    pub reason: BogusReason,
}

/// Why an event cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The kernel side is of another version.
    #[error("event of unknown kind {0}: the kernel programs are of another version")]
    UnknownKind(u8),
    /// The kernel side is of another version.
    #[error("event of unknown hook {0}: the kernel programs are of another version")]
    UnknownHook(u8),
    /// The frame is of another kind than the event declares.
    #[error("event of kind {declared} carries a frame that is a {derived}")]
    Contradiction {
        /// The kind that the event declares.
        declared: FrameKind,
        /// The kind of its frame.
        derived: FrameKind,
    },
}

impl TryFrom<&ArpEvent> for Observation {
    type Error = EventError;

    fn try_from(event: &ArpEvent) -> Result<Self, EventError> {
        let frame = &event.frame;
        let declared = event.kind().ok_or(EventError::UnknownKind(event.kind))?;
        let hook = event.hook().ok_or(EventError::UnknownHook(event.hook))?;
        if declared != frame.kind() {
            let derived = frame.kind();
            return Err(EventError::Contradiction { declared, derived });
        }
        let body = match frame.bogus() {
            Some(reason) => ObservationBody::Bogus(BogusFrame {
                ip: ip(frame.spa),
                mac: frame.sha,
                eth_src: frame.eth_src,
                reason: BogusReason::Frame(reason),
            }),
            None if declared == FrameKind::Probe => ObservationBody::Probe(ObservedProbe {
                target: ip(frame.tpa),
                prober: frame.sha,
                unicast: frame.is_unicast(),
                has_sender_ip: frame.tha == frame.sha,
            }),
            None => ObservationBody::Claim(claim(event)),
        };
        Ok(Self {
            at: Timestamp(event.ktime_ns),
            segment: Segment {
                interface: event.ifindex,
                vlan: frame.vlan(),
            },
            direction: hook.direction(),
            body,
        })
    }
}

fn claim(event: &ArpEvent) -> Claim {
    let frame = &event.frame;
    let form = ClaimFlags::of(&event.claim_observation());
    Claim {
        ip: ip(frame.spa),
        mac: frame.sha,
        eth_src: frame.eth_src,
        form,
        reply: (form.reply && !form.announcement).then(|| ProbeReply {
            requester: frame.tha,
            to_probe: frame.tpa == [0; 4],
            request: request(event.request_ns),
        }),
        previous: event
            .previous
            .is_some()
            .then(|| PreviousClaim::from(&event.previous)),
        rate_limited: event.previous.has_flags(claim_flags::RATE_LIMITED),
    }
}

impl ClaimFlags {
    /// Whether it is a gratuitous ARP frame that was sent to all hosts.
    pub const fn is_broadcast_announcement(self) -> bool {
        self.announcement && !self.unicast
    }

    fn of(claim: &ClaimObservation) -> Self {
        Self {
            reply: claim.has_flags(claim_flags::REPLY),
            announcement: claim.has_flags(claim_flags::ANNOUNCEMENT),
            unicast: claim.has_flags(claim_flags::UNICAST),
        }
    }
}

impl From<&ClaimObservation> for PreviousClaim {
    fn from(claim: &ClaimObservation) -> Self {
        Self {
            at: Timestamp(claim.ktime_ns),
            mac: claim.mac,
            form: ClaimFlags::of(claim),
            direction: if claim.has_flags(claim_flags::EGRESS) {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            request: request(claim.request_ns),
        }
    }
}

fn request(request_ns: u64) -> Option<RequestId> {
    (request_ns != 0).then_some(RequestId(Timestamp(request_ns)))
}

fn ip(bytes: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(bytes))
}
