//! Which frames become events: the rules that make user space work in proportion to changes, not to
//! traffic, without hiding evidence.
//!
//! The rules are pure functions over the values of the kernel's maps. The eBPF programs look the values
//! up, ask here, and act.

use core::mem::size_of;

use bytemuck::{Pod, Zeroable};

use crate::{
    event::{Sighting, form},
    wire::{ArpFrame, MacAddr, Vlan},
};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// How long after a request a reply may still be an answer to it.
pub const ANSWER_WINDOW_NS: u64 = SECOND_NS;

/// What can be set while the programs run. One value, in a map of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// A claim that says nothing new is emitted again after this time; 0 emits every claim and every
    /// ARP probe.
    pub refresh_ns: u64,
    /// Changes of one address, for announcements, replies and duplicate replies each.
    pub change: Rate,
    /// Addresses not seen before, per CPU.
    pub new_address: Rate,
    /// ARP probes, per CPU.
    pub probe: Rate,
    /// Bogus frames, per CPU.
    pub bogus: Rate,
    /// 1 if only the addresses in the filter are watched, else 0.
    pub filter: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh_ns: SECOND_NS,
            change: Rate::per_second(10, 10),
            new_address: Rate::per_second(20_000, 20_000),
            probe: Rate::per_second(1_000, 1_000),
            bogus: Rate::per_second(100, 100),
            filter: 0,
        }
    }
}

/// A rate with a burst, as the two numbers that [`Bucket::take`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds that one token takes to come back.
    pub interval_ns: u64,
    /// How far ahead of time tokens may be taken: (burst − 1) × interval.
    pub ahead_ns: u64,
}

impl Rate {
    /// `rate` a second, and up to `burst` at once; both at least 1.
    pub const fn per_second(rate: u32, burst: u32) -> Self {
        let interval_ns = SECOND_NS / if rate == 0 { 1 } else { rate as u64 };
        Self {
            interval_ns,
            ahead_ns: interval_ns.saturating_mul((burst as u64).saturating_sub(1)),
        }
    }
}

/// A token bucket in one word (GCRA, ITU-T I.371): the time at which it would be full again. One word,
/// so that two CPUs can at worst let one frame too many through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes one token, if there is one.
    #[inline(always)]
    pub const fn take(&mut self, rate: Rate, now_ns: u64) -> bool {
        let full_at = if self.full_at_ns > now_ns {
            self.full_at_ns
        } else {
            now_ns
        };
        if full_at - now_ns > rate.ahead_ns {
            return false;
        }
        self.full_at_ns = full_at.wrapping_add(rate.interval_ns);
        true
    }
}

/// The buckets that the frames of one CPU share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CpuBuckets {
    /// Addresses not seen before.
    pub new_address: Bucket,
    /// ARP probes.
    pub probe: Bucket,
    /// Bogus frames.
    pub bogus: Bucket,
    /// Lines in the log of the kernel side.
    pub log: Bucket,
}

/// What a claim or a request is remembered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKey {
    /// Index of the interface.
    pub ifindex: u32,
    /// VLAN of the frame.
    pub vlan: Vlan,
    /// The address claimed or asked for, network order.
    pub address: [u8; 4],
}

const _: () = assert!(size_of::<AddressKey>() == 12);

/// What is remembered of the claims on one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ClaimState {
    /// When a claim was last emitted; 0 if the last attempt found no room in the ring.
    emitted_ns: u64,
    /// The MAC last *emitted*, in the low 48 bits. Were the criterion the MAC last *seen*, strict
    /// alternation would lock with the bucket and one owner would vanish.
    emitted_mac: u64,
    /// The last claim seen, emitted or not.
    pub seen: Sighting,
    /// The last reply to a known request, emitted or not. Kept beside the last claim, so that announcements between two
    /// replies to one request do not hide the first.
    pub replied: Sighting,
    /// Budgets for changes.
    pub buckets: ChangeBuckets,
    /// The last request for the address: kept here and not in a map of its own, so that a reply is tied to
    /// its request without another lookup. Requests for addresses that nobody has claimed have that map.
    pub asked: AskedState,
}

