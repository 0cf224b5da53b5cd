//! One address on one segment: its claimants and the findings about them.
//!
//! [`Binding::observe_claim`] takes a claim, [`Binding::record_replies`] the replies to probes, and [`Binding::expire`]
//! processes deadlines. Their rules are in a file each: [`takeover`], [`replies`],
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

/// A host replies to a request within this time.
const REPLY_WINDOW: Duration = Duration::from_millis(1_500);

/// The steps that can be due at one time: a contest settles, a conflict becomes quiet and expires, its address is silent,
/// a stale announcement ends, and what is left of the dispute is dropped.
const MAX_STEPS: usize = 8;

/// The claimants that were evicted because of the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerSurplus {
    /// None, or such as have not claimed the address for long.
    None,
    /// One that has claimed the address lately.
    Recent,
}

/// The state of one address.
#[derive(Debug)]
pub(super) struct Binding {
    claimants: Claimants,
    /// The MAC of the current owner, which took over last; of its MACs the one seen last.
    current_owner: Option<MacAddr>,
    /// Since when the current owner has it; before the first claim, since when one is expected.
    since: Timestamp,
    /// Since when its silence counts, if later than its last claim.
    expected_since: Timestamp,
    /// When another host first sent a broadcast request for it.
    requested_since: Option<Timestamp>,
    /// Its silence has been reported.
    silent_reported: bool,
    /// The state of a dispute. A settled address has none.
    dispute: Option<Box<Dispute>>,
}

impl Binding {
    /// An address without a claim.
    pub fn new(at: Timestamp) -> Self {
        Self {
            claimants: Claimants::default(),
            current_owner: None,
            since: at,
            expected_since: at,
            requested_since: None,
            silent_reported: false,
            dispute: None,
        }
    }

    /// Processes one claim.
    pub fn observe_claim(&mut self, observed: &ObservedClaim, transition: &mut BindingTransition) {
        let mac = observed.mac;
        let before = self.claimants.record(observed);
        self.silent_reported = false;
        let mut surplus = OwnerSurplus::None;
        if !before.known {
            transition
                .state
                .claimed_addresses
                .add(transition.context.key, mac);
            surplus = self.evict_surplus(Some(mac), transition);
        }
        self.apply_claim(observed, before, transition);
        if surplus == OwnerSurplus::Recent {
            self.report_surplus(transition);
        }
    }

