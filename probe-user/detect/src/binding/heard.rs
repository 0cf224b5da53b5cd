//! A claim as a binding hears it: what was observed, seen in the light of who this host is.

use probe_common::wire::MacAddr;
use probe_model::Timestamp;

use crate::{Answer, Claim, Form, RequestId, world::World};

/// A claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// When it was seen.
    pub at: Timestamp,
    /// sha.
    pub mac: MacAddr,
    /// What it looked like.
    pub form: Form,
    /// The request that it answers in time.
    pub answers: Option<RequestId>,
    /// Who asked that request, if that is known.
    pub asker: Option<MacAddr>,
    /// It answers an ARP probe of this host.
    pub solicited: bool,
}

impl Heard {
    /// An observed claim.
    pub fn of(claim: &Claim, at: Timestamp, world: &World) -> Self {
        let request = claim.answer.and_then(|answer| answer.request);
        Self::new(at, claim.mac, claim.form, request, claim.answer, world)
    }

    /// The claim that an observed one carries.
    pub fn carried_by(claim: &Claim, at: Timestamp, world: &World) -> Option<Self> {
        let carried = claim.previous.filter(|carried| carried.at <= at)?;
        // Who asked is known only of the request that the observed claim answers too.
        let answer = carried.request.and_then(|request| {
            let same = |answer: &Answer| answer.request == Some(request);
            claim.answer.filter(same)
        });
        let (mac, form, request) = (carried.mac, carried.form, carried.request);
        Some(Self::new(carried.at, mac, form, request, answer, world))
    }

    fn new(
        at: Timestamp,
        mac: MacAddr,
        form: Form,
        request: Option<RequestId>,
        answer: Option<Answer>,
        world: &World,
    ) -> Self {
        let window = world.rules.config.answer_window;
        let in_time = |request: &RequestId| at.since(request.0) <= window;
        let asked_by_us = |answer: Answer| answer.to_probe && world.facts.is_local(answer.asker);
        Self {
            at,
            mac,
            form,
            answers: request.filter(in_time),
            asker: answer.map(|answer| answer.asker),
            solicited: answer.is_some_and(asked_by_us),
        }
    }

    /// A unicast reply with spa = tpa: what an outgoing speaker says to an incoming one's announcement.
    pub const fn is_courtesy(&self) -> bool {
        self.form.reply && self.form.announcement && self.form.unicast
    }
}