/// The token buckets for changes of one address, one of each [`ChangeClass`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ChangeBuckets {
    /// Announcements, and claims in answer to no known request.
    pub announcement: Bucket,
    /// Replies to a known request.
    pub reply: Bucket,
    /// Replies to a request that another MAC has replied to.
    pub duplicate_reply: Bucket,
}

impl ChangeBuckets {
    /// The bucket of a class.
    pub const fn of(&mut self, class: ChangeClass) -> &mut Bucket {
        match class {
            ChangeClass::Announcement => &mut self.announcement,
            ChangeClass::Reply => &mut self.reply,
            ChangeClass::DuplicateReply => &mut self.duplicate_reply,
        }
    }
}

/// A class of changes with a budget of its own: a flood of announcements must not hide the owners that reply; and replies
/// of two owners at the rate of one bucket would lock with it, so that one owner vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeClass {
    /// An announcement, or a claim in answer to no known request.
    Announcement,
    /// A reply to a known request.
    Reply,
    /// A reply to a request that another MAC has replied to.
    DuplicateReply,
}

/// The first step of filtering a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterStep {
    /// The result, which takes no token.
    Decided(Verdict),
    /// A change, which is emitted if it gets a token of its class.
    NeedsToken(ChangeClass),
}

/// What the rules say of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Tell user space at once.
    Emit,
    /// Tell user space when it has the time: the same as before, once again.
    Refresh,
    /// Nothing new.
    Unchanged,
    /// Something new, but too often.
    RateLimited,
}

impl Verdict {
    /// The verdict on a change, which may have got a token.
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
    /// The state of an address that was neither claimed nor asked for.
    pub const EMPTY: Self = Self {
        emitted_ns: 0,
        emitted_mac: 0,
        seen: Sighting::NONE,
        replied: Sighting::NONE,
        buckets: ChangeBuckets {
            announcement: Bucket { full_at_ns: 0 },
            reply: Bucket { full_at_ns: 0 },
            duplicate_reply: Bucket { full_at_ns: 0 },
        },
        asked: AskedState::NONE,
    };

    /// The state of an address after its first claim, and that was asked for like this.
    pub const fn new(sighting: Sighting, asked: AskedState) -> Self {
        let mut state = Self {
            asked,
            ..Self::EMPTY
        };
        state.record(sighting, Verdict::Emit);
        state
    }

    /// The claim that the event of the next claim carries: the reply of another MAC to the same request, else the last
    /// claim seen.
    pub const fn previous(&self, next: &Sighting) -> Sighting {
        if self.is_duplicate_reply(next) {
            self.replied
        } else {
            self.seen
        }
    }

    /// Whether a claim replies to a request that another MAC has replied to.
    #[inline(always)]
    pub const fn is_duplicate_reply(&self, next: &Sighting) -> bool {
        next.request_ns != 0
            && next.request_ns == self.replied.request_ns
            && next.mac.to_u64() != self.replied.mac.to_u64()
    }

    /// Judges the next claim and records it. [`Self::previous`] is called before. `answers_probe`: every reply to an
    /// ARP probe is of interest, also from a known owner.
    pub fn judge(&mut self, next: Sighting, answers_probe: bool, settings: &Settings) -> Verdict {
        let verdict = match self.filter_step(&next, answers_probe, settings) {
            FilterStep::Decided(verdict) => verdict,
            FilterStep::NeedsToken(class) => {
                Verdict::of_change(self.buckets.of(class).take(settings.change, next.ktime_ns))
            }
        };
        self.record(next, verdict);
        verdict
    }

