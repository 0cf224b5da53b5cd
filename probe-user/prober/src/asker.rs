//! Who is asked next, and when: a pure scheduler. Time comes with each call and chance from a seed, so that a
//! fleet of them can be played through in a test.
//!
//! What always holds: at most one frame in [`AskerConfig::gap`], whatever it is for; no question about an address
//! that a newcomer has probed for within [`QUIET_AFTER_NEWCOMER`]; one round of questions about an address at a
//! time; and every question that was wished for ends in an [`Outcome`] or was not wanted any more.

use std::{num::NonZeroUsize, time::Duration};

use fastrand::Rng;
use lru::LruCache;
use probe_common::{counter::Direction, wire::MacAddr};
use probe_detect::{Ask, Body, Claim, Observation, Purpose};
use probe_model::{BindingKey, Segment, Timestamp};
use smallvec::SmallVec;

use super::{
    AskCounts, NotSent, Place, Question,
    care::{Care, Due, ROUND, Silence, Wanted, drawn},
    fleet::Fleet,
};

/// A booting host would take a question for a rival's until this long after its last probe (RFC 5227 section
/// 2.1.1).
pub const QUIET_AFTER_NEWCOMER: Duration = Duration::from_secs(10);

/// How long an answer may take: as long as the kernel side ties answers to questions.
const ANSWER_WINDOW: Duration = Duration::from_secs(1);

/// For an answer that has come and is not read yet.
const READING: Duration = Duration::from_millis(50);

/// At least so much is between two rounds about one address.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);

/// Within this one of our questions has to have been seen to go, for silence after it to mean anything. The kernel
/// side tells of a repeated question once a second, or more seldom if `--refresh` says so.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Questions that may wait.
const MOST_WAITING: usize = 1_024;

/// Addresses and segments of which is remembered when something was last seen.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskerConfig {
    /// The least time between two frames.
    pub gap: Duration,
    /// How often each address that matters is asked about.
    pub every: Duration,
    /// How many nodes ask, if that is known.
    pub fleet: Option<u32>,
}

impl Default for AskerConfig {
    fn default() -> Self {
        Self {
            gap: Duration::from_millis(200),
            every: Duration::from_mins(5),
            fleet: None,
        }
    }
}

/// What the scheduler has to know of the world when it sends.
pub trait View {
    /// Whether the answer would still be of use.
    fn wants(&self, ask: &Ask) -> bool;
    /// When a newcomer last probed for the address, if lately.
    fn last_probed(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp>;
    /// Whence to ask, or why not.
    fn place(&self, key: &BindingKey) -> Result<Place, NotSent>;
}

/// A question that is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot {
    /// About what.
    pub key: BindingKey,
    /// What for.
    pub purpose: Purpose,
    /// The frame.
    pub question: Question,
}

/// What has become of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked, and these answered.
    Answered {
        /// The wish.
        ask: Ask,
        /// Those who answered; perhaps nobody.
        by: SmallVec<[MacAddr; 2]>,
    },
    /// It is not asked, by this node or now.
    Unasked(Ask),
    /// Nobody answers for an address that matters, but nothing else was heard either: is there anybody at all?
    Mute(Ask),
    /// It is not known any more whether an address is silent.
    SilenceForgotten(BindingKey),
}

/// The scheduler.
#[derive(Debug)]
pub struct Asker {
    gap: Duration,
    rng: Rng,
    /// Not before this the next frame.
    free_at: Timestamp,
    waiting: Vec<Waiting>,
    rounds: Vec<Round>,
    care: Care,
    fleet: Fleet,
    counts: AskCounts,
    outcomes: Vec<Outcome>,
    /// When our own question about an address was last seen to go.
    seen_to_go: LruCache<BindingKey, Timestamp>,
    /// When a frame last arrived on a segment.
    alive: LruCache<Segment, Timestamp>,
    now: Timestamp,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    at: Timestamp,
}

