//! One address on one segment: who claims it, and what follows from that.
//!
//! [`Binding::observe_claim`] takes a claim, [`Binding::record_replies`] what came of asking, and [`Binding::expire`] what
//! becomes due without either. What they have to judge lies in a file each: [`takeover`], [`answers`],
//! [`local`], and [`evidence`] with its [`ending`].

mod bond;
mod claimants;
mod conflict;
mod dispute;
mod ending;
mod evidence;
mod local;
mod observed;
mod owners;
mod replies;
mod revision;
mod takeover;

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_model::{Finding, FindingKind, OwnerRole, OwnerView, Timestamp};

use self::{
    claimants::{Claimants, PriorClaimantState},
    conflict::OpenConflict,
    dispute::{Contest, Dispute},
};
pub(super) use self::{
    observed::ObservedClaim, owners::host_owner, revision::ReconfigurationChange,
};
use super::{
    Claim, ProbePurpose, ProbeRequest,
    host_facts::HostState,
    transition::{BindingContext, BindingTransition},
};

/// Whoever answers a question does so within this.
const REPLY_WINDOW: Duration = Duration::from_millis(1_500);

/// The steps that can be due at one time: a contest settles, a conflict becomes quiet and expires, its address is silent,
/// a stale announcement ends, and what is left of the dispute is dropped.
const MAX_STEPS: usize = 8;

/// Whether claimants beyond the bound were evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerSurplus {
    /// None, or such as have not claimed the address for long.
    None,
    /// One that has claimed the address lately.
    Recent,
}

