//! One address on one segment: who claims it, and what follows from that.
//!
//! [`Binding::hear`] takes a claim, [`Binding::answered`] what came of asking, and [`Binding::expire`] what
//! becomes due without either. What they have to judge lies in a file each: [`takeover`], [`answers`],
//! [`local`], and [`evidence`] with its [`ending`].

mod answers;
mod claimants;
mod conflict;
mod dispute;
mod ending;
mod evidence;
mod heard;
mod local;
mod parties;
mod revision;
mod takeover;

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_model::{Finding, FindingKind, OwnerView, Role, Timestamp};

use self::{
    claimants::Claimants,
    conflict::Conflict,
    dispute::{Contest, Dispute},
};
pub(super) use self::{heard::Heard, parties::station, revision::Change};
use super::{
    Ask, Claim, Purpose,
    facts::KnownFacts,
    turn::{Scene, Turn},
};

/// Whoever answers a question does so within this.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1_500);

/// What is known of one address.
#[derive(Debug)]
pub(super) struct Binding {
    claimants: Claimants,
    /// The MAC that has the address: of the owner that took over last, the one seen last.
    holder: Option<MacAddr>,
    /// Since when its owner has it; before the first claim, since when one is waited for.
    since: Timestamp,
    /// Since when its silence counts, if that is later than its last claim.
    awaited: Timestamp,
    /// When another host first asked everybody for it.
    asked_by_others: Option<Timestamp>,
    /// Its silence has been reported.
    silent_told: bool,
    /// What a settled address does without.
    dispute: Option<Box<Dispute>>,
}

impl Binding {
    /// An address that nobody has claimed.
    pub fn new(at: Timestamp) -> Self {
        Self {
            claimants: Claimants::default(),
            holder: None,
            since: at,
            awaited: at,
            asked_by_others: None,
            silent_told: false,
            dispute: None,
        }
    }

    /// Takes one claim.
    pub fn hear(&mut self, heard: &Heard, turn: &mut Turn) {
        let mac = heard.mac;
        let before = self.claimants.note(heard);
        self.silent_told = false;
        if !before.known {
            turn.ledger.holders.add(turn.scene.key.segment, mac);
            self.evict_surplus(Some(mac), turn);
        }
        let Some(holder) = self.holder else {
            self.first_claim(mac, turn);
            self.check_local(mac, before, turn);
            return;
        };
        self.check_answers(heard, before, turn);
        if mac == holder {
            self.check_local(mac, before, turn);
            return;
        }
        if self.owner_of(mac, &turn.scene) == self.owner_of(holder, &turn.scene) {
            self.holder = Some(mac);
            self.check_router(mac, before, turn);
        } else if heard.solicited && before.known && self.in_doubt() {
            self.testify(turn.at);
        } else if self.overlaps(turn) && (before.known || heard.is_courtesy()) {
            // An earlier owner that has not let go yet: remembered, and nothing else.
            return;
        } else {
            self.take_over(mac, holder, before, turn);
        }
        self.check_local(mac, before, turn);
    }

    /// Whether an owner has taken over so lately that others may not know.
    fn overlaps(&self, turn: &Turn) -> bool {
        turn.at.since(self.since) < turn.scene.rules.config.overlap
    }

    fn first_claim(&mut self, mac: MacAddr, turn: &mut Turn) {
        self.holder = Some(mac);
        self.since = turn.at;
        let mut finding = turn.finding(FindingKind::NewBinding, turn.at);
        finding.owners = self.owners(&turn.scene);
        turn.report(finding);
    }

    /// Forgets claimants beyond the bound: whoever was there before `newest`.
    fn evict_surplus(&mut self, newest: Option<MacAddr>, turn: &mut Turn) {
        let segment = turn.scene.key.segment;
        let keep = [newest, self.holder, self.router(&turn.scene)];
        let max = turn.scene.rules.config.max_macs;
        while let Some(evicted) = self.claimants.evict_beyond(max, keep) {
            turn.ledger.holders.remove(segment, evicted);
            turn.ledger.statistics.evicted_macs += 1;
        }
    }

    /// Reports, once for each MAC, that its claims come from another Ethernet source, where that is not
    /// expected of it.
    pub fn check_source(&mut self, claim: &Claim, turn: &mut Turn) {
        let identity = turn.scene.rules.identify(claim.mac);
        if claim.mac == claim.eth_src || identity.has_other_sources() {
            return;
        }
        if !self.claimants.tell_mismatch(claim.mac) {
            turn.hold_back(FindingKind::SourceMismatch);
            return;
        }
        let mut finding = turn.finding(FindingKind::SourceMismatch, turn.at);
        finding.owners = self.owners_among(&turn.scene, |mac| mac == claim.mac);
        finding
            .owners
            .push(station(Role::Sender, claim.eth_src, turn.at, &turn.scene));
        turn.report(finding);
    }

