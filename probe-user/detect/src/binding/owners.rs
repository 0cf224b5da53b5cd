//! The owner of each MAC that has claimed an address.

use std::cmp::Reverse;

use probe_common::wire::MacAddr;
use probe_model::{AnnouncementKind, OwnerRole, OwnerView, Timestamp};
use smallvec::SmallVec;

use super::Binding;
use crate::{CurrentOwner, owner::OwnerIdentity, transition::BindingContext};

impl Binding {
    /// The owner that a MAC belongs to on this address. A virtual-router MAC and the physical MACs of the
    /// hosts behind it are one owner.
    pub(super) fn owner_of(&self, mac: MacAddr, context: &BindingContext) -> OwnerIdentity {
        let identity = context.rules.identify(mac);
        match identity {
            OwnerIdentity::Host(_) => self
                .router(context)
                .map_or(identity, OwnerIdentity::VirtualRouter),
            OwnerIdentity::VirtualRouter(_)
            | OwnerIdentity::GlbpGroup(_)
            | OwnerIdentity::NlbCluster(_)
            | OwnerIdentity::Declared(_) => identity,
        }
    }

    /// The virtual-router MAC that claimed the address last.
    pub(super) fn router(&self, context: &BindingContext) -> Option<MacAddr> {
        self.claimants
            .iter()
            .filter(|claimant| context.rules.is_virtual_router(claimant.mac))
            .max_by_key(|claimant| (claimant.last_seen, claimant.mac))
            .map(|claimant| claimant.mac)
    }

    /// Whether a virtual-router MAC has claimed the address.
    pub fn has_virtual_router(&self, context: &BindingContext) -> bool {
        self.router(context).is_some()
    }

    /// The identity of a requester: an owner of this address if it has claimed it.
    pub(super) fn owner_requesting(
        &self,
        requester: MacAddr,
        context: &BindingContext,
    ) -> OwnerIdentity {
        if self.claimants.get(requester).is_some() {
            self.owner_of(requester, context)
        } else {
            context.rules.identify(requester)
        }
    }

    /// The MAC of an owner that was seen last, or the one that this host has the address with.
    pub(super) fn latest_mac_of(
        &self,
        owner: OwnerIdentity,
        context: &BindingContext,
    ) -> Option<MacAddr> {
        let is_owners = |mac: &MacAddr| self.owner_of(*mac, context) == owner;
        let claimants = self.claimants.iter();
        let latest = claimants
            .filter(|claimant| is_owners(&claimant.mac))
            .max_by_key(|claimant| claimant.last_seen)
            .map(|claimant| claimant.mac);
        latest.or(context
            .local_address
            .map(|local_address| local_address.mac)
            .filter(is_owners))
    }

    /// The current owner, by the MAC that stands for it.
    pub fn current(&self, context: &BindingContext) -> Option<CurrentOwner> {
        let owner = self.owner_of(self.current_owner?, context);
        let mut current = CurrentOwner {
            canonical: context.rules.canonical(owner),
            macs: SmallVec::new(),
            last_claim: Timestamp::ZERO,
        };
        for claimant in self.claimants.iter() {
            if self.owner_of(claimant.mac, context) == owner {
                current.macs.push(claimant.mac);
                current.last_claim = current.last_claim.max(claimant.last_seen);
            }
        }
        Some(current)
    }

    /// Makes `owner` the only present owner.
    pub(super) fn retain_only(&mut self, owner: OwnerIdentity, context: &BindingContext) {
        let left: SmallVec<[MacAddr; 8]> = self
            .claimants
            .present()
            .map(|claimant| claimant.mac)
            .filter(|&mac| self.owner_of(mac, context) == owner)
            .collect();
        self.claimants.retain_only(|mac| left.contains(&mac));
    }

    /// Removes `owner` from the present owners.
    pub(super) fn set_absent(&mut self, owner: OwnerIdentity, context: &BindingContext) {
        let stays: SmallVec<[MacAddr; 8]> = self
            .claimants
            .present()
            .map(|claimant| claimant.mac)
            .filter(|&mac| self.owner_of(mac, context) != owner)
            .collect();
        self.claimants.retain_only(|mac| stays.contains(&mac));
    }

    /// All remembered owners.
    pub(super) fn owners(&self, context: &BindingContext) -> Vec<OwnerView> {
        self.owners_among(context, |_| true)
    }

    /// How many owners [`Self::parties_at`] would name.
    pub(super) fn count_parties(&self, context: &BindingContext) -> usize {
        let local_address = context.local_address.map(|local_address| local_address.mac);
        let macs = self.claimants.present().map(|claimant| claimant.mac);
        let mut owners: SmallVec<[OwnerIdentity; 8]> = SmallVec::new();
        for mac in macs.chain(local_address) {
            let owner = self.owner_of(mac, context);
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        owners.len()
    }

    /// The present owners, this host included if it has the address.
    pub(super) fn parties_at(&self, context: &BindingContext, at: Timestamp) -> Vec<OwnerView> {
        let mut parties = self.owners_among(context, |mac| {
            self.claimants
                .get(mac)
                .is_some_and(|claimant| claimant.present)
        });
        if let Some(local_address) = context.local_address {
            let owner = self.owner_of(local_address.mac, context);
            let mut present = self.claimants.present();
            if !present.any(|claimant| self.owner_of(claimant.mac, context) == owner) {
                parties.push(OwnerView {
                    first_seen: local_address.since,
                    ..host_owner(OwnerRole::Current, local_address.mac, at, context)
                });
            }
        }
        parties
    }

    /// The owners of the MACs that `wanted` picks: the current one first, then the one seen last first.
    pub(super) fn owners_among(
        &self,
        context: &BindingContext,
        wanted: impl Fn(MacAddr) -> bool,
    ) -> Vec<OwnerView> {
        let current = self.current_owner.map(|mac| self.owner_of(mac, context));
        let mut claimants: SmallVec<[_; 8]> = self.claimants.iter().collect();
        claimants.retain(|claimant| wanted(claimant.mac));
        claimants.sort_unstable_by_key(|claimant| (Reverse(claimant.last_seen), claimant.mac));
        let mut owners: Vec<(OwnerIdentity, OwnerView)> = Vec::new();
        for claimant in claimants {
            let owner = self.owner_of(claimant.mac, context);
            let local = context.facts.is_local(claimant.mac);
            if let Some((_, view)) = owners.iter_mut().find(|(known, _)| *known == owner) {
                view.macs.push(claimant.mac);
                view.local |= local;
                view.announcement = view.announcement.max(claimant.announcement());
                view.first_seen = view.first_seen.min(claimant.first_seen);
                view.claims += claimant.claims;
                continue;
            }
            let role = if current == Some(owner) {
                OwnerRole::Current
            } else {
                OwnerRole::Earlier
            };
            let view = OwnerView {
                role,
                macs: vec![claimant.mac],
                local,
                announcement: claimant.announcement(),
                first_seen: claimant.first_seen,
                last_seen: claimant.last_seen,
                claims: claimant.claims,
            };
            owners.push((owner, view));
        }
        owners.sort_by_key(|(_, view)| view.role);
        owners.into_iter().map(|(_, view)| view).collect()
    }
}

/// A host with a role in a finding at `at` that has not claimed the address.
pub(crate) fn host_owner(
    role: OwnerRole,
    mac: MacAddr,
    at: Timestamp,
    context: &BindingContext,
) -> OwnerView {
    OwnerView {
        role,
        macs: vec![mac],
        local: context.facts.is_local(mac),
        announcement: AnnouncementKind::None,
        first_seen: at,
        last_seen: at,
        claims: 0,
    }
}
