//! The event filter: decides which frames are emitted as events, so that user space works in proportion to changes, not
//! to traffic, and no evidence of a conflict is hidden.
//!
//! The rules are pure functions of the values of the BPF maps. The BPF programs look up the values, call these functions
//! and emit.

use core::mem::size_of;

use bytemuck::{Pod, Zeroable};

use crate::{
    event::{ClaimObservation, claim_flags},
    wire::{ArpFrame, MacAddr, Vlan},
};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// The time after a request within which a reply is matched to it.
pub const REPLY_WINDOW_NS: u64 = SECOND_NS;

/// The settings of the event filter, which can change while the programs run. They are the only value of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FilterSettings {
    /// The interval at which an unchanged claim or ARP probe is emitted again, in nanoseconds; 0 emits all of them.
    pub refresh_ns: u64,
    /// The limit for changes of one address: for announcements, replies and duplicate replies each.
    pub change: RateLimit,
    /// The limit for new addresses, per CPU.
    pub new_address: RateLimit,
    /// The limit for ARP probes, per CPU.
    pub probe: RateLimit,
    /// The limit for bogus frames, per CPU.
    pub bogus: RateLimit,
    /// 1 if only the addresses in the watch filter are watched, else 0.
    pub filter: u64,
}

impl Default for FilterSettings {
    fn default() -> Self {
        Self {
            refresh_ns: SECOND_NS,
            change: RateLimit::per_second(10, 10),
            new_address: RateLimit::per_second(20_000, 20_000),
            probe: RateLimit::per_second(1_000, 1_000),
            bogus: RateLimit::per_second(100, 100),
            filter: 0,
        }
    }
}

/// A rate limit with a burst, as the two numbers that [`TokenBucket::take`] requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RateLimit {
    /// The time after which one token is refilled, in nanoseconds.
    pub interval_ns: u64,
    /// The tolerance of GCRA, in nanoseconds: (burst − 1) × interval.
    pub tolerance_ns: u64,
}

impl RateLimit {
    /// A limit of `rate` tokens per second and `burst` at once. Zero counts as 1.
    pub const fn per_second(rate: u32, burst: u32) -> Self {
        let interval_ns = SECOND_NS / if rate == 0 { 1 } else { rate as u64 };
        Self {
            interval_ns,
            tolerance_ns: interval_ns.saturating_mul((burst as u64).saturating_sub(1)),
        }
    }
}

/// A token bucket in one word (GCRA, ITU-T I.371): the time at which it will be full. With one word, a race between two
/// CPUs passes one frame too many at worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct TokenBucket {
    full_at_ns: u64,
}

impl TokenBucket {
    /// Takes a token; returns `false` if the bucket is empty.
    #[inline(always)]
    pub const fn take(&mut self, rate: RateLimit, now_ns: u64) -> bool {
        let full_at = if self.full_at_ns > now_ns {
            self.full_at_ns
        } else {
            now_ns
        };
        if full_at - now_ns > rate.tolerance_ns {
            return false;
        }
        self.full_at_ns = full_at.wrapping_add(rate.interval_ns);
        true
    }
}

/// The token buckets for all frames of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CpuBuckets {
    /// For claims on new addresses.
    pub new_address: TokenBucket,
    /// For ARP probes.
    pub probe: TokenBucket,
    /// For bogus frames.
    pub bogus: TokenBucket,
    /// For log messages of the BPF programs.
    pub log: TokenBucket,
}

/// The key of the state of an address: interface, VLAN and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKey {
    /// Index of the interface.
    pub ifindex: u32,
    /// The VLAN of the frame.
    pub vlan: Vlan,
    /// The claimed or requested address, in network order.
    pub address: [u8; 4],
}

const _: () = assert!(size_of::<AddressKey>() == 12);

