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
    reason = "independent observations, each of which is asked for by itself"
)]
pub(super) struct Claimant {
    pub mac: MacAddr,
    /// It takes part in the present state of affairs: since the address last settled with another owner,
    /// it has claimed it.
    pub present: bool,
    /// By which operations it has ever claimed the address.
    pub mode: ClaimMode,
    /// It has sent a unicast reply without a request that was observed.
    replies_unasked: bool,
    /// It has announced the address by broadcast.
    announces: bool,
    /// The forms in which it has announced the address by broadcast since it is present.
    announcements: AnnouncementOperations,
    /// It announced it in both forms before that.
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
    /// The request that it answered last, in time.
    pub answered: Option<RequestId>,
    /// Whether it was observed to reply to an ARP probe. Some hosts reply to requests with a sender address only
    /// (Linux `proxy_arp`): that they do not reply to a probe proves nothing.
    pub replies_to_probes: bool,
    /// Whether it was observed to reply to a request with a sender address.
    pub replies_to_requests: bool,
}

/// By which operation a station claims an address.
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
    /// It took part in the present state of affairs.
    pub present: bool,
    /// It had already answered this very request.
    pub answered: bool,
}

impl Claimant {
    /// A claimant before its first claim.
    const fn new(heard: &ObservedClaim) -> Self {
        Self {
            mac: heard.mac,
            present: false,
            mode: ClaimMode::of(heard.form),
            replies_unasked: false,
            announces: false,
            announcements: AnnouncementOperations {
                by_request: false,
                by_reply: false,
            },
            announced_earlier: false,
            mismatch_reported: false,
            first_seen: heard.at,
            since: heard.at,
            last_seen: heard.at,
            claims: 0,
            answered: None,
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
    pub const fn replies_unasked(&self) -> bool {
        self.replies_unasked
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

    fn claim(&mut self, heard: &ObservedClaim) {
        let mode = ClaimMode::of(heard.form);
        if !self.present {
            self.present = true;
            self.since = heard.at;
            self.announced_earlier |= self.is_announcer();
            self.announcements = AnnouncementOperations::default();
        }
        if self.mode != mode {
            self.mode = ClaimMode::Both;
        }
        self.replies_unasked |= heard.is_unasked_reply();
        self.announces |= heard.form.is_broadcast_announcement();
        self.announcements.record(heard.form);
        self.last_seen = self.last_seen.max(heard.at);
        self.claims += 1;
        self.answered = heard.request.or(self.answered);
        self.replies_to_probes |= heard.to_probe;
        self.replies_to_requests |= heard.form.reply && !heard.form.announcement && !heard.to_probe;
    }
}

/// All of them. Inline as long as there is but one, which is nearly always.
#[derive(Clone, Debug, Default)]
pub(super) struct Claimants(SmallVec<[Claimant; 1]>);

impl Claimants {
    /// Notes a claim; says what its claimant was before it.
    pub fn record(&mut self, heard: &ObservedClaim) -> PriorClaimantState {
        if let Some(claimant) = self.get_mut(heard.mac) {
            let before = PriorClaimantState {
                known: true,
                present: claimant.present,
                answered: heard.request.is_some() && claimant.answered == heard.request,
            };
            claimant.claim(heard);
            return before;
        }
        let mut claimant = Claimant::new(heard);
        claimant.claim(heard);
        self.0.push(claimant);
        PriorClaimantState::default()
    }

    /// Forgets the least recently seen if there are more than `max`; never one of `keep`.
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

    /// Whether it is yet to be reported that this MAC's frames come from another source. It is, once.
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

    /// Those that take part in the present state of affairs.
    pub fn present(&self) -> impl Iterator<Item = &Claimant> {
        self.iter().filter(|claimant| claimant.present)
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