    /// Updates the current owner after a recorded claim.
    fn apply_claim(
        &mut self,
        observed: &ObservedClaim,
        before: PriorClaimantState,
        transition: &mut BindingTransition,
    ) {
        let mac = observed.mac;
        let Some(current_owner) = self.current_owner else {
            self.first_claim(mac, transition);
            self.check_local(mac, before, transition);
            return;
        };
        self.check_replies(observed, before, transition);
        let owner = self.owner_of(mac, &transition.context);
        let is_current = owner == self.owner_of(current_owner, &transition.context);
        self.update_stale_announcement(owner, observed);
        if is_current {
            if let Some(dispute) = &mut self.dispute {
                dispute.observe_current_owner(observed, &transition.context.rules.config);
            }
            if mac != current_owner {
                self.current_owner = Some(mac);
                self.check_router(mac, before, transition);
            }
            self.check_local(mac, before, transition);
            return;
        }
        let owner_before = self.prior_state_of_owner(mac, before, &transition.context);
        if observed.solicited && owner_before.known && self.is_disputed() {
            self.confirm_current(transition.at);
        } else if self.overlaps(transition) && (owner_before.known || observed.is_probe_reply()) {
            // An earlier owner that has not released the address yet is only remembered.
            return;
        } else {
            self.take_over(observed, current_owner, owner_before, transition);
        }
        self.check_local(mac, before, transition);
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

    /// Whether the last takeover is so recent that other owners may not have noticed it.
    fn overlaps(&self, transition: &BindingTransition) -> bool {
        transition.at.since(self.since) < transition.context.rules.config.takeover_grace
    }

    fn first_claim(&mut self, mac: MacAddr, transition: &mut BindingTransition) {
        self.current_owner = Some(mac);
        self.since = transition.at;
        let mut finding = transition.finding(FindingKind::NewBinding, transition.at);
        finding.owners = self.owners(&transition.context);
        transition.report(finding);
    }

    /// Evicts claimants beyond the bound, never `newest`.
    fn evict_surplus(
        &mut self,
        newest: Option<MacAddr>,
        transition: &mut BindingTransition,
    ) -> OwnerSurplus {
        let keep = [newest, self.current_owner, self.router(&transition.context)];
        let config = &transition.context.rules.config;
        let mut surplus = OwnerSurplus::None;
        while let Some(evicted) = self.claimants.evict_beyond(config.max_macs, keep) {
            transition
                .state
                .claimed_addresses
                .remove(transition.context.key, evicted.mac);
            transition
                .state
                .statistics
                .count_evicted_mac(transition.context.tracked);
            if transition.at.since(evicted.last_seen) < config.slow_alternation_window {
                surplus = OwnerSurplus::Recent;
            }
        }
        surplus
    }

    /// Reports once for each MAC that its claims come from another Ethernet source, unless that is expected.
    pub fn check_source(&mut self, claim: &Claim, transition: &mut BindingTransition) {
        let identity = transition.context.rules.identify(claim.mac);
        if claim.mac == claim.eth_src || identity.has_other_sources() {
            return;
        }
        if !self.claimants.mark_mismatch_reported(claim.mac) {
            transition.suppress(FindingKind::SourceMismatch);
            return;
        }
        let mut finding = transition.finding(FindingKind::SourceMismatch, transition.at);
        finding.owners = self.owners_among(&transition.context, |mac| mac == claim.mac);
        finding.owners.push(host_owner(
            OwnerRole::Sender,
            claim.eth_src,
            transition.at,
            &transition.context,
        ));
        transition.report(finding);
    }

    /// The finding that `mac` replied to the ARP probe that an unknown host sent at `requested_at`.
    pub fn denial(
        &self,
        mac: MacAddr,
        prober: MacAddr,
        requested_at: Timestamp,
        transition: &BindingTransition,
    ) -> Finding {
        let mut finding = transition.finding(FindingKind::ProbeDenied, requested_at);
        finding.owners = self.owners_among(&transition.context, |other| other == mac);
        finding.owners.push(host_owner(
            OwnerRole::Prober,
            prober,
            requested_at,
            &transition.context,
        ));
        finding
    }

    /// Takes the replies to one round of probes.
    pub fn record_replies(
        &mut self,
        probe_request: &ProbeRequest,
        by: &[MacAddr],
        transition: &mut BindingTransition,
    ) {
        match probe_request.purpose {
            ProbePurpose::Confirmation => self.confirm(probe_request, by, transition),
            ProbePurpose::Local => self.other_host_replied(by, transition),
            ProbePurpose::Resolution => self.resolve(probe_request, by, transition),
            ProbePurpose::Periodic => self.check_silence(probe_request, by, transition),
        }
    }

    /// Takes that a round of probes will not be sent: what waits for its replies continues as without probing.
    pub fn record_not_probed(
        &mut self,
        probe_request: &ProbeRequest,
        transition: &mut BindingTransition,
    ) {
        match probe_request.purpose {
            ProbePurpose::Resolution if self.is_wanted(probe_request, &transition.context) => {
                self.mark_quiet_if_due(transition);
            }
            // A move settles, and another host claims an address of this host again, without probes.
            ProbePurpose::Resolution
            | ProbePurpose::Confirmation
            | ProbePurpose::Local
            | ProbePurpose::Periodic => {}
        }
    }

    /// Whether the replies to a probe request are still of use.
    pub fn is_wanted(&self, probe_request: &ProbeRequest, context: &BindingContext) -> bool {
        match probe_request.purpose {
            ProbePurpose::Confirmation if probe_request.round == ProbeRequest::BASELINE => {
                self.conflict().is_some()
            }
            ProbePurpose::Confirmation => {
                self.since == probe_request.requested_for
                    && self.contest().is_some()
                    && self.conflict().is_none()
            }
            ProbePurpose::Local => context.local_address.is_some() && self.conflict().is_none(),
            ProbePurpose::Resolution => {
                let inquiring = self.conflict().and_then(OpenConflict::inquiry_started_at);
                inquiring == Some(probe_request.requested_for)
            }
            ProbePurpose::Periodic => true,
        }
    }

    /// The first deadline.
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
    pub fn expire(&mut self, transition: &mut BindingTransition) {
        // What one step leaves due, the next one ends: a quiet conflict whose owners are long gone expires at once.
        for _ in 0..MAX_STEPS {
            if self
                .next_deadline(&transition.context)
                .is_none_or(|at| at > transition.at)
            {
                return;
            }
            self.expire_first(transition);
        }
    }

    /// Does the first thing that is due.
    fn expire_first(&mut self, transition: &mut BindingTransition) {
        let at = transition.at;
        let due = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| deadline <= at);
        if due(self.settles_at(&transition.context)) {
            self.settle(transition);
        } else if due(self.conflict_deadline(&transition.context)) {
            self.expire_conflict(transition);
        } else if due(self.silent_at(&transition.context)) {
            self.report_silent(transition);
        } else if due(self.stale_announcement_expires_at()) {
            self.clear_stale_announcement();
        } else if due(self.expires_unclaimed_at(&transition.context)) {
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

    /// Counts its silence from now on.
    pub const fn expect_from(&mut self, at: Timestamp) {
        self.expected_since = at;
    }

    /// Records a broadcast request of another host for the address.
    pub fn record_request(&mut self, at: Timestamp) {
        // The first one counts: further requests do not delay the reply.
        self.requested_since.get_or_insert(at);
    }

    /// Whether it was never claimed.
    pub fn is_empty(&self) -> bool {
        self.current_owner.is_none() && self.dispute.is_none() && self.macs().next().is_none()
    }

    /// Takes the replies to a periodic probe: no reply to two of them is silence, unless the address was claimed
    /// meanwhile, or this host announces it or may do so, because this host does not receive its own replies.
    fn check_silence(
        &mut self,
        probe_request: &ProbeRequest,
        by: &[MacAddr],
        transition: &mut BindingTransition,
    ) {
        let context = transition.context;
        let is_ours = context.local_address.is_some()
            || self
                .current_owner
                .is_some_and(|mac| context.facts.is_local(mac))
            || self.may_be_local(&transition.context, transition.at);
        let is_alive = self
            .claimants
            .iter()
            .any(|claimant| claimant.last_seen >= probe_request.requested_for);
        let unanswered = probe_request.round > 0 && by.is_empty() && !is_alive;
        // A host that replies to requests and was never observed to reply to a probe is there all the same, until it has
        // claimed nothing for long.
        let is_unproven = transition.at.since(self.last_claim())
            < context.rules.config.expire_after
            && self
                .claimants
                .iter()
                .any(|one| one.replies_to_requests && !one.replies_to_probes);
        if context.tracked && unanswered && !is_unproven && !is_ours && !self.silent_reported {
            self.report_silent(transition);
        }
    }

    /// Whether a speaker on this host may announce the address that was never observed: it would have replied to the
    /// request of another host, and the egress hook would have observed that.
    fn may_be_local(&self, context: &BindingContext, now: Timestamp) -> bool {
        let kept_silent = self
            .requested_since
            .is_some_and(|requested_at| now.since(requested_at) >= REPLY_WINDOW);
        context.facts.may_be_announced_locally(&context.key) && self.is_empty() && !kept_silent
    }

    /// Forgets whether the address is silent.
    pub const fn withdraw_silence(&mut self) {
        self.silent_reported = false;
    }

    fn report_silent(&mut self, transition: &mut BindingTransition) {
        self.silent_reported = true;
        let mut finding = transition.finding(FindingKind::Silent, self.last_claim());
        finding.owners = self.owners(&transition.context);
        transition.report(finding);
    }

    /// The last claim, if the silence since then has been reported and lasts.
    pub fn silent_since(&self, context: &BindingContext) -> Option<Timestamp> {
        self.is_silent(context).then(|| self.last_claim())
    }

    /// When another host has last claimed it.
    pub fn last_claim_of_others(&self, facts: &HostState) -> Option<Timestamp> {
        let claimants = self.claimants.iter();
        let others = claimants.filter(|claimant| !facts.is_local(claimant.mac));
        others.map(|claimant| claimant.last_seen).max()
    }

    /// The last claim, or since when one is expected.
    fn last_claim(&self) -> Timestamp {
        let last_seen = self.claimants.iter().map(|claimant| claimant.last_seen);
        last_seen.max().unwrap_or(self.since)
    }

    fn expires_unclaimed_at(&self, context: &BindingContext) -> Option<Timestamp> {
        self.dispute
            .as_ref()?
            .returns_expire_at(&context.rules.config)
    }

    /// Moves times in the future to `now`, to which the clock was set back.
    pub fn forget_future(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.expected_since = self.expected_since.min(now);
        self.requested_since = self
            .requested_since
            .map(|requested_at| requested_at.min(now));
        self.claimants.forget_future(now);
        if let Some(dispute) = &mut self.dispute {
            dispute.forget_future(now);
        }
    }

    /// Whether a claim of `mac` at `at` or later was observed.
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

    /// The owners to show: the present ones in an open conflict, else all that are remembered.
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

    /// Whether an episode of `contested` is remembered.
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

    /// Whether the ownership is not settled.
    fn is_disputed(&self) -> bool {
        self.contest().is_some() || self.conflict().is_some()
    }
}
