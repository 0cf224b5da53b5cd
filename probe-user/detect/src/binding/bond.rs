//! Bonding mode balance-alb: one host that claims its address with several MACs.
//!
//! The driver (`drivers/net/bonding/bond_alb.c`) sends requests with the MAC of the bond. In replies it replaces the
//! MAC by that of the port that it has assigned to the client (`rlb_arp_xmit`, `rlb_choose_channel`). As a request of
//! the bond moves every client to its MAC, the driver sends these clients replies once more, two seconds after the last
//! request (`rlb_update_client`). All of these replies are unicast, and a request gets one.

use probe_model::Segment;

use super::{
    Binding,
    claimants::{ClaimMode, Claimant},
};
use crate::transition::{BindingContext, ClaimedAddressIndex};

impl Binding {
    /// Whether the two owners of the address may be one bond in mode balance-alb: one has only ever sent requests and
    /// the other only replies, and nothing shows that they are two hosts. Where no host can be probed, the bond's own
    /// replies to its clients must have been seen: two hosts would reply to a probe.
    pub(super) fn may_be_bond(
        &self,
        context: &BindingContext,
        claimed_addresses: &ClaimedAddressIndex,
    ) -> bool {
        let Some([requester, replier]) = self.requester_and_replier(context) else {
            return false;
        };
        let announced = self.claimants.present().any(Claimant::announces);
        let [one_is_local, other_is_local] =
            [requester, replier].map(|claimant| context.facts.is_local(claimant.mac));
        let segment: Segment = context.key.segment;
        let apart = claimed_addresses.have_own_addresses(segment, requester.mac, replier.mac);
        let mut present = self.claimants.present();
        let updates_clients =
            context.rules.config.can_probe || present.any(Claimant::has_unsolicited_reply);
        !announced && one_is_local == other_is_local && !apart && updates_clients
    }

    /// The two owners, if one of them has only ever claimed the address by request and the other only by reply.
    fn requester_and_replier(&self, context: &BindingContext) -> Option<[&Claimant; 2]> {
        let (mut requester, mut replier): (Option<&Claimant>, Option<&Claimant>) = (None, None);
        for claimant in self.claimants.present() {
            let side = match claimant.mode {
                ClaimMode::Requests => &mut requester,
                ClaimMode::Replies => &mut replier,
                ClaimMode::Both => return None,
            };
            let known = *side.get_or_insert(claimant);
            if self.owner_of(known.mac, context) != self.owner_of(claimant.mac, context) {
                return None;
            }
        }
        let (requester, replier) = (requester?, replier?);
        let differ = self.owner_of(requester.mac, context) != self.owner_of(replier.mac, context);
        differ.then_some([requester, replier])
    }
}
