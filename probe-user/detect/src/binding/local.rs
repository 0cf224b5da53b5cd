//! Addresses of this host that another host claims.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, Timestamp};

use super::{Binding, claimants::PriorClaimantState, dispute::ReturnKind};
use crate::{
    ProbePurpose, ProbeRequest,
    transition::{BindingContext, BindingTransition},
};

impl Binding {
    /// Checks whether a claim of another host is evidence of a conflict with this host.
    pub(super) fn check_local(
        &mut self,
        mac: MacAddr,
        before: PriorClaimantState,
        transition: &mut BindingTransition,
    ) {
        let Some(since) = self.local_dispute_since(mac, &transition.context) else {
            return;
        };
        let config = &transition.context.rules.config;
        if before.present && transition.at.since(since) >= config.local_grace {
            self.evidence(Evidence::Local, None, None, transition);
        } else if !before.present && config.can_probe {
            let earliest = since + config.local_grace;
            transition.request_probe(ProbeRequest {
                key: transition.context.key,
                purpose: ProbePurpose::Local,
                round: 0,
                requested_for: since,
                earliest,
                latest: earliest + config.local_grace,
                to: vec![mac],
            });
        }
    }

    /// Requests probes of the other owners of an address that was just added to this host.
    pub fn check_new_local_address(&self, transition: &mut BindingTransition) {
        let (context, config) = (transition.context, &transition.context.rules.config);
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
        transition.request_probe(ProbeRequest {
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
    pub(super) fn other_host_replied(
        &mut self,
        by: &[MacAddr],
        transition: &mut BindingTransition,
    ) {
        let grace = transition.context.rules.config.local_grace;
        let is_rival = |&mac: &MacAddr| {
            self.local_dispute_since(mac, &transition.context)
                .is_some_and(|since| transition.at.since(since) >= grace)
        };
        if by.iter().any(is_rival) {
            self.evidence(Evidence::Local, None, None, transition);
        }
    }

    /// Whether an owner took the address back since it was last settled.
    pub(super) fn has_returned(&self) -> bool {
        let pending = self.dispute.as_ref().and_then(|dispute| dispute.pending);
        self.contest().is_some_and(|contest| {
            contest.returns > 0
                || pending.is_some_and(|pending| pending.kind != ReturnKind::FromSettled)
        })
    }

    /// Since when another host and this host both had the time to detect each other: the latest of the other host's
    /// first claim, its last return, and the time when this host got the address. `None` if the MAC is this host's, or
    /// if this host does not have the address.
    pub(super) fn local_dispute_since(
        &self,
        mac: MacAddr,
        context: &BindingContext,
    ) -> Option<Timestamp> {
        let local_address = context.local_address?;
        let is_other_host = !context.facts.is_local(mac)
            && self.owner_of(mac, context) != self.owner_of(local_address.mac, context);
        if !is_other_host {
            return None;
        }
        let since = self.claimants.get(mac)?.since.max(local_address.since);
        let has_returned = self.has_returned();
        Some(if has_returned && self.current_owner == Some(mac) {
            since.max(self.since)
        } else {
            since
        })
    }
}
