//! Who is one owner on an address, given everybody who has claimed it.

use probe_common::wire::MacAddr;

use super::{Hint, OwnerView, Role, Timestamp, binding::Binding, owner::Identity, scene::Scene};

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
            .filter(|claimant| self.is_router(claimant.mac, scene))
            .max_by_key(|claimant| (claimant.last_seen, claimant.mac))
            .map(|claimant| claimant.mac)
    }

    /// Whether this is a virtual-router MAC.
    pub(super) fn is_router(&self, mac: MacAddr, scene: &Scene) -> bool {
        matches!(scene.rules.identify(mac), Identity::VirtualRouter(_))
    }

    /// Who asked: an owner of this address, if it is one, else whoever the MAC stands for.
    pub(super) fn identity_of_asker(&self, asker: MacAddr, scene: &Scene) -> Identity {
        if self.claimants.get(asker).is_some() {
            self.owner_of(asker, scene)
        } else {
            scene.rules.identify(asker)
        }
    }

    /// Everybody remembered.
    pub(super) fn owners(&self, scene: &Scene, at: Timestamp) -> Vec<OwnerView> {
        self.owners_among(scene, at, |_| true)
    }

    /// Everybody who takes part in the present state of affairs, this host included if it holds the address.
    pub(super) fn parties(&self, scene: &Scene, at: Timestamp) -> Vec<OwnerView> {
        let mut parties = self.owners_among(scene, at, |mac| {
            self.claimants
                .get(mac)
                .is_some_and(|claimant| claimant.present)
        });
        if let Some(held) = scene.held {
            let owner = self.owner_of(held.mac, scene);
            let mut macs = parties.iter().flat_map(|party| &party.macs);
            if !macs.any(|&mac| self.owner_of(mac, scene) == owner) {
                parties.push(OwnerView {
                    role: Role::Current,
                    macs: vec![held.mac],
                    local: true,
                    first_seen: held.since,
                    last_seen: at,
                    claims: 0,
                });
            }
        }
        parties
    }

    /// The owners of the MACs that `wanted` picks: the current one first, then the one seen last first.
    pub(super) fn owners_among(
        &self,
        scene: &Scene,
        at: Timestamp,
        wanted: impl Fn(MacAddr) -> bool,
    ) -> Vec<OwnerView> {
        let current = self.holder.map(|mac| self.owner_of(mac, scene));
        let mut claimants: Vec<_> = self
            .claimants
            .iter()
            .filter(|claimant| wanted(claimant.mac))
            .collect();
        claimants
            .sort_unstable_by_key(|claimant| (std::cmp::Reverse(claimant.last_seen), claimant.mac));
        let mut owners: Vec<(Identity, OwnerView)> = Vec::new();
        for claimant in claimants {
            let owner = self.owner_of(claimant.mac, scene);
            let local = scene.facts.is_local(claimant.mac);
            match owners.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, view)) => {
                    view.macs.push(claimant.mac);
                    view.local |= local;
                    view.first_seen = view.first_seen.min(claimant.first_seen);
                    view.claims += claimant.claims;
                }
                None => owners.push((
                    owner,
                    OwnerView {
                        role: if current == Some(owner) {
                            Role::Current
                        } else {
                            Role::Earlier
                        },
                        macs: vec![claimant.mac],
                        local,
                        first_seen: claimant.first_seen,
                        last_seen: claimant.last_seen.min(at.max(claimant.last_seen)),
                        claims: claimant.claims,
                    },
                )),
            }
        }
        owners.sort_by_key(|(_, view)| view.role);
        owners.into_iter().map(|(_, view)| view).collect()
    }

    /// What the owners of a conflict themselves suggest.
    pub(super) fn hint_of_parties(&self, parties: &[OwnerView], scene: &Scene) -> Option<Hint> {
        let routers = parties
            .iter()
            .filter(|party| party.macs.iter().any(|&mac| self.is_router(mac, scene)));
        if routers.count() > 1 {
            Some(Hint::TwoRouterGroups)
        } else if parties.iter().all(|party| party.local) {
            Some(Hint::ArpFlux)
        } else {
            None
        }
    }
}

/// The station that sent a frame.
pub(super) fn sender(mac: MacAddr, at: Timestamp, scene: &Scene) -> OwnerView {
    station(Role::Sender, mac, at, scene)
}

/// The station that sent an ARP probe.
pub(super) fn prober(mac: MacAddr, at: Timestamp, scene: &Scene) -> OwnerView {
    station(Role::Prober, mac, at, scene)
}

fn station(role: Role, mac: MacAddr, at: Timestamp, scene: &Scene) -> OwnerView {
    OwnerView {
        role,
        macs: vec![mac],
        local: scene.facts.is_local(mac),
        first_seen: at,
        last_seen: at,
        claims: 0,
    }
}