/// A round that has begun.
#[derive(Debug)]
struct Round {
    ask: Ask,
    place: Place,
    /// Whom still to ask; the last is the next.
    left: SmallVec<[MacAddr; 2]>,
    began: Timestamp,
    last_sent: Timestamp,
    by: SmallVec<[MacAddr; 2]>,
}

impl Asker {
    /// A scheduler that has nothing to ask; the seed is its chance.
    pub fn new(config: &AskerConfig, seed: u64) -> Self {
        Self {
            gap: config.gap,
            rng: Rng::with_seed(seed),
            free_at: Timestamp::ZERO,
            waiting: Vec::new(),
            rounds: Vec::new(),
            care: Care::new(config.every, config.gap),
            // A dozen questions about one address: as many nodes' turns.
            fleet: Fleet::new(config.fleet, config.every * 12),
            counts: AskCounts::default(),
            outcomes: Vec::new(),
            seen_to_go: LruCache::new(REMEMBERED),
            alive: LruCache::new(REMEMBERED),
            now: Timestamp::ZERO,
        }
    }

    /// These addresses matter from now on.
    pub fn care_for(&mut self, keys: impl Iterator<Item = Wanted>, now: Timestamp) {
        self.keep_time(now);
        let (rng, counts) = (&mut self.rng, &mut self.counts);
        self.care.update(keys, now, rng, counts);
    }

    /// Whether this node sees for itself who answers for the addresses of the cluster, whoever else asks about them.
    pub const fn lead(&mut self, leads: bool) {
        self.care.lead(leads);
    }