/// The state of the claims on one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ClaimState {
    /// The time of the last emitted claim; 0 if none was emitted because the ring was full.
    emitted_ns: u64,
    /// The MAC of the last *emitted* claim, in the low 48 bits. If the filter compared with the last *observed* claim,
    /// strict alternation of two owners would synchronize with the token bucket, and one owner would never be emitted.
    emitted_mac: u64,
    /// The last observed claim, emitted or not.
    pub last_claim: ClaimObservation,
    /// The last reply to a known request, emitted or not. Separate from the last claim, so that announcements between
    /// two replies to one request do not hide the first reply.
    pub last_reply: ClaimObservation,
    /// The token buckets for changes.
    pub buckets: ChangeBuckets,
    /// The last request for the address. It is part of this state, so that a reply is matched without another lookup.
    /// Requests for addresses without claims are in a map of their own.
    pub request: RequestState,
}

/// The token buckets for changes of one address, one of each [`ChangeClass`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ChangeBuckets {
    /// For announcements and other claims that reply to no known request.
    pub announcement: TokenBucket,
    /// For replies to a known request.
    pub reply: TokenBucket,
    /// For replies to a request that another MAC has replied to.
    pub duplicate_reply: TokenBucket,
}

impl ChangeBuckets {
    /// The bucket for changes of this class.
    pub const fn for_class(&mut self, class: ChangeClass) -> &mut TokenBucket {
        match class {
            ChangeClass::Announcement => &mut self.announcement,
            ChangeClass::Reply => &mut self.reply,
            ChangeClass::DuplicateReply => &mut self.duplicate_reply,
        }
    }
}

/// A class of changes with its own token bucket.
///
/// A flood of announcements must not hide the owners that reply. The second owner's reply to a request has its own bucket,
/// because two owners that reply at the rate of one bucket synchronize with it, and only one of them would be emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeClass {
    /// An announcement or another claim that replies to no known request.
    Announcement,
    /// A reply to a known request.
    Reply,
    /// A reply to a request that another MAC has replied to.
    DuplicateReply,
}

/// The first step of filtering a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterStep {
    /// The decision, which takes no token.
    Decided(FilterDecision),
    /// A change, which is emitted if the bucket of its class has a token.
    NeedsToken(ChangeClass),
}

/// The decision of the event filter for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterDecision {
    /// Emit a change event.
    Emit,
    /// Emit a refresh event: nothing changed, and the refresh interval has passed.
    Refresh,
    /// Emit nothing: nothing changed.
    Unchanged,
    /// Emit nothing: the token bucket is empty.
    RateLimited,
}

impl FilterDecision {
    /// The decision on a change: emitted if it got a token.
    #[inline(always)]
    pub const fn of_change(has_token: bool) -> Self {
        if has_token {
            Self::Emit
        } else {
            Self::RateLimited
        }
    }
}

impl ClaimState {
    /// The state of an address without claims and requests.
    pub const EMPTY: Self = Self {
        emitted_ns: 0,
        emitted_mac: 0,
        last_claim: ClaimObservation::NONE,
        last_reply: ClaimObservation::NONE,
        buckets: ChangeBuckets {
            announcement: TokenBucket { full_at_ns: 0 },
            reply: TokenBucket { full_at_ns: 0 },
            duplicate_reply: TokenBucket { full_at_ns: 0 },
        },
        request: RequestState::NONE,
    };

    /// The state after the first claim on an address, with the requests for the address so far.
    pub const fn new(claim: ClaimObservation, request: RequestState) -> Self {
        let mut state = Self {
            request,
            ..Self::EMPTY
        };
        state.record(claim, FilterDecision::Emit);
        state
    }

    /// The previous claim for the event of the next claim: the reply of another MAC to the same request, else the last
    /// observed claim. To be called before [`Self::filter`].
    pub const fn previous(&self, next: &ClaimObservation) -> ClaimObservation {
        if self.is_duplicate_reply(next) {
            self.last_reply
        } else {
            self.last_claim
        }
    }

    /// Whether a claim replies to a request that another MAC has replied to.
    #[inline(always)]
    pub const fn is_duplicate_reply(&self, next: &ClaimObservation) -> bool {
        next.request_ns != 0
            && next.request_ns == self.last_reply.request_ns
            && next.mac.to_u64() != self.last_reply.mac.to_u64()
    }