    /// The first step of [`Self::judge`]. The eBPF programs take its steps one by one, because a copy of the whole state
    /// has no room on their stack.
    #[inline(always)]
    pub const fn filter_step(
        &self,
        next: &Sighting,
        answers_probe: bool,
        settings: &Settings,
    ) -> FilterStep {
        let refresh_due = next.ktime_ns.wrapping_sub(self.emitted_ns) >= settings.refresh_ns;
        let changed = self.emitted_mac != next.mac.to_u64();
        let is_duplicate = self.is_duplicate_reply(next);
        // Two answers by one MAC to one request: of a virtual MAC that is a sign of two masters.
        let repeated =
            !is_duplicate && next.request_ns != 0 && next.request_ns == self.replied.request_ns;
        if settings.refresh_ns == 0 {
            FilterStep::Decided(Verdict::Emit)
        } else if refresh_due && !changed {
            FilterStep::Decided(if repeated || answers_probe {
                Verdict::Emit
            } else {
                Verdict::Refresh
            })
        } else if !(changed || repeated || answers_probe) {
            FilterStep::Decided(Verdict::Unchanged)
        } else if is_duplicate {
            FilterStep::NeedsToken(ChangeClass::DuplicateReply)
        } else if next.request_ns != 0 {
            FilterStep::NeedsToken(ChangeClass::Reply)
        } else {
            FilterStep::NeedsToken(ChangeClass::Announcement)
        }
    }

    /// The last step of [`Self::judge`]: records the next claim and the result.
    #[inline(always)]
    pub const fn record(&mut self, next: Sighting, verdict: Verdict) {
        let unreported = match verdict {
            Verdict::Unchanged => self.seen.form & form::RATE_LIMITED,
            Verdict::RateLimited => form::RATE_LIMITED,
            Verdict::Emit | Verdict::Refresh => 0,
        };
        self.seen = next;
        self.seen.form |= unreported;
        if next.request_ns != 0 {
            self.replied = next;
        }
        self.replied.form = self.replied.form & !form::RATE_LIMITED | unreported;
    }

    /// Remembers that the claim last judged went out. Where the ring had no room this is not called, and
    /// the next claim is a change again: a full ring delays evidence, it does not hide it.
    #[inline(always)]
    pub const fn emitted(&mut self, sighting: Sighting) {
        self.emitted_ns = sighting.ktime_ns;
        self.emitted_mac = sighting.mac.to_u64();
    }
}

/// What is remembered of the requests for one address; all zero if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AskedState {
    /// When somebody asked last.
    request_ns: u64,
    /// When an ARP probe for the address was last emitted.
    probe_emitted_ns: u64,
    /// Who asked last.
    asker: MacAddr,
    /// 1 if the last request was an ARP probe, else 0.
    probing: u8,
    /// Zero.
    padding: u8,
    /// Who sent the ARP probe that was last emitted.
    prober: MacAddr,
    /// Zero.
    padding_end: [u8; 2],
}

impl AskedState {
    /// No request.
    pub const NONE: Self = Self {
        request_ns: 0,
        probe_emitted_ns: 0,
        asker: MacAddr([0; 6]),
        probing: 0,
        padding: 0,
        prober: MacAddr([0; 6]),
        padding_end: [0; 2],
    };

    /// The state after the first request for an address.
    #[inline(always)]
    pub fn new(request: &ArpFrame, now_ns: u64) -> Self {
        let mut state = Self::zeroed();
        state.ask(request, now_ns);
        state
    }

    /// Remembers a request.
    #[inline(always)]
    pub fn ask(&mut self, request: &ArpFrame, now_ns: u64) {
        self.asker = request.sha;
        self.probing = u8::from(request.spa == [0; 4]);
        self.request_ns = now_ns;
    }

    /// The request that `reply` answers (its time, which identifies it, and whether it was an ARP probe),
    /// if that request is known. A reply is tied to a request only when it is addressed to who asked
    /// last, comes within [`ANSWER_WINDOW_NS`], and is no announcement: the answer to an announcement is
    /// part of a handover.
    #[inline(always)]
    pub fn answered_by(&self, reply: &ArpFrame, now_ns: u64) -> Option<(u64, bool)> {
        let in_time = now_ns.wrapping_sub(self.request_ns) <= ANSWER_WINDOW_NS;
        let is_answer = reply.oper == ArpFrame::REPLY
            && reply.tha == self.asker
            && !reply.is_announcement()
            && self.request_ns != 0;
        (in_time && is_answer).then_some((self.request_ns, self.probing != 0))
    }

