//! The MACs that have claimed one address: a small set, bounded, the least recently seen goes first.

use probe_common::wire::MacAddr;
use probe_model::{AnnouncementKind, Timestamp};
use smallvec::SmallVec;

use super::ObservedClaim;
use crate::{ClaimFlags, RequestId};

/// One MAC that has claimed the address.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent observations, each of which is read on its own"
)]
pub(super) struct Claimant {
    pub mac: MacAddr,
    /// It is one of the present owners: it has claimed the address since that last settled with another owner.
    pub present: bool,
    /// By which operations it has ever claimed the address.
    pub mode: ClaimMode,
    /// It has sent a unicast reply without a request that was observed.
    has_unsolicited_reply: bool,
    /// It has announced the address by broadcast.
    announces: bool,
    /// The forms in which it has announced the address by broadcast since it is present.
    announcements: AnnouncementOperations,
    /// It announced it in both forms before it was present.
    announced_earlier: bool,
    /// That its frames come from another Ethernet source has been reported.
    mismatch_reported: bool,
    /// Its first claim.
    pub first_seen: Timestamp,
    /// Its first claim since it is present.
    pub since: Timestamp,
    /// Its last claim.
    pub last_seen: Timestamp,
    /// Its claims.
    pub claims: u64,
    /// The last request that it replied to in time.
    pub replied: Option<RequestId>,
    /// Whether it was observed to reply to an ARP probe. Some hosts reply to requests with a sender address only
    /// (Linux `proxy_arp`): that they do not reply to a probe proves nothing.
    pub replies_to_probes: bool,
    /// Whether it was observed to reply to a request with a sender address.
    pub replies_to_requests: bool,
}

/// The operations by which a host claims an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimMode {
    /// Only ever by request.
    Requests,
    /// Only ever by reply.
    Replies,
    /// By both.
    Both,
}

impl ClaimMode {
    const fn of(form: ClaimFlags) -> Self {
        if form.reply {
            Self::Replies
        } else {
            Self::Requests
        }
    }
}

/// The forms in which a host has announced the address by broadcast: MetalLB and kube-vip use both, hosts and routers
/// one, as RFC 5227 section 3 and RFC 9568 section 8.1.2 want it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AnnouncementOperations {
    by_request: bool,
    by_reply: bool,
}

impl AnnouncementOperations {
    /// The form of one claim.
    pub fn of(form: ClaimFlags) -> Self {
        let mut operations = Self::default();
        operations.record(form);
        operations
    }

    /// Adds the form of a claim, if it is an announcement by broadcast.
    pub const fn record(&mut self, form: ClaimFlags) {
        if form.is_broadcast_announcement() {
            self.by_reply |= form.reply;
            self.by_request |= !form.reply;
        }
    }

    /// Whether it was announced by request and by reply.
    pub const fn in_both_forms(self) -> bool {
        self.by_request && self.by_reply
    }
}

/// What a claimant was just before a claim.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PriorClaimantState {
    /// It had claimed the address at some time.
    pub known: bool,
    /// It was one of the present owners.
    pub present: bool,
    /// It had already replied to this request.
    pub replied: bool,
}

impl Claimant {
    /// A claimant before its first claim.
    const fn new(observed: &ObservedClaim) -> Self {
        Self {
            mac: observed.mac,
            present: false,
            mode: ClaimMode::of(observed.form),
            has_unsolicited_reply: false,
            announces: false,
            announcements: AnnouncementOperations {
                by_request: false,
                by_reply: false,
            },
            announced_earlier: false,
            mismatch_reported: false,
            first_seen: observed.at,
            since: observed.at,
            last_seen: observed.at,
            claims: 0,
            replied: None,
            replies_to_probes: false,
            replies_to_requests: false,
        }
    }

    /// Whether it announces the address as MetalLB's speakers and kube-vip do.
    pub const fn is_announcer(&self) -> bool {
        self.announcements.in_both_forms()
    }

    /// Whether it has announced the address by broadcast.
    pub const fn announces(&self) -> bool {
        self.announces
    }

    /// Whether it has replied to a request or an ARP probe.
    pub const fn replies(&self) -> bool {
        self.replies_to_probes || self.replies_to_requests
    }

    /// Whether it has replied by unicast without a request that was observed.
    pub const fn has_unsolicited_reply(&self) -> bool {
        self.has_unsolicited_reply
    }