    /// Decides whether the next claim is emitted, and records the claim. If it replies to an ARP probe
    /// (`replies_to_probe`), it is emitted even if nothing changed.
    pub fn filter(
        &mut self,
        next: ClaimObservation,
        replies_to_probe: bool,
        settings: &FilterSettings,
    ) -> FilterDecision {
        let decision = match self.filter_step(&next, replies_to_probe, settings) {
            FilterStep::Decided(decision) => decision,
            FilterStep::NeedsToken(class) => FilterDecision::of_change(
                self.buckets
                    .for_class(class)
                    .take(settings.change, next.ktime_ns),
            ),
        };
        self.record(next, decision);
        decision
    }

    /// The first step of [`Self::filter`]. The BPF programs call the steps one by one, because a copy of the complete state
    /// does not fit on their stack.
    #[inline(always)]
    pub const fn filter_step(
        &self,
        next: &ClaimObservation,
        replies_to_probe: bool,
        settings: &FilterSettings,
    ) -> FilterStep {
        let refresh_due = next.ktime_ns.wrapping_sub(self.emitted_ns) >= settings.refresh_ns;
        let changed = self.emitted_mac != next.mac.to_u64();
        let is_duplicate = self.is_duplicate_reply(next);
        // Two replies by one virtual MAC to one request are evidence of two VRRP masters.
        let repeated =
            !is_duplicate && next.request_ns != 0 && next.request_ns == self.last_reply.request_ns;
        if settings.refresh_ns == 0 {
            FilterStep::Decided(FilterDecision::Emit)
        } else if refresh_due && !changed {
            FilterStep::Decided(if repeated || replies_to_probe {
                FilterDecision::Emit
            } else {
                FilterDecision::Refresh
            })
        } else if !(changed || repeated || replies_to_probe) {
            FilterStep::Decided(FilterDecision::Unchanged)
        } else if is_duplicate {
            FilterStep::NeedsToken(ChangeClass::DuplicateReply)
        } else if next.request_ns != 0 {
            FilterStep::NeedsToken(ChangeClass::Reply)
        } else {
            FilterStep::NeedsToken(ChangeClass::Announcement)
        }
    }

    /// The last step of [`Self::filter`]: records the next claim and the decision.
    #[inline(always)]
    pub const fn record(&mut self, next: ClaimObservation, decision: FilterDecision) {
        let unreported = match decision {
            FilterDecision::Unchanged => self.last_claim.flags & claim_flags::RATE_LIMITED,
            FilterDecision::RateLimited => claim_flags::RATE_LIMITED,
            FilterDecision::Emit | FilterDecision::Refresh => 0,
        };
        self.last_claim = next;
        self.last_claim.flags |= unreported;
        if next.request_ns != 0 {
            self.last_reply = next;
        }
        self.last_reply.flags = self.last_reply.flags & !claim_flags::RATE_LIMITED | unreported;
    }

    /// Records that the last filtered claim was emitted. If the ring was full, this is not called, and the next claim is
    /// a change again: a full ring delays evidence and does not hide it.
    #[inline(always)]
    pub const fn record_emitted(&mut self, claim: ClaimObservation) {
        self.emitted_ns = claim.ktime_ns;
        self.emitted_mac = claim.mac.to_u64();
    }
}

/// The state of the requests for one address; all zero if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RequestState {
    /// The time of the last request, ARP probes included.
    request_ns: u64,
    /// The time of the last emitted ARP probe.
    probe_emitted_ns: u64,
    /// The MAC that sent the last request.
    requester: MacAddr,
    /// 1 if the last request was an ARP probe, else 0.
    is_probe: u8,
    /// Zero.
    padding: u8,
    /// The MAC that sent the last emitted ARP probe.
    prober: MacAddr,
    /// Zero.
    padding_end: [u8; 2],
}

impl RequestState {
    /// No request.
    pub const NONE: Self = Self {
        request_ns: 0,
        probe_emitted_ns: 0,
        requester: MacAddr([0; 6]),
        is_probe: 0,
        padding: 0,
        prober: MacAddr([0; 6]),
        padding_end: [0; 2],
    };