    /// Judges an ARP probe: the same question by the same station is news once per refresh.
    #[inline(always)]
    pub fn judge_probe(
        &mut self,
        probe: &ArpFrame,
        now_ns: u64,
        bucket: &mut Bucket,
        settings: &Settings,
    ) -> Verdict {
        if settings.refresh_ns == 0 {
            return Verdict::Emit;
        }
        let recent = now_ns.wrapping_sub(self.probe_emitted_ns) < settings.refresh_ns;
        if recent && self.prober == probe.sha {
            return Verdict::Unchanged;
        }
        if bucket.take(settings.probe, now_ns) {
            Verdict::Emit
        } else {
            Verdict::RateLimited
        }
    }

    /// Remembers that an ARP probe went out.
    #[inline(always)]
    pub const fn probe_emitted(&mut self, probe: &ArpFrame, now_ns: u64) {
        self.probe_emitted_ns = now_ns;
        self.prober = probe.sha;
    }
}

/// Whether the frame asks for an address that its sender does not claim: what [`AskedState`] records.
#[inline(always)]
pub const fn is_question(frame: &ArpFrame) -> bool {
    frame.oper == ArpFrame::REQUEST && !frame.is_announcement()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const MS: u64 = SECOND_NS / 1000;

    fn sighting(mac: MacAddr, ktime_ns: u64, request_ns: u64) -> Sighting {
        Sighting {
            ktime_ns,
            request_ns,
            mac,
            form: form::REPLY,
            padding: 0,
        }
    }

    /// Feeds claims to a fresh address as the kernel side does; returns what went out.
    fn run(claims: impl IntoIterator<Item = Sighting>) -> Vec<(Sighting, Sighting)> {
        let settings = Settings::default();
        let mut state: Option<ClaimState> = None;
        let mut out = Vec::new();
        for claim in claims {
            let (previous, verdict) = match &mut state {
                None => {
                    state = Some(ClaimState::new(claim, AskedState::default()));
                    (Sighting::default(), Verdict::Emit)
                }
                Some(state) => {
                    let previous = state.previous(&claim);
                    (previous, state.judge(claim, false, &settings))
                }
            };
            if matches!(verdict, Verdict::Emit | Verdict::Refresh) {
                state.as_mut().unwrap().emitted(claim);
                out.push((previous, claim));
            }
        }
        out
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::per_second(10, 10);
        let mut bucket = Bucket::default();
        let now = 77 * SECOND_NS;
        assert_eq!((0..100).filter(|_| bucket.take(rate, now)).count(), 10);
        assert!(!bucket.take(rate, now + 99 * MS));
        assert!(bucket.take(rate, now + 100 * MS));
        let later = now + 100 * SECOND_NS;
        assert_eq!((0..100).filter(|_| bucket.take(rate, later)).count(), 10);
    }

    #[test]
    fn a_bucket_survives_time_going_backwards() {
        let rate = Rate::per_second(10, 1);
        let mut bucket = Bucket::default();
        assert!(bucket.take(rate, u64::MAX));
        bucket.take(rate, 0);
    }

    #[test]
    fn the_same_owner_is_news_once_per_refresh() {
        let out = run((0..=50).map(|tick| sighting(A, SECOND_NS + tick * 100 * MS, 0)));
        let times: Vec<_> = out
            .iter()
            .map(|(_, claim)| claim.ktime_ns / (100 * MS))
            .collect();
        assert_eq!(times, [10, 20, 30, 40, 50, 60]);
    }

    #[test]
    fn strict_alternation_faster_than_the_budget_shows_both_owners_to_the_end() {
        let out = run((0..1200).map(|tick| {
            sighting(
                if tick % 2 == 0 { A } else { B },
                SECOND_NS + tick * 50 * MS,
                0,
            )
        }));
        for second in 2..=60 {
            for owner in [A, B] {
                let heard = out
                    .iter()
                    .any(|(_, claim)| claim.mac == owner && claim.ktime_ns / SECOND_NS == second);
                assert!(heard, "{owner} in second {second}");
            }
        }
        assert!(out.len() <= 60 * 12, "bounded by the budget: {}", out.len());
    }

    #[test]
    fn a_change_carries_the_claim_that_was_suppressed_before_it() {
        let request = 5 * SECOND_NS;
        let out = run([
            sighting(A, request - 300 * MS, 0),
            sighting(A, request + MS, request),
            sighting(B, request + 2 * MS, request),
        ]);
        let (previous, claim) = out.last().unwrap();
        assert_eq!((previous.mac, previous.request_ns), (A, request));
        assert_eq!((claim.mac, claim.request_ns), (B, request));
    }

    #[test]
    fn a_double_answer_after_a_quiet_minute_goes_out_whole() {
        let request = 90 * SECOND_NS;
        let out = run([
            sighting(A, SECOND_NS, 0),
            sighting(A, request + MS, request),
            sighting(B, request + 2 * MS, request),
        ]);
        assert_eq!(out.len(), 3);
    }

    /// Twenty announcements by random MACs and ten requests a second, each with replies by A and B.
    fn flood(seconds: u64) -> Vec<Sighting> {
        let mut claims = Vec::new();
        for tick in 0..seconds * 20 {
            let at = SECOND_NS + tick * 50 * MS;
            if tick % 2 == 0 {
                claims.push(sighting(A, at + MS, at));
            }
            let [.., high, low] = tick.to_be_bytes();
            let random = MacAddr([2, 1, 0, 0, high, low]);
            claims.push(sighting(random, at + MS + 20_000, 0));
            if tick % 2 == 0 {
                claims.push(sighting(B, at + MS + 50_000, at));
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
    fn an_event_says_that_claims_before_it_were_rate_limited() {
        let is_limited =
            |(previous, _): &(Sighting, Sighting)| previous.has_form(form::RATE_LIMITED);
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
            sighting(mac, SECOND_NS + tick * 100 * MS, 0)
        });
        assert!(!run(alternating).iter().any(is_limited));
        // An unchanged claim in between does not hide it.
        let (mut state, settings) = (
            ClaimState::new(sighting(A, SECOND_NS, 0), AskedState::default()),
            Settings::default(),
        );
        state.emitted(sighting(A, SECOND_NS, 0));
        let limited = (1..=11).filter(|tick| {
            let claim = sighting(B, SECOND_NS + tick * 1_000, 0);
            state.judge(claim, false, &settings) == Verdict::RateLimited
        });
        assert_eq!(limited.count(), 1);
        let unchanged = sighting(A, SECOND_NS + MS, 0);
        assert_eq!(state.judge(unchanged, false, &settings), Verdict::Unchanged);
        assert!(state.previous(&unchanged).has_form(form::RATE_LIMITED));
    }

    #[test]
    fn a_second_answer_by_one_mac_is_a_repeat() {
        let request = 5 * SECOND_NS;
        let out = run([
            sighting(A, request + MS, request),
            sighting(A, request + 2 * MS, request),
            sighting(A, request + 3 * MS, 0),
        ]);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn a_claim_that_found_no_room_is_offered_again() {
        let settings = Settings::default();
        let mut state = ClaimState::new(sighting(A, SECOND_NS, 0), AskedState::default());
        state.emitted(sighting(A, SECOND_NS, 0));
        assert_eq!(
            state.judge(sighting(B, SECOND_NS + MS, 0), false, &settings),
            Verdict::Emit
        );
        // The ring was full: `emitted` is not called.
        assert_eq!(
            state.judge(sighting(B, SECOND_NS + 2 * MS, 0), false, &settings),
            Verdict::Emit
        );
    }

    #[test]
    fn an_unchanged_claim_is_a_refresh_unless_it_is_news() {
        let settings = Settings::default();
        let judge = |claim: Sighting, answers_probe| {
            let before = sighting(A, SECOND_NS, 7);
            let mut state = ClaimState::new(before, AskedState::default());
            state.emitted(before);
            state.judge(claim, answers_probe, &settings)
        };
        let due = SECOND_NS + settings.refresh_ns;
        assert_eq!(judge(sighting(A, due - 1, 0), false), Verdict::Unchanged);
        assert_eq!(judge(sighting(A, due, 0), false), Verdict::Refresh);
        // Another answer to the same request, an answer to an ARP probe, another owner.
        assert_eq!(judge(sighting(A, due, 7), false), Verdict::Emit);
        assert_eq!(judge(sighting(A, due, 0), true), Verdict::Emit);
        assert_eq!(judge(sighting(B, due, 0), false), Verdict::Emit);
    }

    #[test]
    fn a_refresh_of_zero_emits_everything() {
        let settings = Settings {
            refresh_ns: 0,
            ..Settings::default()
        };
        let mut state = ClaimState::new(sighting(A, SECOND_NS, 0), AskedState::default());
        for tick in 1..1000 {
            let next = sighting(if tick % 2 == 0 { A } else { B }, SECOND_NS + tick, 0);
            assert_eq!(state.judge(next, false, &settings), Verdict::Emit);
            state.emitted(next);
        }
    }

    fn request(asker: MacAddr, spa: [u8; 4]) -> ArpFrame {
        ArpFrame {
            oper: 1,
            sha: asker,
            spa,
            tpa: [192, 0, 2, 9],
            ..ArpFrame::default()
        }
    }

    #[test]
    fn a_reply_is_tied_to_the_request_it_is_addressed_to() {
        let asked = AskedState::new(&request(A, [192, 0, 2, 1]), 42);
        let reply = ArpFrame {
            oper: 2,
            sha: B,
            spa: [192, 0, 2, 9],
            tha: A,
            tpa: [192, 0, 2, 1],
            ..ArpFrame::default()
        };
        assert_eq!(asked.answered_by(&reply, 43), Some((42, false)));
        assert_eq!(asked.answered_by(&reply, 43 + SECOND_NS), None, "too late");
        assert_eq!(asked.answered_by(&ArpFrame { tha: B, ..reply }, 43), None);
        let announcement = ArpFrame {
            tpa: reply.spa,
            ..reply
        };
        assert_eq!(
            asked.answered_by(&announcement, 43),
            None,
            "an answer to an announcement"
        );
        let probed = AskedState::new(&request(A, [0; 4]), 43);
        assert_eq!(
            probed.answered_by(
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
    fn where_nobody_asked_nothing_is_an_answer() {
        let reply = ArpFrame {
            oper: 2,
            spa: [192, 0, 2, 9],
            tpa: [192, 0, 2, 1],
            ..ArpFrame::default()
        };
        // Shortly after the machine started, and to a station without a MAC.
        assert_eq!(AskedState::default().answered_by(&reply, 7), None);
    }

    #[test]
    fn answers_to_an_arp_probe_are_not_suppressed_but_budgeted() {
        let settings = Settings::default();
        let mut state = ClaimState::new(sighting(A, SECOND_NS, 0), AskedState::default());
        state.emitted(sighting(A, SECOND_NS, 0));
        let verdicts: Vec<_> = (1..=20)
            .map(|tick| state.judge(sighting(A, SECOND_NS + tick, tick), true, &settings))
            .collect();
        assert_eq!(
            verdicts
                .iter()
                .filter(|&&verdict| verdict == Verdict::Emit)
                .count(),
            10
        );
    }

    #[test]
    fn the_same_probe_is_news_once_per_refresh_and_another_station_at_once() {
        let settings = Settings::default();
        let mut bucket = Bucket::default();
        let (from_a, from_b) = (request(A, [0; 4]), request(B, [0; 4]));
        let mut asked = AskedState::new(&from_a, SECOND_NS);
        let mut judge = |probe: &ArpFrame, now| {
            let verdict = asked.judge_probe(probe, now, &mut bucket, &settings);
            if verdict == Verdict::Emit {
                asked.probe_emitted(probe, now);
            }
            verdict
        };
        assert_eq!(judge(&from_a, SECOND_NS), Verdict::Emit);
        assert_eq!(judge(&from_a, SECOND_NS + 999 * MS), Verdict::Unchanged);
        assert_eq!(judge(&from_b, SECOND_NS + 999 * MS), Verdict::Emit);
        assert_eq!(judge(&from_b, 2 * SECOND_NS), Verdict::Unchanged);
        assert_eq!(judge(&from_b, 2 * SECOND_NS + 999 * MS), Verdict::Emit);
    }

    #[test]
    fn announcements_and_replies_ask_nothing() {
        assert!(is_question(&request(A, [192, 0, 2, 1])));
        assert!(is_question(&request(A, [0; 4])));
        assert!(!is_question(&request(A, [192, 0, 2, 9])));
        assert!(!is_question(&ArpFrame {
            oper: 2,
            ..request(A, [192, 0, 2, 1])
        }));
    }
}