    /// How it has announced the address since it is present.
    pub const fn announcement(&self) -> AnnouncementKind {
        let AnnouncementOperations {
            by_request,
            by_reply,
        } = self.announcements;
        match (by_request, by_reply) {
            (true, true) => AnnouncementKind::Speaker,
            (true, false) | (false, true) => AnnouncementKind::Host,
            (false, false) if self.announced_earlier => AnnouncementKind::Earlier,
            (false, false) => AnnouncementKind::None,
        }
    }

    fn claim(&mut self, observed: &ObservedClaim) {
        let mode = ClaimMode::of(observed.form);
        if !self.present {
            self.present = true;
            self.since = observed.at;
            self.announced_earlier |= self.is_announcer();
            self.announcements = AnnouncementOperations::default();
        }
        if self.mode != mode {
            self.mode = ClaimMode::Both;
        }
        self.has_unsolicited_reply |= observed.is_unsolicited_reply();
        self.announces |= observed.form.is_broadcast_announcement();
        self.announcements.record(observed.form);
        self.last_seen = self.last_seen.max(observed.at);
        self.claims += 1;
        self.replied = observed.request.or(self.replied);
        self.replies_to_probes |= observed.to_probe;
        self.replies_to_requests |=
            observed.form.reply && !observed.form.announcement && !observed.to_probe;
    }
}

/// The MACs that have claimed an address. Inline while there is only one, which is nearly always.
#[derive(Clone, Debug, Default)]
pub(super) struct Claimants(SmallVec<[Claimant; 1]>);

impl Claimants {
    /// Records a claim. Returns the state of its claimant before it.
    pub fn record(&mut self, observed: &ObservedClaim) -> PriorClaimantState {
        if let Some(claimant) = self.get_mut(observed.mac) {
            let before = PriorClaimantState {
                known: true,
                present: claimant.present,
                replied: observed.request.is_some() && claimant.replied == observed.request,
            };
            claimant.claim(observed);
            return before;
        }
        let mut claimant = Claimant::new(observed);
        claimant.claim(observed);
        self.0.push(claimant);
        PriorClaimantState::default()
    }

    /// Evicts the least recently seen if there are more than `max`; never one of `keep`.
    pub fn evict_beyond(&mut self, max: usize, keep: [Option<MacAddr>; 3]) -> Option<Claimant> {
        if self.0.len() <= max {
            return None;
        }
        let evictable = self.0.iter().enumerate();
        let (place, _) = evictable
            .filter(|(_, claimant)| !keep.contains(&Some(claimant.mac)))
            .min_by_key(|(_, claimant)| claimant.last_seen)?;
        Some(self.0.remove(place))
    }

    /// Those that `is_back` picks take part, also where the address settled with another owner since their last claim.
    pub fn readmit(&mut self, is_back: impl Fn(&Claimant) -> bool) {
        for claimant in &mut self.0 {
            claimant.present |= is_back(claimant);
        }
    }

    /// Those that `is_left` does not pick no longer take part.
    pub fn retain_only(&mut self, is_left: impl Fn(MacAddr) -> bool) {
        self.retain_present(|claimant| is_left(claimant.mac));
    }

    /// Those that `is_present` does not pick no longer take part.
    pub fn retain_present(&mut self, is_present: impl Fn(&Claimant) -> bool) {
        for claimant in &mut self.0 {
            claimant.present &= is_present(claimant);
        }
    }

    /// Marks it as reported that this MAC's frames come from another source. `false` if it was reported before.
    pub fn mark_mismatch_reported(&mut self, mac: MacAddr) -> bool {
        self.get_mut(mac)
            .is_some_and(|claimant| !std::mem::replace(&mut claimant.mismatch_reported, true))
    }

    /// The claimant with this MAC.
    pub fn get(&self, mac: MacAddr) -> Option<&Claimant> {
        self.0.iter().find(|claimant| claimant.mac == mac)
    }

    fn get_mut(&mut self, mac: MacAddr) -> Option<&mut Claimant> {
        self.0.iter_mut().find(|claimant| claimant.mac == mac)
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Claimant> {
        self.0.iter()
    }

    /// The present owners' MACs.
    pub fn present(&self) -> impl Iterator<Item = &Claimant> {
        self.iter().filter(|claimant| claimant.present)
    }

    /// Moves times in the future to `now`, to which the clock was set back.
    pub fn forget_future(&mut self, now: Timestamp) {
        for claimant in &mut self.0 {
            claimant.first_seen = claimant.first_seen.min(now);
            claimant.since = claimant.since.min(now);
            claimant.last_seen = claimant.last_seen.min(now);
        }
    }
}
