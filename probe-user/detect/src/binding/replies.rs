//! Several answers to one request, and what virtual-router MACs change about that.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, Hint};

use super::{Binding, ObservedClaim, claimants::PriorClaimantState, dispute::ConcurrentClaimant};
use crate::{owner::OwnerIdentity, transition::BindingTransition};

impl Binding {
    /// Whether somebody else answered the same request.
    pub(super) fn check_replies(
        &mut self,
        heard: &ObservedClaim,
        before: PriorClaimantState,
        turn: &mut BindingTransition,
    ) {
        let Some(request) = heard.request else {
            return;
        };
        let (mac, context) = (heard.mac, turn.context);
        let owner = self.owner_of(mac, &context);
        let asker = heard
            .asker
            .map(|asker| self.owner_requesting(asker, &context));
        let is_router = context.rules.is_virtual_router(mac);
        let (mut rivals, mut hint) = (0, None);
        for other in self.claimants.iter() {
            if other.mac == mac || other.answered != Some(request) {
                continue;
            }
            let rival = self.owner_of(other.mac, &context);
            if rival != owner {
                // Who asks for an address that it claims itself is no third party, and of whom it is not
                // known who asked, it is not known either.
                let third_party = asker.is_some_and(|asker| asker != owner && asker != rival);
                rivals += usize::from(third_party);
            } else if let OwnerIdentity::VirtualRouter(_) = owner {
                let other_is_router = context.rules.is_virtual_router(other.mac);
                hint = Some(if is_router == other_is_router {
                    Hint::TwoMasters
                } else {
                    Hint::RouterAndHost
                });
            }
        }
        if rivals > 0 {
            let many = (rivals > 1).then_some(Hint::IpvsStrictArp);
            self.evidence(Evidence::DuplicateReply, Some(request), many, turn);
        }
        if is_router && before.answered {
            hint = Some(Hint::TwoMasters);
        }
        if hint.is_some() {
            if hint == Some(Hint::TwoMasters) {
                let dispute = self.dispute.get_or_insert_default();
                dispute.two_masters = dispute.two_masters.max(Some(heard.at));
            }
            self.report_contested(hint, turn);
        }
    }

    /// A physical MAC beside a virtual-router MAC belongs to the router that is master now. Another one
    /// means a failover, which is nothing; one that comes back at once means two masters.
    pub(super) fn check_router(
        &mut self,
        mac: MacAddr,
        before: PriorClaimantState,
        turn: &mut BindingTransition,
    ) {
        let identity = turn.context.rules.identify(mac);
        if !matches!(identity, OwnerIdentity::Host(_)) || self.router(&turn.context).is_none() {
            return;
        }
        let config = &turn.context.rules.config;
        let latest = ConcurrentClaimant {
            mac,
            since: turn.at,
        };
        let dispute = self.dispute.get_or_insert_default();
        let Some(concurrent) = &mut dispute.concurrent else {
            dispute.concurrent = Some(latest);
            return;
        };
        let age = turn.at.since(concurrent.since);
        if concurrent.mac == mac || before.known && age < config.takeover_grace {
            return;
        }
        *concurrent = latest;
        if before.known && age < config.alternation_window {
            self.report_contested(Some(Hint::TwoMasters), turn);
        }
    }
}
