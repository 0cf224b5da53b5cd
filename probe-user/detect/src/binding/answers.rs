//! Several answers to one request, and what virtual-router MACs change about that.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, Hint};

use super::{Binding, Heard, claimants::Before, dispute::Beside};
use crate::{owner::Identity, turn::Turn};

impl Binding {
    /// Whether somebody else answered the same request.
    pub(super) fn check_answers(&mut self, heard: &Heard, before: Before, turn: &mut Turn) {
        let Some(request) = heard.answers else {
            return;
        };
        let (mac, scene) = (heard.mac, turn.scene);
        let owner = self.owner_of(mac, &scene);
        let asker = heard.asker.map(|asker| self.owner_asking(asker, &scene));
        let is_router = scene.rules.is_virtual_router(mac);
        let (mut rivals, mut hint) = (0, None);
        for other in self.claimants.iter() {
            if other.mac == mac || other.answered != Some(request) {
                continue;
            }
            let rival = self.owner_of(other.mac, &scene);
            if rival != owner {
                // Who asks for an address that it claims itself is no third party, and of whom it is not
                // known who asked, it is not known either.
                let third_party = asker.is_some_and(|asker| asker != owner && asker != rival);
                rivals += usize::from(third_party);
            } else if let Identity::VirtualRouter(_) = owner {
                let other_is_router = scene.rules.is_virtual_router(other.mac);
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
            self.contested(hint, turn);
        }
    }

    /// A physical MAC beside a virtual-router MAC belongs to the router that is master now. Another one
    /// means a failover, which is nothing; one that comes back at once means two masters.
    pub(super) fn check_router(&mut self, mac: MacAddr, before: Before, turn: &mut Turn) {
        let identity = turn.scene.rules.identify(mac);
        if !matches!(identity, Identity::Station(_)) || self.router(&turn.scene).is_none() {
            return;
        }
        let config = &turn.scene.rules.config;
        let latest = Beside {
            mac,
            since: turn.at,
        };
        let dispute = self.dispute.get_or_insert_default();
        let Some(beside) = &mut dispute.beside else {
            dispute.beside = Some(latest);
            return;
        };
        let age = turn.at.since(beside.since);
        if beside.mac == mac || before.known && age < config.overlap {
            return;
        }
        *beside = latest;
        if before.known && age < config.alternation_window {
            self.contested(Some(Hint::TwoMasters), turn);
        }
    }
}