/// What is known of one address.
#[derive(Debug)]
pub(super) struct Binding {
    claimants: Claimants,
    /// The MAC that has the address: of the owner that took over last, the one seen last.
    holder: Option<MacAddr>,
    /// Since when its owner has it; before the first claim, since when one is waited for.
    since: Timestamp,
    /// Since when its silence counts, if that is later than its last claim.
    expected_since: Timestamp,
    /// When another host first asked everybody for it.
    requested_since: Option<Timestamp>,
    /// Its silence has been reported.
    silent_reported: bool,
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
            expected_since: at,
            requested_since: None,
            silent_reported: false,
            dispute: None,
        }
    }

    /// Takes one claim.
    pub fn observe_claim(&mut self, heard: &ObservedClaim, turn: &mut BindingTransition) {
        let mac = heard.mac;
        let before = self.claimants.record(heard);
        self.silent_reported = false;
        let mut surplus = OwnerSurplus::None;
        if !before.known {
            turn.state.holders.add(turn.context.key, mac);
            surplus = self.evict_surplus(Some(mac), turn);
        }
        self.apply_claim(heard, before, turn);
        if surplus == OwnerSurplus::Recent {
            self.report_surplus(turn);
        }
    }

    /// Concludes from a recorded claim who owns the address.
    fn apply_claim(
        &mut self,
        heard: &ObservedClaim,
        before: PriorClaimantState,
        turn: &mut BindingTransition,
    ) {
        let mac = heard.mac;
        let Some(holder) = self.holder else {
            self.first_claim(mac, turn);
            self.check_local(mac, before, turn);
            return;
        };
        self.check_replies(heard, before, turn);
        let owner = self.owner_of(mac, &turn.context);
        let is_current = owner == self.owner_of(holder, &turn.context);
        self.update_stale_announcement(owner, heard);
        if is_current {
            if let Some(dispute) = &mut self.dispute {
                dispute.observe_holder(heard, &turn.context.rules.config);
            }
            if mac != holder {
                self.holder = Some(mac);
                self.check_router(mac, before, turn);
            }
            self.check_local(mac, before, turn);
            return;
        }
        let owner_before = self.prior_state_of_owner(mac, before, &turn.context);
        if heard.solicited && owner_before.known && self.is_disputed() {
            self.confirm_current(turn.at);
        } else if self.overlaps(turn) && (owner_before.known || heard.is_probe_reply()) {
            // An earlier owner that has not let go yet: remembered, and nothing else.
            return;
        } else {
            self.take_over(heard, holder, owner_before, turn);
        }
        self.check_local(mac, before, turn);
    }

    /// The state of an owner before a claim by one of its MACs.
    fn prior_state_of_owner(
        &self,
        mac: MacAddr,
        before: PriorClaimantState,
        context: &BindingContext,
    ) -> PriorClaimantState {
        let owner = self.owner_of(mac, context);
        let others = || {
            self.claimants.iter().filter(|claimant| {
                claimant.mac != mac && self.owner_of(claimant.mac, context) == owner
            })
        };
        PriorClaimantState {
            known: before.known || others().next().is_some(),
            present: before.present || others().any(|claimant| claimant.present),
            ..before
        }
    }

    /// Whether an owner has taken over so lately that others may not know.
    fn overlaps(&self, turn: &BindingTransition) -> bool {
        turn.at.since(self.since) < turn.context.rules.config.takeover_grace
    }

    fn first_claim(&mut self, mac: MacAddr, turn: &mut BindingTransition) {
        self.holder = Some(mac);
        self.since = turn.at;
        let mut finding = turn.finding(FindingKind::NewBinding, turn.at);
        finding.owners = self.owners(&turn.context);
        turn.report(finding);
    }

    /// Evicts claimants beyond the bound, never `newest`.
    fn evict_surplus(
        &mut self,
        newest: Option<MacAddr>,
        turn: &mut BindingTransition,
    ) -> OwnerSurplus {
        let keep = [newest, self.holder, self.router(&turn.context)];
        let config = &turn.context.rules.config;
        let mut surplus = OwnerSurplus::None;
        while let Some(evicted) = self.claimants.evict_beyond(config.max_macs, keep) {
            turn.state.holders.remove(turn.context.key, evicted.mac);
            turn.state
                .statistics
                .count_evicted_mac(turn.context.tracked);
            if turn.at.since(evicted.last_seen) < config.slow_alternation_window {
                surplus = OwnerSurplus::Recent;
            }
        }
        surplus
    }

    /// Reports, once for each MAC, that its claims come from another Ethernet source, where that is not
    /// expected of it.
    pub fn check_source(&mut self, claim: &Claim, turn: &mut BindingTransition) {
        let identity = turn.context.rules.identify(claim.mac);
        if claim.mac == claim.eth_src || identity.has_other_sources() {
            return;
        }
        if !self.claimants.mark_mismatch_reported(claim.mac) {
            turn.suppress(FindingKind::SourceMismatch);
            return;
        }
        let mut finding = turn.finding(FindingKind::SourceMismatch, turn.at);
        finding.owners = self.owners_among(&turn.context, |mac| mac == claim.mac);
        finding.owners.push(host_owner(
            OwnerRole::Sender,
            claim.eth_src,
            turn.at,
            &turn.context,
        ));
        turn.report(finding);
    }

    /// A newcomer's ARP probe, sent at `asked`, was answered by `mac`.
    pub fn denial(
        &self,
        mac: MacAddr,
        prober: MacAddr,
        asked: Timestamp,
        turn: &BindingTransition,
    ) -> Finding {
        let mut finding = turn.finding(FindingKind::ProbeDenied, asked);
        finding.owners = self.owners_among(&turn.context, |other| other == mac);
        finding
            .owners
            .push(host_owner(OwnerRole::Prober, prober, asked, &turn.context));
        finding
    }

    /// Takes the outcome of a round of asking.
    pub fn record_replies(
        &mut self,
        ask: &ProbeRequest,
        by: &[MacAddr],
        turn: &mut BindingTransition,
    ) {
        match ask.purpose {
            ProbePurpose::Confirmation => self.confirm(ask, by, turn),
            ProbePurpose::Local => self.other_host_replied(by, turn),
            ProbePurpose::Resolution => self.resolve(ask, by, turn),
            ProbePurpose::Periodic => self.check_silence(ask, by, turn),
        }
    }

    /// Takes that a round of asking will not be: what waits for an answer goes the way of those who only listen.
    pub fn record_not_probed(&mut self, ask: &ProbeRequest, turn: &mut BindingTransition) {
        match ask.purpose {
            ProbePurpose::Resolution if self.is_wanted(ask, &turn.context) => {
                self.mark_quiet_if_due(turn);
            }
            // A move settles, and a stranger claims again, without anybody's asking.
            ProbePurpose::Resolution
            | ProbePurpose::Confirmation
            | ProbePurpose::Local
            | ProbePurpose::Periodic => {}
        }
    }

    /// Whether the answer to an ask would still be of use.
    pub fn is_wanted(&self, ask: &ProbeRequest, context: &BindingContext) -> bool {
        match ask.purpose {
            ProbePurpose::Confirmation if ask.round == ProbeRequest::BASELINE => {
                self.conflict().is_some()
            }
            ProbePurpose::Confirmation => {
                self.since == ask.requested_for
                    && self.contest().is_some()
                    && self.conflict().is_none()
            }
            ProbePurpose::Local => context.local_address.is_some() && self.conflict().is_none(),
            ProbePurpose::Resolution => {
                let inquiring = self.conflict().and_then(OpenConflict::inquiry_started_at);
                inquiring == Some(ask.requested_for)
            }
            ProbePurpose::Periodic => true,
        }
    }

    /// When something becomes due without a claim.
    pub fn next_deadline(&self, context: &BindingContext) -> Option<Timestamp> {
        [
            self.settles_at(context),
            self.conflict_deadline(context),
            self.silent_at(context),
            self.stale_announcement_expires_at(),
            self.expires_unclaimed_at(context),
        ]
        .into_iter()
        .flatten()
        .min()
        // At the end of time additions saturate, and what is due then would be due again and again.
        .filter(|&at| at < Timestamp(u64::MAX))
    }

    /// Does everything that is due.
    pub fn expire(&mut self, turn: &mut BindingTransition) {
        // What one step leaves due, the next one ends: a quiet conflict whose owners are long gone expires at once.
        for _ in 0..MAX_STEPS {
            if self
                .next_deadline(&turn.context)
                .is_none_or(|at| at > turn.at)
            {
                return;
            }
            self.expire_first(turn);
        }
    }

    /// Does the first thing that is due.
    fn expire_first(&mut self, turn: &mut BindingTransition) {
        let at = turn.at;
        let due = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| deadline <= at);
        if due(self.settles_at(&turn.context)) {
            self.settle(turn);
        } else if due(self.conflict_deadline(&turn.context)) {
            self.expire_conflict(turn);
        } else if due(self.silent_at(&turn.context)) {
            self.report_silent(turn);
        } else if due(self.stale_announcement_expires_at()) {
            self.clear_stale_announcement();
        } else if due(self.expires_unclaimed_at(&turn.context)) {
            self.dispute = None;
        }
    }

    fn silent_at(&self, context: &BindingContext) -> Option<Timestamp> {
        if !context.tracked || context.local_address.is_some() || self.silent_reported {
            return None;
        }
        let from = self.last_claim().max(self.expected_since);
        Some(from + context.rules.config.silent_after?)
    }

    /// Its silence counts from now on.
    pub const fn expect_from(&mut self, at: Timestamp) {
        self.expected_since = at;
    }

    /// Another host asks everybody for it.
    pub fn record_request(&mut self, at: Timestamp) {
        // The first is enough: whoever goes on asking does not make the answer come later.
        self.requested_since.get_or_insert(at);
    }

    /// Whether nobody has claimed it.
    pub fn is_empty(&self) -> bool {
        self.holder.is_none() && self.dispute.is_none() && self.macs().next().is_none()
    }

    /// Asked as an address that matters: nobody's answer twice is silence, unless somebody has claimed it
    /// meanwhile, or this host speaks for it, or may, which does not hear itself answer.
    fn check_silence(&mut self, ask: &ProbeRequest, by: &[MacAddr], turn: &mut BindingTransition) {
        let context = turn.context;
        let is_ours = context.local_address.is_some()
            || self.holder.is_some_and(|mac| context.facts.is_local(mac))
            || self.may_be_local(&turn.context, turn.at);
        let is_alive = self
            .claimants
            .iter()
            .any(|claimant| claimant.last_seen >= ask.requested_for);
        let unanswered = ask.round > 0 && by.is_empty() && !is_alive;
        // A host that replies to requests and was never observed to reply to a probe is there all the same, until it has
        // claimed nothing for long.
        let is_unproven = turn.at.since(self.last_claim()) < context.rules.config.expire_after
            && self
                .claimants
                .iter()
                .any(|one| one.replies_to_requests && !one.replies_to_probes);
        if context.tracked && unanswered && !is_unproven && !is_ours && !self.silent_reported {
            self.report_silent(turn);
        }
    }

    /// Whether a speaker on this host may have it, and was never heard: it would have answered the question of another
    /// host, and that answer would have been seen to go.
    fn may_be_local(&self, context: &BindingContext, now: Timestamp) -> bool {
        let kept_silent = self
            .requested_since
            .is_some_and(|asked| now.since(asked) >= REPLY_WINDOW);
        context.facts.may_be_announced_locally(&context.key) && self.is_empty() && !kept_silent
    }

    /// It is not known any more whether the address is silent.
    pub const fn withdraw_silence(&mut self) {
        self.silent_reported = false;
    }

    fn report_silent(&mut self, turn: &mut BindingTransition) {
        self.silent_reported = true;
        let mut finding = turn.finding(FindingKind::Silent, self.last_claim());
        finding.owners = self.owners(&turn.context);
        turn.report(finding);
    }

    /// Since when nobody has claimed it, if that has been reported and lasts.
    pub fn silent_since(&self, context: &BindingContext) -> Option<Timestamp> {
        self.is_silent(context).then(|| self.last_claim())
    }

    /// When another host has last claimed it.
    pub fn last_claim_of_others(&self, facts: &HostState) -> Option<Timestamp> {
        let claimants = self.claimants.iter();
        let others = claimants.filter(|claimant| !facts.is_local(claimant.mac));
        others.map(|claimant| claimant.last_seen).max()
    }

    /// The last claim, or since when one is waited for.
    fn last_claim(&self) -> Timestamp {
        let last_seen = self.claimants.iter().map(|claimant| claimant.last_seen);
        last_seen.max().unwrap_or(self.since)
    }

    fn expires_unclaimed_at(&self, context: &BindingContext) -> Option<Timestamp> {
        self.dispute
            .as_ref()?
            .returns_expire_at(&context.rules.config)
    }

    /// No time lies in the future: called when the clock was set back to `now`.
    pub fn forget_future(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.expected_since = self.expected_since.min(now);
        self.requested_since = self.requested_since.map(|asked| asked.min(now));
        self.claimants.forget_future(now);
        if let Some(dispute) = &mut self.dispute {
            dispute.forget_future(now);
        }
    }

    /// Whether a claim of `mac` at `at` or later was heard.
    pub fn has_observed(&self, mac: MacAddr, at: Timestamp) -> bool {
        let known = self.claimants.get(mac);
        known.is_some_and(|claimant| claimant.last_seen >= at)
    }

    /// The MACs that have claimed the address.
    pub fn macs(&self) -> impl Iterator<Item = MacAddr> {
        self.claimants.iter().map(|claimant| claimant.mac)
    }

    /// The open conflict.
    pub fn conflict(&self) -> Option<&OpenConflict> {
        self.dispute.as_ref()?.conflict.as_ref()
    }

    /// Who is to be shown: those that take part in the open conflict, else all that are remembered.
    pub fn shown_owners(&self, context: &BindingContext, now: Timestamp) -> Vec<OwnerView> {
        if self.conflict().is_some() {
            self.parties_at(context, now)
        } else {
            self.owners(context)
        }
    }

    /// Whether its silence has been reported and lasts.
    pub fn is_silent(&self, context: &BindingContext) -> bool {
        self.silent_reported && context.tracked && context.local_address.is_none()
    }

    /// Whether an episode of being contested is remembered.
    pub fn has_contested_episode(&self) -> bool {
        let dispute = self.dispute.as_ref();
        dispute.is_some_and(|dispute| dispute.contested.is_some())
    }

    /// Whether it is contested, and no conflict yet.
    pub fn is_contested(&self, context: &BindingContext, now: Timestamp) -> bool {
        let last = self.dispute.as_ref().and_then(|dispute| dispute.contested);
        let lasts = |at| now.since(at) < context.rules.config.quiet_after;
        self.conflict().is_none() && last.is_some_and(lasts)
    }

    /// Claims were not observed because of the kernel's rate limit.
    pub fn record_rate_limit(&mut self, at: Timestamp) {
        let dispute = self.dispute.get_or_insert_default();
        dispute.rate_limited = dispute.rate_limited.max(Some(at));
    }

    /// Whether claims were lately not observed because of the kernel's rate limit.
    pub fn is_rate_limited(&self, context: &BindingContext, now: Timestamp) -> bool {
        let last = self
            .dispute
            .as_ref()
            .and_then(|dispute| dispute.rate_limited);
        last.is_some_and(|last| now.since(last) < context.rules.config.quiet_after)
    }

    fn conflict_mut(&mut self) -> Option<&mut OpenConflict> {
        self.dispute.as_mut()?.conflict.as_mut()
    }

    fn contest(&self) -> Option<&Contest> {
        self.dispute.as_ref()?.contest.as_ref()
    }

    fn contest_mut(&mut self) -> Option<&mut Contest> {
        self.dispute.as_mut()?.contest.as_mut()
    }

    /// Whether it is not settled who has the address.
    fn is_disputed(&self) -> bool {
        self.contest().is_some() || self.conflict().is_some()
    }
}
