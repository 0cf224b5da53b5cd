//! Several replies to one request, and the rules for virtual-router MACs.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, Hint};

use super::{Binding, ObservedClaim, claimants::PriorClaimantState, dispute::ConcurrentClaimant};
use crate::{owner::OwnerIdentity, transition::BindingTransition};

impl Binding {
    /// Checks whether another host replied to the same request.
    pub(super) fn check_replies(
        &mut self,
        observed: &ObservedClaim,
        before: PriorClaimantState,
        transition: &mut BindingTransition,
    ) {
        let Some(request) = observed.request else {
            return;
        };
        let (mac, context) = (observed.mac, transition.context);
        let owner = self.owner_of(mac, &context);
        let requester = observed
            .requester
            .map(|requester| self.owner_requesting(requester, &context));
        let is_router = context.rules.is_virtual_router(mac);
        let (mut rivals, mut hint) = (0, None);
        for other in self.claimants.iter() {
            if other.mac == mac || other.replied != Some(request) {
                continue;
            }
            let rival = self.owner_of(other.mac, &context);
            if rival != owner {
                // A requester that claims the address itself is no third party. An unknown requester may be such a one.
                let third_party =
                    requester.is_some_and(|requester| requester != owner && requester != rival);
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
            self.evidence(Evidence::DuplicateReply, Some(request), many, transition);
        }
        if is_router && before.replied {
            hint = Some(Hint::TwoMasters);
        }
        if hint.is_some() {
            if hint == Some(Hint::TwoMasters) {
                let dispute = self.dispute.get_or_insert_default();
                dispute.two_masters = dispute.two_masters.max(Some(observed.at));
            }
            self.report_contested(hint, transition);
        }
    }

    /// A physical MAC beside a virtual-router MAC belongs to the router that is master now. Another one
    /// means a failover, which is no finding; one that comes back at once means two masters.
    pub(super) fn check_router(
        &mut self,
        mac: MacAddr,
        before: PriorClaimantState,
        transition: &mut BindingTransition,
    ) {
        let identity = transition.context.rules.identify(mac);
        if !matches!(identity, OwnerIdentity::Host(_)) || self.router(&transition.context).is_none()
        {
            return;
        }
        let config = &transition.context.rules.config;
        let latest = ConcurrentClaimant {
            mac,
            since: transition.at,
        };
        let dispute = self.dispute.get_or_insert_default();
        let Some(concurrent) = &mut dispute.concurrent else {
            dispute.concurrent = Some(latest);
            return;
        };
        let age = transition.at.since(concurrent.since);
        if concurrent.mac == mac || before.known && age < config.takeover_grace {
            return;
        }
        *concurrent = latest;
        if before.known && age < config.alternation_window {
            self.report_contested(Some(Hint::TwoMasters), transition);
        }
    }
}
