//! Who is one owner on an address, given everybody who has claimed it.

use std::cmp::Reverse;

use probe_common::wire::MacAddr;
use probe_model::{OwnerView, Role, Timestamp};
use smallvec::SmallVec;

use super::Binding;
use crate::{Holder, owner::Identity, turn::Scene};

impl Binding {
    /// The owner that a MAC belongs to on this address. A virtual-router MAC and the physical MACs of the
    /// machines behind it are one owner.
    pub(super) fn owner_of(&self, mac: MacAddr, scene: &Scene) -> Identity {
        let identity = scene.rules.identify(mac);
        match identity {
            Identity::Station(_) => self.router(scene).map_or(identity, Identity::VirtualRouter),
            Identity::VirtualRouter(_)
            | Identity::GlbpGroup(_)
            | Identity::NlbCluster(_)
            | Identity::Declared(_) => identity,
        }
    }

    /// The virtual-router MAC that claimed the address last.
    pub(super) fn router(&self, scene: &Scene) -> Option<MacAddr> {
        self.claimants
            .iter()
            .filter(|claimant| scene.rules.is_virtual_router(claimant.mac))
            .max_by_key(|claimant| (claimant.last_seen, claimant.mac))
            .map(|claimant| claimant.mac)
    }

    /// Who asked: an owner of this address, if it is one, else whoever the MAC stands for.
    pub(super) fn owner_asking(&self, asker: MacAddr, scene: &Scene) -> Identity {
        if self.claimants.get(asker).is_some() {
            self.owner_of(asker, scene)
        } else {
            scene.rules.identify(asker)
        }
    }

    /// The MAC of an owner that was seen last, or the one that this host holds the address with.
    pub(super) fn latest_mac_of(&self, owner: Identity, scene: &Scene) -> Option<MacAddr> {
        let is_owners = |mac: &MacAddr| self.owner_of(*mac, scene) == owner;
        let claimants = self.claimants.iter();
        let latest = claimants
            .filter(|claimant| is_owners(&claimant.mac))
            .max_by_key(|claimant| claimant.last_seen)
            .map(|claimant| claimant.mac);
        latest.or(scene.held.map(|held| held.mac).filter(is_owners))
    }

    /// The current owner, by the MAC that stands for it.
    pub fn current(&self, scene: &Scene) -> Option<Holder> {
        let owner = self.owner_of(self.holder?, scene);
        let mut current = Holder {
            canonical: scene.rules.canonical(owner),
            macs: SmallVec::new(),
            last_claim: Timestamp::ZERO,
        };
        for claimant in self.claimants.iter() {
            if self.owner_of(claimant.mac, scene) == owner {
                current.macs.push(claimant.mac);
                current.last_claim = current.last_claim.max(claimant.last_seen);
            }
        }
        Some(current)
    }

    /// Only `owner` takes part from now on.
    pub(super) fn leave_only(&mut self, owner: Identity, scene: &Scene) {
        let left: SmallVec<[MacAddr; 8]> = self
            .claimants
            .present()
            .map(|claimant| claimant.mac)
            .filter(|&mac| self.owner_of(mac, scene) == owner)
            .collect();
        self.claimants.leave_only(|mac| left.contains(&mac));
    }

    /// Everybody remembered.
    pub(super) fn owners(&self, scene: &Scene) -> Vec<OwnerView> {
        self.owners_among(scene, |_| true)
    }

    /// How many owners [`Self::parties`] would name.
    pub(super) fn count_parties(&self, scene: &Scene) -> usize {
        let held = scene.held.map(|held| held.mac);
        let macs = self.claimants.present().map(|claimant| claimant.mac);
        let mut owners: SmallVec<[Identity; 8]> = SmallVec::new();
        for mac in macs.chain(held) {
            let owner = self.owner_of(mac, scene);
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        owners.len()
    }

    /// Everybody who takes part in the present state of affairs, this host included if it holds the address.
    pub(super) fn parties(&self, scene: &Scene, at: Timestamp) -> Vec<OwnerView> {
        let mut parties = self.owners_among(scene, |mac| {
            self.claimants
                .get(mac)
                .is_some_and(|claimant| claimant.present)
        });
        if let Some(held) = scene.held {
            let owner = self.owner_of(held.mac, scene);
            let mut present = self.claimants.present();
            if !present.any(|claimant| self.owner_of(claimant.mac, scene) == owner) {
                parties.push(OwnerView {
                    first_seen: held.since,
                    ..station(Role::Current, held.mac, at, scene)
                });
            }
        }
        parties
    }

    /// The owners of the MACs that `wanted` picks: the current one first, then the one seen last first.
    pub(super) fn owners_among(
        &self,
        scene: &Scene,
        wanted: impl Fn(MacAddr) -> bool,
    ) -> Vec<OwnerView> {
        let current = self.holder.map(|mac| self.owner_of(mac, scene));
        let mut claimants: SmallVec<[_; 8]> = self.claimants.iter().collect();
        claimants.retain(|claimant| wanted(claimant.mac));
        claimants.sort_unstable_by_key(|claimant| (Reverse(claimant.last_seen), claimant.mac));
        let mut owners: Vec<(Identity, OwnerView)> = Vec::new();
        for claimant in claimants {
            let owner = self.owner_of(claimant.mac, scene);
            let local = scene.facts.is_local(claimant.mac);
            if let Some((_, view)) = owners.iter_mut().find(|(known, _)| *known == owner) {
                view.macs.push(claimant.mac);
                view.local |= local;
                view.announces |= claimant.is_announcer();
                view.first_seen = view.first_seen.min(claimant.first_seen);
                view.claims += claimant.claims;
                continue;
            }
            let role = if current == Some(owner) {
                Role::Current
            } else {
                Role::Earlier
            };
            let view = OwnerView {
                role,
                macs: vec![claimant.mac],
                local,
                announces: claimant.is_announcer(),
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

/// A station that plays a part at `at`, without having claimed the address.
pub(crate) fn station(role: Role, mac: MacAddr, at: Timestamp, scene: &Scene) -> OwnerView {
    OwnerView {
        role,
        macs: vec![mac],
        local: scene.facts.is_local(mac),
        announces: false,
        first_seen: at,
        last_seen: at,
        claims: 0,
    }
}