    /// A newcomer's ARP probe, sent at `asked`, was answered by `mac`.
    pub fn denial(&self, mac: MacAddr, prober: MacAddr, asked: Timestamp, turn: &Turn) -> Finding {
        let mut finding = turn.finding(FindingKind::ProbeDenied, asked);
        finding.owners = self.owners_among(&turn.scene, |other| other == mac);
        finding
            .owners
            .push(station(Role::Prober, prober, asked, &turn.scene));
        finding
    }

    /// Takes the outcome of a round of asking.
    pub fn answered(&mut self, ask: &Ask, by: &[MacAddr], turn: &mut Turn) {
        match ask.purpose {
            Purpose::Confirmation => self.confirm(ask, by, turn),
            Purpose::Local => self.stranger_answered(by, turn),
            Purpose::Resolution => self.resolve(ask, by, turn),
            Purpose::Care => self.cared_for(ask, by, turn),
        }
    }

    /// Takes that a round of asking will not be: what waits for an answer goes the way of those who only listen.
    pub fn unasked(&mut self, ask: &Ask, turn: &mut Turn) {
        match ask.purpose {
            Purpose::Resolution if self.wants(ask, &turn.scene) => self.become_quiet(turn),
            // A move settles, and a stranger claims again, without anybody's asking.
            Purpose::Resolution | Purpose::Confirmation | Purpose::Local | Purpose::Care => {}
        }
    }

    /// Whether the answer to an ask would still be of use.
    pub fn wants(&self, ask: &Ask, scene: &Scene) -> bool {
        match ask.purpose {
            Purpose::Confirmation => {
                self.since == ask.about && self.contest().is_some() && self.conflict().is_none()
            }
            Purpose::Local => scene.held.is_some() && self.conflict().is_none(),
            Purpose::Resolution => {
                let inquiring = self.conflict().and_then(Conflict::inquiring_since);
                inquiring == Some(ask.about)
            }
            Purpose::Care => true,
        }
    }

    /// When something becomes due without a claim.
    pub fn next_deadline(&self, scene: &Scene) -> Option<Timestamp> {
        [
            self.settles_at(scene),
            self.conflict_due_at(scene),
            self.silent_at(scene),
            self.forgets_at(scene),
        ]
        .into_iter()
        .flatten()
        .min()
        // At the end of time additions saturate, and what is due then would be due again and again.
        .filter(|&at| at < Timestamp(u64::MAX))
    }

