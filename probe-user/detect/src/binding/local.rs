//! Addresses that this host holds, claimed by a stranger.

use probe_common::wire::MacAddr;
use probe_model::{Evidence, Timestamp};

use super::{Binding, claimants::Before};
use crate::{
    Ask, Purpose,
    turn::{Scene, Turn},
};

impl Binding {
    /// A claim that is more than an earlier owner's leftover: is it one to an address of this host?
    pub(super) fn check_local(&mut self, mac: MacAddr, before: Before, turn: &mut Turn) {
        let Some(since) = self.local_dispute_since(mac, &turn.scene) else {
            return;
        };
        let config = &turn.scene.rules.config;
        if before.present && turn.at.since(since) >= config.local_grace {
            self.evidence(Evidence::Local, None, None, turn);
        } else if !before.present && config.may_ask {
            let earliest = since + config.local_grace;
            turn.ask(Ask {
                key: turn.scene.key,
                purpose: Purpose::Local,
                round: 0,
                about: since,
                earliest,
                latest: earliest + config.local_grace,
                to: vec![mac],
            });
        }
    }

    /// A stranger was asked for an address of this host.
    pub(super) fn stranger_answered(&mut self, by: &[MacAddr], turn: &mut Turn) {
        let grace = turn.scene.rules.config.local_grace;
        let is_rival = |&mac: &MacAddr| {
            self.local_dispute_since(mac, &turn.scene)
                .is_some_and(|since| turn.at.since(since) >= grace)
        };
        if by.iter().any(is_rival) {
            self.evidence(Evidence::Local, None, None, turn);
        }
    }

    /// Since when a stranger and this host both had the time to see each other: the latest of the stranger's
    /// first claim, its last return, and this host's getting the address. `None` if it is no stranger, or
    /// this host does not hold the address.
    pub(super) fn local_dispute_since(&self, mac: MacAddr, scene: &Scene) -> Option<Timestamp> {
        let held = scene.held?;
        let stranger = !scene.facts.is_local(mac)
            && self.owner_of(mac, scene) != self.owner_of(held.mac, scene);
        if !stranger {
            return None;
        }
        let since = self.claimants.get(mac)?.since.max(held.since);
        let has_returned = self.contest().is_some_and(|contest| contest.returns > 0);
        Some(if has_returned && self.holder == Some(mac) {
            since.max(self.since)
        } else {
            since
        })
    }
}
