//! What detection is told of one frame.

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
    /// Where it was seen.
    pub segment: Segment,
    /// Whether this host received or sent it.
    pub direction: Direction,
    /// What it does.
    pub body: ObservationBody,
}

/// What a frame does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservationBody {
    /// "`ip` is at `mac`": spa ≠ 0.0.0.0, request and reply alike.
    Claim(Claim),
    /// RFC 5227 ARP probe: asks for an address and claims none.
    Probe(ObservedProbe),
    /// No valid claim.
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
    /// What it looked like.
    pub form: ClaimFlags,
    /// To whom it answers, if it is a reply and no announcement.
    pub reply: Option<ProbeReply>,
    /// The claim on the same address before this one, whether or not it was an observation itself.
    pub previous: Option<PreviousClaim>,
    /// Claims on this address since the last event were not emitted because of the kernel's rate limit.
    pub rate_limited: bool,
}

/// What a claim looked like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimFlags {
    /// A reply; otherwise a request.
    pub reply: bool,
    /// spa = tpa (gratuitous ARP).
    pub announcement: bool,
    /// Sent to one station.
    pub unicast: bool,
}

/// Whom a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReply {
    /// tha: who asked.
    pub asker: MacAddr,
    /// tpa is 0.0.0.0: the question was an ARP probe.
    pub to_probe: bool,
    /// The question, if it was seen.
    pub request: Option<RequestId>,
}

/// A request, known by the time at which it was seen: two replies with one `RequestId` answer one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub Timestamp);

/// The claim before a claim. It may have been held back by the kernel's economy, so it is evidence of
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousClaim {
    /// When it was seen.
    pub at: Timestamp,
    /// sha.
    pub mac: MacAddr,
    /// What it looked like.
    pub form: ClaimFlags,
    /// Whether this host received or sent it.
    pub direction: Direction,
    /// The request that it answered, if that was seen.
    pub request: Option<RequestId>,
}

/// RFC 5227 ARP probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedProbe {
    /// tpa: the address asked for.
    pub target: IpAddr,
    /// sha: who asks.
    pub prober: MacAddr,
    /// Sent to one station, as switches that track devices do; a newcomer's probe is a broadcast.
    pub unicast: bool,
    /// With the mark of this program's questions (tha = sha): a monitor asks, no newcomer.
    pub has_sender_ip: bool,
}

/// A frame that makes no valid claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BogusFrame {
    /// spa.
    pub ip: IpAddr,
    /// sha.
    pub mac: MacAddr,
    /// The Ethernet source: the one sender address that means something here.
    pub eth_src: MacAddr,
    /// Why.
    pub reason: BogusReason,
}

/// Why an event says nothing that can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The kernel side is of another version.
    #[error("event of unknown kind {0}: the kernel programs are of another version")]
    UnknownKind(u8),
    /// The kernel side is of another version.
    #[error("event of unknown hook {0}: the kernel programs are of another version")]
    UnknownHook(u8),
    /// The frame is not of the kind that the event says.
    #[error("event of kind {declared} carries a frame that is a {derived}")]
    Contradiction {
        /// What the event says.
        declared: FrameKind,
        /// What its frame says.
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
            asker: frame.tha,
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