    /// Does the first thing that is due, which [`Self::next_deadline`] said would be.
    pub fn expire(&mut self, turn: &mut Turn) {
        let at = turn.at;
        let due = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| deadline <= at);
        if due(self.settles_at(&turn.scene)) {
            self.settle(turn);
        } else if due(self.conflict_due_at(&turn.scene)) {
            self.conflict_due(turn);
        } else if due(self.silent_at(&turn.scene)) {
            self.fall_silent(turn);
        } else if due(self.forgets_at(&turn.scene)) {
            self.dispute = None;
        }
    }

    fn silent_at(&self, scene: &Scene) -> Option<Timestamp> {
        if !scene.tracked || scene.held.is_some() || self.silent_told {
            return None;
        }
        let from = self.last_claim().max(self.awaited);
        Some(from + scene.rules.config.silent_after?)
    }

    /// Its silence counts from now on.
    pub const fn await_from(&mut self, at: Timestamp) {
        self.awaited = at;
    }

    /// Another host asks everybody for it.
    pub fn hear_question(&mut self, at: Timestamp) {
        // The first is enough: whoever goes on asking does not make the answer come later.
        self.asked_by_others.get_or_insert(at);
    }

    /// Whether nobody has claimed it.
    pub fn is_blank(&self) -> bool {
        self.holder.is_none() && self.dispute.is_none() && self.macs().next().is_none()
    }

    /// Asked as an address that matters: nobody's answer twice is silence, unless somebody has claimed it
    /// meanwhile, or this host speaks for it, or may, which does not hear itself answer.
    fn cared_for(&mut self, ask: &Ask, by: &[MacAddr], turn: &mut Turn) {
        let scene = turn.scene;
        let is_ours = scene.held.is_some()
            || self.holder.is_some_and(|mac| scene.facts.is_local(mac))
            || self.may_be_ours(&turn.scene, turn.at);
        let is_alive = self
            .claimants
            .iter()
            .any(|claimant| claimant.last_seen >= ask.about);
        let unanswered = ask.round > 0 && by.is_empty() && !is_alive;
        if scene.tracked && unanswered && !is_ours && !self.silent_told {
            self.fall_silent(turn);
        }
    }

    /// Whether a speaker on this host may have it, and was never heard: it would have answered the question of another
    /// host, and that answer would have been seen to go.
    fn may_be_ours(&self, scene: &Scene, now: Timestamp) -> bool {
        let kept_silent = self
            .asked_by_others
            .is_some_and(|asked| now.since(asked) >= ANSWERED_WITHIN);
        scene.facts.is_perhaps_announced_here(&scene.key) && self.is_blank() && !kept_silent
    }

    /// It is not known any more whether the address is silent.
    pub const fn forget_silence(&mut self) {
        self.silent_told = false;
    }

    fn fall_silent(&mut self, turn: &mut Turn) {
        self.silent_told = true;
        let mut finding = turn.finding(FindingKind::Silent, self.last_claim());
        finding.owners = self.owners(&turn.scene);
        turn.report(finding);
    }

    /// Since when nobody has claimed it, if that has been reported and lasts.
    pub fn silent_since(&self, scene: &Scene) -> Option<Timestamp> {
        self.is_silent(scene).then(|| self.last_claim())
    }

    /// When another host has last claimed it.
    pub fn last_claim_of_others(&self, facts: &KnownFacts) -> Option<Timestamp> {
        let claimants = self.claimants.iter();
        let others = claimants.filter(|claimant| !facts.is_local(claimant.mac));
        others.map(|claimant| claimant.last_seen).max()
    }

    /// The last claim, or since when one is waited for.
    fn last_claim(&self) -> Timestamp {
        let last_seen = self.claimants.iter().map(|claimant| claimant.last_seen);
        last_seen.max().unwrap_or(self.since)
    }

    fn forgets_at(&self, scene: &Scene) -> Option<Timestamp> {
        self.dispute.as_ref()?.spent_at(&scene.rules.config)
    }

    /// No time lies in the future: called when the clock was set back to `now`.
    pub fn forget_future(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.awaited = self.awaited.min(now);
        self.asked_by_others = self.asked_by_others.map(|asked| asked.min(now));
        self.claimants.forget_future(now);
        if let Some(dispute) = &mut self.dispute {
            dispute.forget_future(now);
        }
    }

    /// Whether a claim of `mac` at `at` or later was heard.
    pub fn has_heard(&self, mac: MacAddr, at: Timestamp) -> bool {
        let known = self.claimants.get(mac);
        known.is_some_and(|claimant| claimant.last_seen >= at)
    }

    /// The MACs that have claimed the address.
    pub fn macs(&self) -> impl Iterator<Item = MacAddr> {
        self.claimants.iter().map(|claimant| claimant.mac)
    }

    /// The open conflict.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.dispute.as_ref()?.conflict.as_ref()
    }

    /// Who is to be shown: those that take part in the open conflict, else all that are remembered.
    pub fn shown(&self, scene: &Scene, now: Timestamp) -> Vec<OwnerView> {
        if self.conflict().is_some() {
            self.parties(scene, now)
        } else {
            self.owners(scene)
        }
    }

    /// Whether its silence has been reported and lasts.
    pub fn is_silent(&self, scene: &Scene) -> bool {
        self.silent_told && scene.tracked && scene.held.is_none()
    }

    /// Whether an episode of being contested is remembered.
    pub fn has_contested_episode(&self) -> bool {
        let dispute = self.dispute.as_ref();
        dispute.is_some_and(|dispute| dispute.contested.is_some())
    }

    /// Whether it is contested, and no conflict yet.
    pub fn is_contested(&self, scene: &Scene, now: Timestamp) -> bool {
        let last = self.dispute.as_ref().and_then(|dispute| dispute.contested);
        let lasts = |at| now.since(at) < scene.rules.config.resolution_quiet;
        self.conflict().is_none() && last.is_some_and(lasts)
    }

    fn conflict_mut(&mut self) -> Option<&mut Conflict> {
        self.dispute.as_mut()?.conflict.as_mut()
    }

    fn contest(&self) -> Option<&Contest> {
        self.dispute.as_ref()?.contest.as_ref()
    }

    fn contest_mut(&mut self) -> Option<&mut Contest> {
        self.dispute.as_mut()?.contest.as_mut()
    }

    /// Whether it is not settled who has the address.
    fn in_doubt(&self) -> bool {
        self.contest().is_some() || self.conflict().is_some()
    }
}
