//! An observed claim, with what it means for this host.

use probe_common::wire::MacAddr;
use probe_model::Timestamp;

use crate::{Claim, ClaimFlags, ProbeReply, RequestId, environment::DetectorEnvironment};

/// A claim, observed on the segment or sent by this host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObservedClaim {
    /// When it was seen.
    pub at: Timestamp,
    /// sha.
    pub mac: MacAddr,
    /// Its operation, kind and destination.
    pub form: ClaimFlags,
    /// The request that it replies to in time.
    pub request: Option<RequestId>,
    /// The sender of that request, if known.
    pub requester: Option<MacAddr>,
    /// It replies to an ARP probe of any host.
    pub to_probe: bool,
    /// It replies to an ARP probe of this host.
    pub solicited: bool,
}

impl ObservedClaim {
    /// The claim of a frame.
    pub fn new_claim(claim: &Claim, at: Timestamp, environment: &DetectorEnvironment) -> Self {
        let request = claim.reply.and_then(|reply| reply.request);
        Self::new(at, claim.mac, claim.form, request, claim.reply, environment)
    }

    /// The claim that an observed one carries.
    pub fn carried_by(
        claim: &Claim,
        at: Timestamp,
        environment: &DetectorEnvironment,
    ) -> Option<Self> {
        let carried = claim.previous.filter(|carried| carried.at <= at)?;
        // The requester is known only if both claims reply to one request.
        let reply = carried.request.and_then(|request| {
            let same = |reply: &ProbeReply| reply.request == Some(request);
            claim.reply.filter(same)
        });
        let (mac, form, request) = (carried.mac, carried.form, carried.request);
        Some(Self::new(
            carried.at,
            mac,
            form,
            request,
            reply,
            environment,
        ))
    }

    fn new(
        at: Timestamp,
        mac: MacAddr,
        form: ClaimFlags,
        request: Option<RequestId>,
        reply: Option<ProbeReply>,
        environment: &DetectorEnvironment,
    ) -> Self {
        let window = environment.rules.config.reply_window;
        let in_time = |request: &RequestId| at.since(request.0) <= window;
        let is_solicited =
            |reply: ProbeReply| reply.to_probe && environment.facts.is_local(reply.requester);
        Self {
            at,
            mac,
            form,
            request: request.filter(in_time),
            requester: reply.map(|reply| reply.requester),
            to_probe: reply.is_some_and(|reply| reply.to_probe),
            solicited: reply.is_some_and(is_solicited),
        }
    }

    /// A unicast reply with spa ≠ tpa, to no request that was observed.
    pub const fn is_unsolicited_reply(&self) -> bool {
        let is_reply = self.form.reply && self.form.unicast && !self.form.announcement;
        is_reply && self.request.is_none()
    }

    /// A unicast reply with spa = tpa: the reply of an outgoing speaker to an incoming one's announcement.
    pub const fn is_probe_reply(&self) -> bool {
        self.form.reply && self.form.announcement && self.form.unicast
    }
}