    /// Takes a wish: it will be asked at a time drawn from its window, or an outcome says why not.
    pub fn plan(&mut self, ask: Ask, now: Timestamp) {
        self.keep_time(now);
        let same = |other: &Ask| {
            (other.key, other.purpose, other.round) == (ask.key, ask.purpose, ask.round)
        };
        let mut known = self.waiting.iter().map(|waiting| &waiting.ask);
        let mut begun = self.rounds.iter().map(|round| &round.ask);
        let mut all = known.by_ref().chain(begun.by_ref());
        if all.any(|other| same(other) && other.about == ask.about) {
            return;
        }
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !same(&waiting.ask));
        for _ in self.waiting.len()..before {
            self.counts.count_not_sent(NotSent::Obsolete);
        }
        if !self.is_our_turn(&ask, now) {
            self.refuse(ask, NotSent::LeftToOthers);
            return;
        }
        if self.waiting.len() >= MOST_WAITING {
            let least = (0..self.waiting.len()).max_by_key(|&place| self.waiting[place].rank());
            let least = least.filter(|&place| self.waiting[place].ask.purpose > ask.purpose);
            let Some(place) = least else {
                self.refuse(ask, NotSent::QueueFull);
                return;
            };
            let dropped = self.waiting.swap_remove(place);
            self.refuse(dropped.ask, NotSent::QueueFull);
        }
        let window = ask.latest.since(ask.earliest);
        let at = ask.earliest + drawn(Duration::ZERO, window, &mut self.rng);
        self.waiting.push(Waiting { ask, at });
    }

    /// Of what every node sees, a few ask, chosen by lot; of one wish both rounds or none. Only this host can ask
    /// about its own address, and what matters has its own lot.
    fn is_our_turn(&mut self, ask: &Ask, now: Timestamp) -> bool {
        match ask.purpose {
            Purpose::Confirmation | Purpose::Resolution if ask.round > 0 => {
                let mut waiting = self.waiting.iter().map(|waiting| &waiting.ask);
                waiting.any(|first| {
                    (first.key, first.purpose, first.about) == (ask.key, ask.purpose, ask.about)
                })
            }
            Purpose::Confirmation | Purpose::Resolution => {
                self.rng.f64() < self.fleet.share(ask.key.segment, now)
            }
            Purpose::Local | Purpose::Care => true,
        }
    }

    /// What is to be sent now, if anything. To be called until it is nothing; each has to be sent, or
    /// [`Self::failed`] told.
    pub fn next(&mut self, now: Timestamp, view: &impl View) -> Option<Shot> {
        self.keep_time(now);
        if now < self.free_at {
            return None;
        }
        let begun = self.rounds.iter().position(|round| !round.left.is_empty());
        let place = begun
            .or_else(|| self.begin_waiting(now, view))
            .or_else(|| self.begin_care(now, view))?;
        Some(self.shoot(place, now))
    }

    /// Begins the round that waits and matters most; its place among the rounds.
    fn begin_waiting(&mut self, now: Timestamp, view: &impl View) -> Option<usize> {
        loop {
            let due = (0..self.waiting.len()).filter(|&place| {
                let waiting = &self.waiting[place];
                waiting.at <= now && !self.is_asking(&waiting.ask.key)
            });
            let place = due.min_by_key(|&place| self.waiting[place].rank())?;
            let mut waiting = self.waiting.swap_remove(place);
            if !view.wants(&waiting.ask) {
                self.counts.count_not_sent(NotSent::Obsolete);
                continue;
            }
            if let Some(until) = self.quiet_until(&waiting.ask.key, now, view) {
                waiting.at = until;
                self.waiting.push(waiting);
                continue;
            }
            match view.place(&waiting.ask.key) {
                Err(reason) => self.refuse(waiting.ask, reason),
                Ok(place) => return Some(self.begin(waiting.ask, place, now)),
            }
        }
    }

    /// Begins to ask about an address that matters.
    fn begin_care(&mut self, now: Timestamp, view: &impl View) -> Option<usize> {
        loop {
            let (rng, counts) = (&mut self.rng, &mut self.counts);
            let mut forgotten = Vec::new();
            let due = self
                .care
                .pop(now, &mut self.fleet, rng, counts, &mut forgotten);
            let forgotten = forgotten.into_iter().map(Outcome::SilenceForgotten);
            self.outcomes.extend(forgotten);
            let Due { key, round, about } = due?;
            let is_asked =
                self.is_asking(&key) || self.waiting.iter().any(|waiting| waiting.ask.key == key);
            if is_asked {
                self.care.put_off(&key, now + ROUND);
                continue;
            }
            if let Some(until) = self.quiet_until(&key, now, view) {
                self.care.put_off(&key, until);
                continue;
            }
            match view.place(&key) {
                Err(reason) => {
                    self.counts.count_not_sent(reason);
                    self.care.give_up(&key, now, &mut self.rng);
                }
                Ok(place) => {
                    let ask = care_ask(key, round, about, now);
                    return Some(self.begin(ask, place, now));
                }
            }
        }
    }

    /// Asks once about an address that need not matter: who answers is heard as any claim is, and nothing follows
    /// from silence.
    pub fn ask_once(&mut self, key: BindingKey, now: Timestamp) {
        self.plan(care_ask(key, 0, now, now), now);
    }

    /// Detection has its reasons not to take an address for silent that nobody answered for: it is looked at no more
    /// often than others.
    pub fn doubt(&mut self, key: &BindingKey) {
        self.care.claimed(key);
    }

    /// The segment is silent as a whole, but there never was anybody else: the address alone is.
    pub fn believe(&mut self, ask: &Ask, now: Timestamp) {
        self.care.give_up(&ask.key, now, &mut self.rng);
        self.care.proven(&ask.key);
    }

    /// Until when a newcomer's probe keeps us from asking, if there was one.
    fn quiet_until(
        &mut self,
        key: &BindingKey,
        now: Timestamp,
        view: &impl View,
    ) -> Option<Timestamp> {
        let probed = view.last_probed(key, now)?;
        self.counts.count_not_sent(NotSent::Newcomer);
        let jitter = drawn(Duration::ZERO, Duration::from_secs(1), &mut self.rng);
        // After now, whatever the view says.
        Some((probed + QUIET_AFTER_NEWCOMER + jitter).max(now + Duration::from_millis(100)))
    }

    fn begin(&mut self, ask: Ask, place: Place, now: Timestamp) -> usize {
        for waiting in &mut self.waiting {
            if waiting.ask.key == ask.key {
                waiting.at = waiting.at.max(now + BETWEEN_ROUNDS);
            }
        }
        self.rounds.push(Round {
            // In the order that was wished: the last is taken first.
            left: ask.to.iter().rev().copied().collect(),
            ask,
            place,
            began: now,
            last_sent: now,
            by: SmallVec::new(),
        });
        self.rounds.len() - 1
    }

    fn shoot(&mut self, place: usize, now: Timestamp) -> Shot {
        self.free_at = now + self.gap;
        let round = &mut self.rounds[place];
        let to = round.left.pop();
        round.last_sent = now;
        let key = round.ask.key;
        if to.is_none() {
            self.care.pay(key.segment, now, &mut self.rng);
        }
        self.counts.count_sent(round.ask.purpose);
        Shot {
            key,
            purpose: round.ask.purpose,
            question: Question {
                target: match key.ip {
                    std::net::IpAddr::V4(ip) => ip,
                    // No place is ever found for one.
                    std::net::IpAddr::V6(_) => std::net::Ipv4Addr::UNSPECIFIED,
                },
                asker: round.place.mac,
                from: None,
                to,
                vlan: round.place.segment.vlan,
            },
        }
    }

    /// The kernel did not send it: the round is off.
    pub fn failed(&mut self, shot: &Shot, now: Timestamp) {
        let is_it = |round: &Round| (round.ask.key, round.ask.purpose) == (shot.key, shot.purpose);
        let Some(place) = self.rounds.iter().position(is_it) else {
            return;
        };
        let round = self.rounds.swap_remove(place);
        if round.ask.purpose == Purpose::Care {
            self.care.give_up(&shot.key, now, &mut self.rng);
        }
        self.counts.uncount_sent(shot.purpose);
        self.refuse(round.ask, NotSent::SendFailed);
    }

    /// Takes a frame that was seen, sent by this host or received. Before what is due at its time is judged.
    pub fn hear(&mut self, observation: &Observation) {
        let segment = observation.segment;
        let is_ours = observation.direction == Direction::Egress;
        if !is_ours {
            self.alive.put(segment, observation.at);
        }
        match &observation.body {
            Body::Claim(claim) => self.hear_claim(segment, claim),
            Body::Probe(probe) if probe.signed => {
                let key = BindingKey {
                    segment,
                    ip: probe.target,
                };
                if is_ours {
                    self.seen_to_go.put(key, observation.at);
                } else if !probe.unicast {
                    self.fleet.hear(segment, probe.prober, observation.at);
                    let (fleet, rng, counts) = (&mut self.fleet, &mut self.rng, &mut self.counts);
                    self.care.hear(&key, observation.at, fleet, rng, counts);
                }
            }
            Body::Probe(_) | Body::Bogus(_) => {}
        }
    }

    /// An answer to a question that was seen since a round began, whoever asked: who gave it has the address now.
    fn hear_claim(&mut self, segment: Segment, claim: &Claim) {
        let key = BindingKey {
            segment,
            ip: claim.ip,
        };
        self.care.claimed(&key);
        let Some(round) = self.rounds.iter_mut().find(|round| round.ask.key == key) else {
            return;
        };
        let request = claim.answer.and_then(|answer| answer.request);
        let carried = claim.previous.map(|carried| (carried.mac, carried.request));
        for (mac, request) in [Some((claim.mac, request)), carried].into_iter().flatten() {
            let answers = request.is_some_and(|request| request.0 >= round.began);
            if answers && !round.by.contains(&mac) {
                round.by.push(mac);
            }
        }
    }

    /// What has become of wishes until now.
    pub fn conclude(&mut self, now: Timestamp) -> Vec<Outcome> {
        self.keep_time(now);
        while let Some(place) = self.rounds.iter().position(|round| round.ends_at() <= now) {
            let round = self.rounds.swap_remove(place);
            self.end(round, now);
        }
        std::mem::take(&mut self.outcomes)
    }

    fn end(&mut self, round: Round, now: Timestamp) {
        let Round { ask, by, .. } = round;
        let key = ask.key;
        let is_care = ask.purpose == Purpose::Care;
        if !by.is_empty() {
            if is_care {
                self.care.answered(&key);
            }
            self.outcomes.push(Outcome::Answered { ask, by });
            return;
        }
        let seen = self.seen_to_go.peek(&key);
        if seen.is_none_or(|&at| now.since(at) > SEEN_WITHIN) {
            if is_care {
                self.care.give_up(&key, now, &mut self.rng);
            }
            self.refuse(ask, NotSent::Unseen);
            return;
        }
        if !is_care {
            self.outcomes.push(Outcome::Answered { ask, by });
            return;
        }
        let due = Due {
            key,
            round: ask.round,
            about: ask.about,
        };
        let last_heard = self.alive.peek(&key.segment).copied();
        match self.care.unanswered(&due, last_heard, now, &mut self.rng) {
            Silence::Unproven => {}
            Silence::Proven => self.outcomes.push(Outcome::Answered { ask, by }),
            Silence::Mute => self.outcomes.push(Outcome::Mute(ask)),
        }
    }

    /// When to ask [`Self::next`] and [`Self::conclude`] again, if nothing is heard before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if !self.outcomes.is_empty() {
            return Some(self.now);
        }
        let free = |at: Timestamp| at.max(self.free_at);
        let waiting = self.waiting.iter();
        let waiting = waiting.filter(|waiting| !self.is_asking(&waiting.ask.key));
        let rounds = self.rounds.iter().map(|round| {
            if round.left.is_empty() {
                round.ends_at()
            } else {
                self.free_at
            }
        });
        waiting
            .map(|waiting| free(waiting.at))
            .chain(rounds)
            .chain(self.care.next_at().map(free))
            .min()
    }

    /// The counts.
    pub const fn counts(&self) -> &AskCounts {
        &self.counts
    }

    fn is_asking(&self, key: &BindingKey) -> bool {
        self.rounds.iter().any(|round| round.ask.key == *key)
    }

    fn refuse(&mut self, ask: Ask, reason: NotSent) {
        self.counts.count_not_sent(reason);
        self.outcomes.push(Outcome::Unasked(ask));
    }

    /// Notices that the clock was set back: nothing waits longer than it would by now.
    fn keep_time(&mut self, now: Timestamp) {
        if now + BETWEEN_ROUNDS < self.now {
            self.free_at = now;
            self.rounds.clear();
            let waiting = std::mem::take(&mut self.waiting);
            let unasked = waiting.into_iter().map(|waiting| waiting.ask);
            self.outcomes.extend(unasked.map(Outcome::Unasked));
            self.care.forget_future(now, &mut self.rng);
            self.now = now;
        }
        self.now = self.now.max(now);
    }
}

impl Waiting {
    /// Confirmation before resolution before care, then the one that has waited longest.
    const fn rank(&self) -> (Purpose, Timestamp) {
        (self.ask.purpose, self.at)
    }
}

impl Round {
    /// When there is nothing more to wait for.
    fn ends_at(&self) -> Timestamp {
        let to = &self.ask.to;
        let all_answered = !to.is_empty() && to.iter().all(|mac| self.by.contains(mac));
        if !self.left.is_empty() {
            Timestamp(u64::MAX)
        } else if all_answered {
            self.last_sent
        } else {
            self.last_sent + ANSWER_WINDOW + READING
        }
    }
}

fn care_ask(key: BindingKey, round: u8, about: Timestamp, now: Timestamp) -> Ask {
    Ask {
        key,
        purpose: Purpose::Care,
        round,
        about,
        earliest: now,
        latest: now,
        to: Vec::new(),
    }
}
