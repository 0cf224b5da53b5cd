//! The replies of this host on each of its interfaces.

use std::{net::IpAddr, time::Duration};

use probe_common::wire::{MacAddr, Vlan};
use probe_model::Segment;

use super::{binding::ObservedClaim, recent::RecentMap};

/// How many addresses and requesters are remembered.
const HISTORY_CAPACITY: usize = 1024;

/// A reply of this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalReply {
    /// Where it was sent.
    pub segment: Segment,
    /// The MAC that it names.
    pub mac: MacAddr,
    /// The claim that it makes.
    pub claim: ObservedClaim,
}

/// The last reply of this host for each address to each host.
#[derive(Debug, Default)]
pub(super) struct LocalReplies(RecentMap<(IpAddr, Vlan, MacAddr), LocalReply, HISTORY_CAPACITY>);

impl LocalReplies {
    /// Records a reply to `requester`. Returns the one before it if that was sent within `window` on another interface
    /// with another MAC.
    pub fn record(
        &mut self,
        ip: IpAddr,
        requester: MacAddr,
        reply: LocalReply,
        window: Duration,
    ) -> Option<LocalReply> {
        let key = (ip, reply.segment.vlan, requester);
        let earlier = self.0.get(&key).map(|&(_, earlier)| earlier);
        self.0.insert(key, reply.claim.at, reply);
        earlier.filter(|earlier| {
            earlier.segment.interface != reply.segment.interface
                && earlier.mac != reply.mac
                && reply.claim.at.since(earlier.claim.at) <= window
        })
    }

    /// Forgets everything: the clock was set back.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
