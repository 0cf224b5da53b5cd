//! Addresses that this host holds, claimed by a stranger.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, Timestamp};

use super::{Binding, claimants::PriorClaimantState, dispute::ReturnKind};
use crate::{
    ProbePurpose, ProbeRequest,
    transition::{BindingContext, BindingTransition},
};

impl Binding {
    /// A claim that is more than an earlier owner's leftover: is it one to an address of this host?
    pub(super) fn check_local(
        &mut self,
        mac: MacAddr,
        before: PriorClaimantState,
        turn: &mut BindingTransition,
    ) {
        let Some(since) = self.local_dispute_since(mac, &turn.context) else {
            return;
        };
        let config = &turn.context.rules.config;
        if before.present && turn.at.since(since) >= config.local_grace {
            self.evidence(Evidence::Local, None, None, turn);
        } else if !before.present && config.can_probe {
            let earliest = since + config.local_grace;
            turn.request_probe(ProbeRequest {
                key: turn.context.key,
                purpose: ProbePurpose::Local,
                round: 0,
                requested_for: since,
                earliest,
                latest: earliest + config.local_grace,
                to: vec![mac],
            });
        }
    }

    /// This host has just been given the address: probes the other hosts that hold it.
    pub fn check_new_local_address(&self, turn: &mut BindingTransition) {
        let (context, config) = (turn.context, &turn.context.rules.config);
        let Some(local_address) = context.local_address else {
            return;
        };
        let present = self.claimants.present().map(|claimant| claimant.mac);
        let to: Vec<_> = present
            .filter(|&mac| self.local_dispute_since(mac, &context).is_some())
            .collect();
        if to.is_empty() || !config.can_probe || self.conflict().is_some() {
            return;
        }
        let earliest = local_address.since + config.local_grace;
        turn.request_probe(ProbeRequest {
            key: context.key,
            purpose: ProbePurpose::Local,
            round: 0,
            requested_for: local_address.since,
            earliest,
            latest: earliest + config.local_grace,
            to,
        });
    }

    /// Takes the replies of other hosts to a probe for an address of this host.
    pub(super) fn other_host_replied(&mut self, by: &[MacAddr], turn: &mut BindingTransition) {
        let grace = turn.context.rules.config.local_grace;
        let is_rival = |&mac: &MacAddr| {
            self.local_dispute_since(mac, &turn.context)
                .is_some_and(|since| turn.at.since(since) >= grace)
        };
        if by.iter().any(is_rival) {
            self.evidence(Evidence::Local, None, None, turn);
        }
    }

    /// Whether the holder, or an owner before it, took the address back since it was last settled.
    pub(super) fn has_returned(&self) -> bool {
        let pending = self.dispute.as_ref().and_then(|dispute| dispute.pending);
        self.contest().is_some_and(|contest| {
            contest.returns > 0
                || pending.is_some_and(|pending| pending.kind != ReturnKind::FromSettled)
        })
    }

    /// Since when a stranger and this host both had the time to see each other: the latest of the stranger's
    /// first claim, its last return, and this host's getting the address. `None` if it is no stranger, or
    /// this host does not hold the address.
    pub(super) fn local_dispute_since(
        &self,
        mac: MacAddr,
        context: &BindingContext,
    ) -> Option<Timestamp> {
        let local_address = context.local_address?;
        let stranger = !context.facts.is_local(mac)
            && self.owner_of(mac, context) != self.owner_of(local_address.mac, context);
        if !stranger {
            return None;
        }
        let since = self.claimants.get(mac)?.since.max(local_address.since);
        let has_returned = self.has_returned();
        Some(if has_returned && self.holder == Some(mac) {
            since.max(self.since)
        } else {
            since
        })
    }
}