    /// The state after the first request for an address.
    #[inline(always)]
    pub fn new(request: &ArpFrame, now_ns: u64) -> Self {
        let mut state = Self::zeroed();
        state.record(request, now_ns);
        state
    }

    /// Records a request.
    #[inline(always)]
    pub fn record(&mut self, request: &ArpFrame, now_ns: u64) {
        self.requester = request.sha;
        self.is_probe = u8::from(request.spa == [0; 4]);
        self.request_ns = now_ns;
    }

    /// Matches a reply to the last request. Returns the request's time, which identifies it, and whether it was an ARP
    /// probe.
    ///
    /// A reply matches if it is addressed to the sender of the request, is observed within [`REPLY_WINDOW_NS`], and is no
    /// announcement: a reply to an announcement is part of a handover.
    #[inline(always)]
    pub fn match_reply(&self, reply: &ArpFrame, now_ns: u64) -> Option<(u64, bool)> {
        let in_time = now_ns.wrapping_sub(self.request_ns) <= REPLY_WINDOW_NS;
        let is_reply = reply.oper == ArpFrame::REPLY
            && reply.tha == self.requester
            && !reply.is_announcement()
            && self.request_ns != 0;
        (in_time && is_reply).then_some((self.request_ns, self.is_probe != 0))
    }

    /// Decides whether an ARP probe is emitted: if its sender differs from the last one, or the refresh interval has passed.
    #[inline(always)]
    pub fn filter_probe(
        &mut self,
        probe: &ArpFrame,
        now_ns: u64,
        bucket: &mut TokenBucket,
        settings: &FilterSettings,
    ) -> FilterDecision {
        if settings.refresh_ns == 0 {
            return FilterDecision::Emit;
        }
        let recent = now_ns.wrapping_sub(self.probe_emitted_ns) < settings.refresh_ns;
        if recent && self.prober == probe.sha {
            return FilterDecision::Unchanged;
        }
        if bucket.take(settings.probe, now_ns) {
            FilterDecision::Emit
        } else {
            FilterDecision::RateLimited
        }
    }

    /// Records that an ARP probe was emitted.
    #[inline(always)]
    pub const fn record_probe_emitted(&mut self, probe: &ArpFrame, now_ns: u64) {
        self.probe_emitted_ns = now_ns;
        self.prober = probe.sha;
    }
}

