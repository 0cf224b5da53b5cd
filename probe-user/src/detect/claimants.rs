//! The MACs that have claimed one address: a small set, bounded, the least recently seen goes first.

use probe_common::wire::MacAddr;
use smallvec::SmallVec;

use super::{Form, RequestId, Timestamp};

/// One MAC that has claimed the address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimant {
    /// The MAC.
    pub mac: MacAddr,
    /// It takes part in the present state of affairs: since the address last settled with another owner,
    /// it has claimed it.
    pub present: bool,
    /// While present it has claimed by request.
    pub requested: bool,
    /// While present it has claimed by reply.
    pub replied: bool,
    /// That its frames come from another Ethernet source has been reported.
    pub mismatch_told: bool,
    /// Its first claim.
    pub first_seen: Timestamp,
    /// Its first claim while present.
    pub since: Timestamp,
    /// Its last claim.
    pub last_seen: Timestamp,
    /// Its claims.
    pub claims: u64,
    /// The request that it answered last, in time.
    pub answered: Option<RequestId>,
}

impl Claimant {
    fn new(mac: MacAddr, at: Timestamp) -> Self {
        Self {
            mac,
            present: false,
            requested: false,
            replied: false,
            mismatch_told: false,
            first_seen: at,
            since: at,
            last_seen: at,
            claims: 0,
            answered: None,
        }
    }

    fn heard(&mut self, at: Timestamp, form: Form, answered: Option<RequestId>) {
        if !self.present {
            self.present = true;
            self.since = at;
            (self.requested, self.replied) = (false, false);
        }
        self.requested |= !form.reply;
        self.replied |= form.reply;
        self.last_seen = self.last_seen.max(at);
        self.claims += 1;
        self.answered = answered.or(self.answered);
    }
}

/// What a claimant was just before a claim.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// It had claimed the address at some time.
    pub known: bool,
    /// It took part in the present state of affairs.
    pub present: bool,
    /// It had already answered this very request.
    pub answered: bool,
}

/// All of them. Inline as long as there is but one, which is nearly always.
#[derive(Debug, Default)]
pub(super) struct Claimants(SmallVec<[Claimant; 1]>);

impl Claimants {
    /// Notes a claim; says what its claimant was before it.
    pub fn note(
        &mut self,
        mac: MacAddr,
        at: Timestamp,
        form: Form,
        answered: Option<RequestId>,
    ) -> Before {
        if let Some(claimant) = self.get_mut(mac) {
            let before = Before {
                known: true,
                present: claimant.present,
                answered: answered.is_some() && claimant.answered == answered,
            };
            claimant.heard(at, form, answered);
            return before;
        }
        let mut claimant = Claimant::new(mac, at);
        claimant.heard(at, form, answered);
        self.0.push(claimant);
        Before::default()
    }

    /// Forgets the least recently seen if there are more than `max`; never one of `keep`.
    pub fn evict_beyond(&mut self, max: usize, keep: [Option<MacAddr>; 3]) -> Option<MacAddr> {
        if self.0.len() <= max {
            return None;
        }
        let (place, mac, _) = self
            .0
            .iter()
            .enumerate()
            .map(|(place, claimant)| (place, claimant.mac, claimant.last_seen))
            .filter(|(_, mac, _)| !keep.contains(&Some(*mac)))
            .min_by_key(|&(_, _, last_seen)| last_seen)?;
        self.0.remove(place);
        Some(mac)
    }

    /// The claimant with this MAC.
    pub fn get(&self, mac: MacAddr) -> Option<&Claimant> {
        self.0.iter().find(|claimant| claimant.mac == mac)
    }

    /// The claimant with this MAC.
    pub fn get_mut(&mut self, mac: MacAddr) -> Option<&mut Claimant> {
        self.0.iter_mut().find(|claimant| claimant.mac == mac)
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Claimant> {
        self.0.iter()
    }

    /// All of them, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Claimant> {
        self.0.iter_mut()
    }

    /// No claim lies in the future: called when the clock was set back to `now`.
    pub fn forget_future(&mut self, now: Timestamp) {
        for claimant in &mut self.0 {
            claimant.first_seen = claimant.first_seen.min(now);
            claimant.since = claimant.since.min(now);
            claimant.last_seen = claimant.last_seen.min(now);
        }
    }
}