/// Whether the frame is a request that resolves or probes an address: a request that is no announcement.
#[inline(always)]
pub const fn is_resolution_request(frame: &ArpFrame) -> bool {
    frame.oper == ArpFrame::REQUEST && !frame.is_announcement()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const MS: u64 = SECOND_NS / 1000;

    fn observed_claim(mac: MacAddr, ktime_ns: u64, request_ns: u64) -> ClaimObservation {
        ClaimObservation {
            ktime_ns,
            request_ns,
            mac,
            flags: claim_flags::REPLY,
            padding: 0,
        }
    }

    /// Filters claims on a new address as the BPF programs do; returns the emitted claims, each with its previous claim.
    fn run(
        claims: impl IntoIterator<Item = ClaimObservation>,
    ) -> Vec<(ClaimObservation, ClaimObservation)> {
        let settings = FilterSettings::default();
        let mut state: Option<ClaimState> = None;
        let mut out = Vec::new();
        for claim in claims {
            let (previous, decision) = match &mut state {
                None => {
                    state = Some(ClaimState::new(claim, RequestState::default()));
                    (ClaimObservation::default(), FilterDecision::Emit)
                }
                Some(state) => {
                    let previous = state.previous(&claim);
                    (previous, state.filter(claim, false, &settings))
                }
            };
            if matches!(decision, FilterDecision::Emit | FilterDecision::Refresh) {
                state.as_mut().unwrap().record_emitted(claim);
                out.push((previous, claim));
            }
        }
        out
    }

    #[test]
    fn a_bucket_passes_its_burst_and_then_its_rate() {
        let rate = RateLimit::per_second(10, 10);
        let mut bucket = TokenBucket::default();
        let now = 77 * SECOND_NS;
        assert_eq!((0..100).filter(|_| bucket.take(rate, now)).count(), 10);
        assert!(!bucket.take(rate, now + 99 * MS));
        assert!(bucket.take(rate, now + 100 * MS));
        let later = now + 100 * SECOND_NS;
        assert_eq!((0..100).filter(|_| bucket.take(rate, later)).count(), 10);
    }

    #[test]
    fn a_bucket_survives_time_going_backwards() {
        let rate = RateLimit::per_second(10, 1);
        let mut bucket = TokenBucket::default();
        assert!(bucket.take(rate, u64::MAX));
        bucket.take(rate, 0);
    }

    #[test]
    fn an_unchanged_owner_is_emitted_once_per_refresh() {
        let out = run((0..=50).map(|tick| observed_claim(A, SECOND_NS + tick * 100 * MS, 0)));
        let times: Vec<_> = out
            .iter()
            .map(|(_, claim)| claim.ktime_ns / (100 * MS))
            .collect();
        assert_eq!(times, [10, 20, 30, 40, 50, 60]);
    }

    #[test]
    fn strict_alternation_above_the_rate_limit_shows_both_owners_to_the_end() {
        let out = run((0..1200).map(|tick| {
            observed_claim(
                if tick % 2 == 0 { A } else { B },
                SECOND_NS + tick * 50 * MS,
                0,
            )
        }));
        for second in 2..=60 {
            for owner in [A, B] {
                let emitted = out
                    .iter()
                    .any(|(_, claim)| claim.mac == owner && claim.ktime_ns / SECOND_NS == second);
                assert!(emitted, "{owner} in second {second}");
            }
        }
        assert!(
            out.len() <= 60 * 12,
            "bounded by the rate limit: {}",
            out.len()
        );
    }

    #[test]
    fn a_change_carries_the_claim_that_was_suppressed_before_it() {
        let request = 5 * SECOND_NS;
        let out = run([
            observed_claim(A, request - 300 * MS, 0),
            observed_claim(A, request + MS, request),
            observed_claim(B, request + 2 * MS, request),
        ]);
        let (previous, claim) = out.last().unwrap();
        assert_eq!((previous.mac, previous.request_ns), (A, request));
        assert_eq!((claim.mac, claim.request_ns), (B, request));
    }

    #[test]
    fn a_duplicate_reply_after_a_minute_without_claims_is_emitted() {
        let request = 90 * SECOND_NS;
        let out = run([
            observed_claim(A, SECOND_NS, 0),
            observed_claim(A, request + MS, request),
            observed_claim(B, request + 2 * MS, request),
        ]);
        assert_eq!(out.len(), 3);
    }

    /// Twenty announcements by random MACs and ten requests a second, each with replies by A and B.
    fn flood(seconds: u64) -> Vec<ClaimObservation> {
        let mut claims = Vec::new();
        for tick in 0..seconds * 20 {
            let at = SECOND_NS + tick * 50 * MS;
            if tick % 2 == 0 {
                claims.push(observed_claim(A, at + MS, at));
            }
            let [.., high, low] = tick.to_be_bytes();
            let random = MacAddr([2, 1, 0, 0, high, low]);
            claims.push(observed_claim(random, at + MS + 20_000, 0));
            if tick % 2 == 0 {
                claims.push(observed_claim(B, at + MS + 50_000, at));
            }
        }
        claims
    }

    #[test]
    fn a_flood_of_announcements_hides_no_reply_and_no_duplicate_reply() {
        let out = run(flood(60));
        for second in 1..=60 {
            let duplicates = out.iter().filter(|(previous, claim)| {
                claim.ktime_ns / SECOND_NS == second
                    && (previous.mac, claim.mac) == (A, B)
                    && previous.request_ns == claim.request_ns
            });
            assert!(duplicates.count() >= 9, "second {second}");
        }
        assert!(out.len() <= 60 * 31 + 30, "bounded: {}", out.len());
    }

    #[test]
    fn an_event_is_flagged_if_claims_before_it_were_rate_limited() {
        let is_limited = |(previous, _): &(ClaimObservation, ClaimObservation)| {
            previous.has_flags(claim_flags::RATE_LIMITED)
        };
        assert!(
            run(flood(60))
                .iter()
                .filter(|event| is_limited(event))
                .count()
                > 100
        );
        // Ten changes a second are within the limit.
        let alternating = (0..600).map(|tick| {
            let mac = if tick % 2 == 0 { A } else { B };
            observed_claim(mac, SECOND_NS + tick * 100 * MS, 0)
        });
        assert!(!run(alternating).iter().any(is_limited));
        // An unchanged claim in between does not clear the flag.
        let (mut state, settings) = (
            ClaimState::new(observed_claim(A, SECOND_NS, 0), RequestState::default()),
            FilterSettings::default(),
        );
        state.record_emitted(observed_claim(A, SECOND_NS, 0));
        let limited = (1..=11).filter(|tick| {
            let claim = observed_claim(B, SECOND_NS + tick * 1_000, 0);
            state.filter(claim, false, &settings) == FilterDecision::RateLimited
        });
        assert_eq!(limited.count(), 1);
        let unchanged = observed_claim(A, SECOND_NS + MS, 0);
        assert_eq!(
            state.filter(unchanged, false, &settings),
            FilterDecision::Unchanged
        );
        assert!(
            state
                .previous(&unchanged)
                .has_flags(claim_flags::RATE_LIMITED)
        );
    }

    #[test]
    fn a_second_reply_by_one_mac_is_emitted_as_a_repeat() {
        let request = 5 * SECOND_NS;
        let out = run([
            observed_claim(A, request + MS, request),
            observed_claim(A, request + 2 * MS, request),
            observed_claim(A, request + 3 * MS, 0),
        ]);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn after_a_full_ring_the_next_claim_is_a_change_again() {
        let settings = FilterSettings::default();
        let mut state = ClaimState::new(observed_claim(A, SECOND_NS, 0), RequestState::default());
        state.record_emitted(observed_claim(A, SECOND_NS, 0));
        assert_eq!(
            state.filter(observed_claim(B, SECOND_NS + MS, 0), false, &settings),
            FilterDecision::Emit
        );
        // The ring was full: `emitted` is not called.
        assert_eq!(
            state.filter(observed_claim(B, SECOND_NS + 2 * MS, 0), false, &settings),
            FilterDecision::Emit
        );
    }

    #[test]
    fn an_unchanged_claim_is_a_refresh_unless_it_is_evidence() {
        let settings = FilterSettings::default();
        let filter = |claim: ClaimObservation, replies_to_probe| {
            let before = observed_claim(A, SECOND_NS, 7);
            let mut state = ClaimState::new(before, RequestState::default());
            state.record_emitted(before);
            state.filter(claim, replies_to_probe, &settings)
        };
        let due = SECOND_NS + settings.refresh_ns;
        assert_eq!(
            filter(observed_claim(A, due - 1, 0), false),
            FilterDecision::Unchanged
        );
        assert_eq!(
            filter(observed_claim(A, due, 0), false),
            FilterDecision::Refresh
        );
        // Another reply to the same request, a reply to an ARP probe, another owner.
        assert_eq!(
            filter(observed_claim(A, due, 7), false),
            FilterDecision::Emit
        );
        assert_eq!(
            filter(observed_claim(A, due, 0), true),
            FilterDecision::Emit
        );
        assert_eq!(
            filter(observed_claim(B, due, 0), false),
            FilterDecision::Emit
        );
    }

    #[test]
    fn a_refresh_of_zero_emits_everything() {
        let settings = FilterSettings {
            refresh_ns: 0,
            ..FilterSettings::default()
        };
        let mut state = ClaimState::new(observed_claim(A, SECOND_NS, 0), RequestState::default());
        for tick in 1..1000 {
            let next = observed_claim(if tick % 2 == 0 { A } else { B }, SECOND_NS + tick, 0);
            assert_eq!(state.filter(next, false, &settings), FilterDecision::Emit);
            state.record_emitted(next);
        }
    }

    fn request(requester: MacAddr, spa: [u8; 4]) -> ArpFrame {
        ArpFrame {
            oper: 1,
            sha: requester,
            spa,
            tpa: [192, 0, 2, 9],
            ..ArpFrame::default()
        }
    }

    #[test]
    fn a_reply_matches_the_request_of_the_host_that_it_is_addressed_to() {
        let state = RequestState::new(&request(A, [192, 0, 2, 1]), 42);
        let reply = ArpFrame {
            oper: 2,
            sha: B,
            spa: [192, 0, 2, 9],
            tha: A,
            tpa: [192, 0, 2, 1],
            ..ArpFrame::default()
        };
        assert_eq!(state.match_reply(&reply, 43), Some((42, false)));
        assert_eq!(state.match_reply(&reply, 43 + SECOND_NS), None, "too late");
        assert_eq!(state.match_reply(&ArpFrame { tha: B, ..reply }, 43), None);
        let announcement = ArpFrame {
            tpa: reply.spa,
            ..reply
        };
        assert_eq!(
            state.match_reply(&announcement, 43),
            None,
            "a reply to an announcement"
        );
        let probed_state = RequestState::new(&request(A, [0; 4]), 43);
        assert_eq!(
            probed_state.match_reply(
                &ArpFrame {
                    tpa: [0; 4],
                    ..reply
                },
                44
            ),
            Some((43, true))
        );
    }

    #[test]
    fn without_a_request_no_reply_matches() {
        let reply = ArpFrame {
            oper: 2,
            spa: [192, 0, 2, 9],
            tpa: [192, 0, 2, 1],
            ..ArpFrame::default()
        };
        // Shortly after boot, and to a target without a MAC.
        assert_eq!(RequestState::default().match_reply(&reply, 7), None);
    }

    #[test]
    fn replies_to_an_arp_probe_are_emitted_up_to_the_rate_limit() {
        let settings = FilterSettings::default();
        let mut state = ClaimState::new(observed_claim(A, SECOND_NS, 0), RequestState::default());
        state.record_emitted(observed_claim(A, SECOND_NS, 0));
        let decisions: Vec<_> = (1..=20)
            .map(|tick| state.filter(observed_claim(A, SECOND_NS + tick, tick), true, &settings))
            .collect();
        assert_eq!(
            decisions
                .iter()
                .filter(|&&decision| decision == FilterDecision::Emit)
                .count(),
            10
        );
    }

    #[test]
    fn a_repeated_probe_is_emitted_once_per_refresh_and_another_hosts_at_once() {
        let settings = FilterSettings::default();
        let mut bucket = TokenBucket::default();
        let (from_a, from_b) = (request(A, [0; 4]), request(B, [0; 4]));
        let mut state = RequestState::new(&from_a, SECOND_NS);
        let mut filter = |probe: &ArpFrame, now| {
            let decision = state.filter_probe(probe, now, &mut bucket, &settings);
            if decision == FilterDecision::Emit {
                state.record_probe_emitted(probe, now);
            }
            decision
        };
        assert_eq!(filter(&from_a, SECOND_NS), FilterDecision::Emit);
        assert_eq!(
            filter(&from_a, SECOND_NS + 999 * MS),
            FilterDecision::Unchanged
        );
        assert_eq!(filter(&from_b, SECOND_NS + 999 * MS), FilterDecision::Emit);
        assert_eq!(filter(&from_b, 2 * SECOND_NS), FilterDecision::Unchanged);
        assert_eq!(
            filter(&from_b, 2 * SECOND_NS + 999 * MS),
            FilterDecision::Emit
        );
    }

    #[test]
    fn announcements_and_replies_are_no_resolution_requests() {
        assert!(is_resolution_request(&request(A, [192, 0, 2, 1])));
        assert!(is_resolution_request(&request(A, [0; 4])));
        assert!(!is_resolution_request(&request(A, [192, 0, 2, 9])));
        assert!(!is_resolution_request(&ArpFrame {
            oper: 2,
            ..request(A, [192, 0, 2, 1])
        }));
    }
}
