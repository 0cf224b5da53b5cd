//! One address on one segment: who claims it, and what follows from that.
//!
//! A binding is *settled* (one owner, the holder), *contested* (an owner took over, and the one before has
//! not been silent for the settle time) or in *conflict*. [`Binding::hear`] takes one claim;
//! [`Binding::expire`] what becomes due without one.

use probe_common::wire::MacAddr;

use super::{
    Ask, Claim, Evidence, FindingKind, Form, Hint, Purpose, RequestId, Timestamp,
    claimants::{Before, Claimants},
    conflict::{Answered, Conclusion, Conflict},
    dispute::{Beside, Confirmation, Contest, Dispute},
    owner::Identity,
    scene::{Output, Scene},
};

/// A claim as a binding hears it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub at: Timestamp,
    pub mac: MacAddr,
    pub form: Form,
    /// The request that it answers in time.
    pub answers: Option<RequestId>,
    /// Who asked that request.
    pub asker: Option<MacAddr>,
    /// It answers an ARP probe of this host.
    pub solicited: bool,
}

impl Heard {
    /// A unicast reply with spa = tpa: what an outgoing speaker says to an incoming one's announcement.
    const fn is_courtesy(&self) -> bool {
        self.form.reply && self.form.announcement && self.form.unicast
    }
}

/// What is known of one address.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) claimants: Claimants,
    /// The MAC that has the address: of the owner that took over last, the one seen last.
    pub(super) holder: Option<MacAddr>,
    /// Since when its owner has it; before the first claim, since when one is waited for.
    since: Timestamp,
    silent_told: bool,
    pub(super) dispute: Option<Box<Dispute>>,
}

impl Binding {
    /// An address that nobody has claimed.
    pub fn new(at: Timestamp) -> Self {
        Self {
            claimants: Claimants::default(),
            holder: None,
            since: at,
            silent_told: false,
            dispute: None,
        }
    }

    /// The open conflict.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.dispute.as_ref()?.conflict.as_ref()
    }

    /// Takes one claim.
    pub fn hear(&mut self, heard: &Heard, scene: &Scene, out: &mut Output) {
        let (mac, at) = (heard.mac, heard.at);
        let before = self.claimants.note(mac, at, heard.form, heard.answers);
        self.silent_told = false;
        if !before.known {
            self.remember_at_most(mac, scene, out);
        }
        let Some(holder) = self.holder else {
            self.first_claim(mac, at, scene, out);
            self.claim_to_local(heard, before, scene, out);
            return;
        };
        if let Some(request) = heard.answers {
            self.compare_answers(request, heard, before, scene, out);
        }
        if mac == holder {
            self.claim_to_local(heard, before, scene, out);
            return;
        }
        if self.owner_of(mac, scene) == self.owner_of(holder, scene) {
            self.holder = Some(mac);
            self.beside_router(mac, at, before, scene, out);
        } else if heard.solicited && before.known && self.in_doubt() {
            self.testified(at);
        } else if at.since(self.since) < scene.rules.config.overlap
            && (before.known || heard.is_courtesy())
        {
            return;
        } else {
            self.take_over(mac, at, holder, before, scene, out);
        }
        self.claim_to_local(heard, before, scene, out);
    }

    fn first_claim(&mut self, mac: MacAddr, at: Timestamp, scene: &Scene, out: &mut Output) {
        self.holder = Some(mac);
        self.since = at;
        let mut finding = scene.finding(FindingKind::NewBinding, at, at);
        finding.owners = self.owners(scene, at);
        out.report(scene, finding);
    }

    /// Makes room for a new claimant.
    fn remember_at_most(&mut self, newest: MacAddr, scene: &Scene, out: &mut Output) {
        let segment = scene.key.segment;
        out.ledger.holders.add(segment, newest);
        let keep = [Some(newest), self.holder, self.router(scene)];
        if let Some(evicted) = self
            .claimants
            .evict_beyond(scene.rules.config.max_macs, keep)
        {
            out.ledger.holders.remove(segment, evicted);
            out.ledger.statistics.evicted_macs += 1;
        }
    }

    /// Whether somebody else answered the same request.
    fn compare_answers(
        &mut self,
        request: RequestId,
        heard: &Heard,
        before: Before,
        scene: &Scene,
        out: &mut Output,
    ) {
        let (mac, at) = (heard.mac, heard.at);
        let owner = self.owner_of(mac, scene);
        let virtual_owner = matches!(owner, Identity::VirtualRouter(_));
        if before.answered && virtual_owner && self.is_router(mac, scene) {
            self.contested(at, Some(Hint::TwoMasters), scene, out);
        }
        let Some(asker) = heard.asker else {
            return;
        };
        let asker = self.identity_of_asker(asker, scene);
        let (mut rivals, mut beside) = (0, None);
        for other in self.claimants.iter() {
            if other.mac == mac || other.answered != Some(request) {
                continue;
            }
            let rival = self.owner_of(other.mac, scene);
            if rival != owner {
                rivals += usize::from(rival != asker && owner != asker);
            } else if virtual_owner
                && self.is_router(mac, scene) != self.is_router(other.mac, scene)
            {
                beside = Some(Hint::RouterAndHost);
            } else if virtual_owner {
                beside = Some(Hint::TwoMasters);
            }
        }
        if rivals > 0 {
            let hint = (rivals > 1).then_some(Hint::IpvsStrictArp);
            self.evidence(
                Evidence::DuplicateReply,
                at,
                Some(request),
                hint,
                scene,
                out,
            );
        }
        if beside.is_some() {
            self.contested(at, beside, scene, out);
        }
    }

    /// A physical MAC beside a virtual-router MAC belongs to the router that is master now. Another one
    /// means a failover, which is nothing; one that comes back at once means two masters.
    fn beside_router(
        &mut self,
        mac: MacAddr,
        at: Timestamp,
        before: Before,
        scene: &Scene,
        out: &mut Output,
    ) {
        let physical = matches!(scene.rules.identify(mac), Identity::Station(_));
        if !physical || self.router(scene).is_none() {
            return;
        }
        let config = &scene.rules.config;
        let dispute = self.dispute.get_or_insert_default();
        let latest = Beside { mac, since: at };
        let Some(beside) = &mut dispute.beside else {
            dispute.beside = Some(latest);
            return;
        };
        let age = at.since(beside.since);
        if beside.mac == mac || before.known && age < config.overlap {
            return;
        }
        *beside = latest;
        if before.known && age < config.alternation_window {
            self.contested(at, Some(Hint::TwoMasters), scene, out);
        }
    }

    /// Another owner takes the address.
    fn take_over(
        &mut self,
        mac: MacAddr,
        at: Timestamp,
        previous: MacAddr,
        before: Before,
        scene: &Scene,
        out: &mut Output,
    ) {
        let config = &scene.rules.config;
        self.holder = Some(mac);
        self.since = at;
        let dispute = self.dispute.get_or_insert_default();
        if before.known {
            dispute.returned(at, config);
        }
        let returned = match &mut dispute.contest {
            None => {
                dispute.contest = Some(Contest::new(previous, at));
                false
            }
            Some(contest) => {
                contest.renew(previous, at, before.known);
                before.known
            }
        };
        if let Some(conflict) = &mut dispute.conflict {
            conflict.counts.returns += u64::from(before.known);
        }
        let alternates = dispute.alternates(at, config);
        let balanced = self.balanced(scene).then_some(Hint::BalanceAlb);
        if alternates && balanced.is_none() {
            self.evidence(
                self.kind_of_alternation(mac, scene),
                at,
                None,
                None,
                scene,
                out,
            );
        } else if alternates || returned {
            self.contested(at, balanced, scene, out);
        }
        self.ask_to_confirm(mac, at, previous, scene, out);
    }

    /// A stranger that took the address from this host, lost it and took it again: this host held it.
    fn kind_of_alternation(&self, mac: MacAddr, scene: &Scene) -> Evidence {
        let contest = self.dispute.as_ref().and_then(|dispute| dispute.contest);
        let from_local = contest.is_some_and(|contest| scene.facts.is_local(contest.settled));
        if from_local && !scene.facts.is_local(mac) {
            Evidence::Local
        } else {
            Evidence::Alternation
        }
    }

    /// Bonding mode balance-alb: of two owners, one only ever asks and the other only ever answers.
    fn balanced(&self, scene: &Scene) -> bool {
        let mut asking = None;
        let mut answering = None;
        for claimant in self.claimants.iter().filter(|claimant| claimant.present) {
            let owner = self.owner_of(claimant.mac, scene);
            let side = match (claimant.requested, claimant.replied) {
                (true, false) => &mut asking,
                (false, true) => &mut answering,
                (true, true) | (false, false) => return false,
            };
            if side.is_some_and(|known| known != owner) {
                return false;
            }
            *side = Some(owner);
        }
        asking.is_some() && answering.is_some() && asking != answering
    }

    fn ask_to_confirm(
        &self,
        mac: MacAddr,
        at: Timestamp,
        previous: MacAddr,
        scene: &Scene,
        out: &mut Output,
    ) {
        let config = &scene.rules.config;
        // This host cannot hear its own answers.
        let local = scene.facts.is_local(mac) || scene.facts.is_local(previous);
        if !config.may_ask || local || self.conflict().is_some() {
            return;
        }
        for (round, (earliest, latest)) in (0..).zip(config.confirmation) {
            out.ask(Ask {
                key: scene.key,
                purpose: Purpose::Confirmation,
                round,
                about: at,
                earliest: at + earliest,
                latest: at + latest,
                to: vec![previous, mac],
            });
        }
    }

    /// Asked by us, an owner that does not have the address at present answered: no return, but no
    /// silence either.
    fn testified(&mut self, at: Timestamp) {
        if let Some(contest) = self.contest_mut() {
            contest.silent_since = contest.silent_since.max(at);
        }
    }

    /// A claim to an address that this host holds.
    fn claim_to_local(&mut self, heard: &Heard, before: Before, scene: &Scene, out: &mut Output) {
        let Some(start) = self.local_dispute_since(heard.mac, scene) else {
            return;
        };
        let config = &scene.rules.config;
        if before.present && heard.at.since(start) >= config.local_grace {
            self.evidence(Evidence::Local, heard.at, None, None, scene, out);
        } else if !before.present && config.may_ask {
            let earliest = start + config.local_grace;
            out.ask(Ask {
                key: scene.key,
                purpose: Purpose::Local,
                round: 0,
                about: start,
                earliest,
                latest: earliest + config.local_grace,
                to: vec![heard.mac],
            });
        }
    }

    /// Since when a stranger and this host both had the time to see each other: the latest of the stranger's
    /// first claim, its last return, and this host's getting the address. `None` if it is no stranger, or
    /// this host does not hold the address.
    fn local_dispute_since(&self, mac: MacAddr, scene: &Scene) -> Option<Timestamp> {
        let held = scene.held?;
        let stranger = !scene.facts.is_local(mac)
            && self.owner_of(mac, scene) != self.owner_of(held.mac, scene);
        if !stranger {
            return None;
        }
        let since = self.claimants.get(mac)?.since.max(held.since);
        let contest = self.dispute.as_ref().and_then(|dispute| dispute.contest);
        let has_returned = contest.is_some_and(|contest| contest.returns > 0);
        Some(if has_returned && self.holder == Some(mac) {
            since.max(self.since)
        } else {
            since
        })
    }

    /// There is evidence of two owners.
    fn evidence(
        &mut self,
        evidence: Evidence,
        at: Timestamp,
        request: Option<RequestId>,
        hint: Option<Hint>,
        scene: &Scene,
        out: &mut Output,
    ) {
        let owners = self.parties(scene, at);
        if owners.len() < 2 {
            return;
        }
        let hint = self.hint_of_parties(&owners, scene).or(hint);
        let ignored = scene.rules.config.ignored(scene.key.ip, at).is_some();
        let dispute = self.dispute.get_or_insert_default();
        let returns = dispute.contest.map_or(0, |contest| contest.returns);
        let conflict = dispute.conflict.get_or_insert_with(|| {
            let mut conflict = Conflict::new(evidence, at);
            conflict.counts.returns = returns as u64;
            conflict
        });
        let tell = conflict.note(evidence, at, request, owners.len(), ignored);
        conflict.hint = hint.or(conflict.hint);
        if tell {
            let mut finding = scene.finding(FindingKind::Conflict, at, conflict.opened_at);
            finding.owners = owners;
            finding.evidence = Some(evidence);
            finding.counts = conflict.counts;
            finding.hint = conflict.hint;
            out.report(scene, finding);
        }
    }

    /// There is a sign of trouble that is less than a conflict. Told once per episode.
    fn contested(&mut self, at: Timestamp, hint: Option<Hint>, scene: &Scene, out: &mut Output) {
        let since = self.since;
        let dispute = self.dispute.get_or_insert_default();
        if dispute.conflict.is_some() {
            return;
        }
        let quiet = scene.rules.config.resolution_quiet;
        let calm = dispute.contested.is_none_or(|sign| at.since(sign) > quiet);
        dispute.contested = dispute.contested.max(Some(at));
        if !calm {
            out.hold_back(FindingKind::Contested);
            return;
        }
        let contest = dispute.contest;
        let mut finding = scene.finding(
            FindingKind::Contested,
            at,
            contest.map_or(since, |contest| contest.began),
        );
        finding.counts.returns = contest.map_or(0, |contest| contest.returns as u64);
        finding.hint = hint;
        finding.owners = self.parties(scene, at);
        out.report(scene, finding);
    }

    /// When something becomes due without a claim.
    pub fn next_deadline(&self, scene: &Scene) -> Option<Timestamp> {
        [
            self.settles_at(scene),
            self.conflict_due(scene),
            self.silent_at(scene),
            self.forgets_at(scene),
        ]
        .into_iter()
        .flatten()
        .min()
        // At the end of time additions saturate, and what is due then would be due again and again.
        .filter(|&at| at < Timestamp(u64::MAX))
    }

    /// Does the first thing that is due at `at`, which is when [`Self::next_deadline`] said.
    pub fn expire(&mut self, at: Timestamp, scene: &Scene, out: &mut Output) {
        let due = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| deadline <= at);
        if due(self.settles_at(scene)) {
            self.settle(at, scene, out);
        } else if due(self.conflict_due(scene)) {
            self.conflict_is_due(at, scene, out);
        } else if due(self.silent_at(scene)) {
            self.fall_silent(at, scene, out);
        } else if due(self.forgets_at(scene)) {
            self.dispute = None;
        }
    }

    fn settles_at(&self, scene: &Scene) -> Option<Timestamp> {
        let contest = self.dispute.as_ref()?.contest?;
        Some(contest.silent_since + scene.rules.config.settle)
    }

    /// Nobody but the holder has claimed the address for long enough.
    fn settle(&mut self, at: Timestamp, scene: &Scene, out: &mut Output) {
        let Some(dispute) = &mut self.dispute else {
            return;
        };
        let (Some(contest), Some(holder)) = (dispute.contest.take(), self.holder) else {
            return;
        };
        if dispute.conflict.is_some() {
            return;
        }
        if self.local_dispute_since(holder, scene).is_some()
            && scene.facts.is_local(contest.settled)
        {
            // This host keeps silent, but it still holds the address.
            self.contested(at, None, scene, out);
            self.holder = Some(contest.settled);
            return;
        }
        if self.owner_of(contest.settled, scene) != self.owner_of(holder, scene) {
            let mut finding = scene.finding(FindingKind::Moved, at, self.since);
            finding.owners = self.owners_among(scene, at, |mac| {
                let owner = self.owner_of(mac, scene);
                owner == self.owner_of(holder, scene)
                    || owner == self.owner_of(contest.settled, scene)
            });
            finding.counts.returns = contest.returns as u64;
            out.report(scene, finding);
        }
        self.leave_only(holder, scene);
    }

    /// The others no longer take part.
    fn leave_only(&mut self, holder: MacAddr, scene: &Scene) {
        let owner = self.owner_of(holder, scene);
        let gone: smallvec::SmallVec<[MacAddr; 8]> = self
            .claimants
            .iter()
            .map(|claimant| claimant.mac)
            .filter(|&mac| self.owner_of(mac, scene) != owner)
            .collect();
        for claimant in self.claimants.iter_mut() {
            claimant.present &= !gone.contains(&claimant.mac);
        }
    }

    fn conflict_due(&self, scene: &Scene) -> Option<Timestamp> {
        let expires_at = || self.expires_at(scene);
        let conflict = self.conflict()?;
        Some(conflict.next_deadline(expires_at(), &scene.rules.config))
    }

    /// When nobody but one owner will have claimed the address for the expiry time. This host goes on
    /// claiming what it holds.
    fn expires_at(&self, scene: &Scene) -> Timestamp {
        let held = scene.held.map(|held| self.owner_of(held.mac, scene));
        let mut last_seen: smallvec::SmallVec<[(Identity, Timestamp); 8]> =
            smallvec::SmallVec::new();
        last_seen.extend(held.map(|owner| (owner, Timestamp(u64::MAX))));
        for claimant in self.claimants.iter().filter(|claimant| claimant.present) {
            let owner = self.owner_of(claimant.mac, scene);
            match last_seen.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, at)) => *at = claimant.last_seen.max(*at),
                None => last_seen.push((owner, claimant.last_seen)),
            }
        }
        last_seen.sort_unstable_by_key(|&(_, at)| std::cmp::Reverse(at));
        let second = last_seen.get(1).map(|&(_, at)| at);
        let evidence = self.conflict().map(|conflict| conflict.last_evidence);
        second.or(evidence).unwrap_or_default() + scene.rules.config.expiry
    }

    fn conflict_is_due(&mut self, at: Timestamp, scene: &Scene, out: &mut Output) {
        let config = &scene.rules.config;
        let expires_at = self.expires_at(scene);
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.quiet_since.is_some() && expires_at <= at {
            self.end_conflict(FindingKind::ConflictExpired, at, None, scene, out);
            return;
        }
        let unanswered = conflict.inquiring_since().is_some();
        if config.may_ask {
            for ask in conflict.inquire(scene.key, at, config) {
                out.ask(ask);
            }
        }
        if unanswered || !config.may_ask {
            self.become_quiet(at, scene, out);
        }
    }

    fn become_quiet(&mut self, at: Timestamp, scene: &Scene, out: &mut Output) {
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        if conflict.quiet_since.is_some() {
            return;
        }
        conflict.quiet_since = Some(at);
        self.tell_of_conflict(FindingKind::ConflictQuiet, at, scene, out);
    }

    fn tell_of_conflict(&self, kind: FindingKind, at: Timestamp, scene: &Scene, out: &mut Output) {
        let Some(conflict) = self.conflict() else {
            return;
        };
        let mut finding = scene.finding(kind, at, conflict.opened_at);
        finding.owners = self.parties(scene, at);
        finding.evidence = Some(conflict.evidence);
        finding.counts = conflict.counts;
        finding.hint = conflict.hint;
        out.report(scene, finding);
    }

    /// The conflict is over; `left` is the owner that is known to be left.
    fn end_conflict(
        &mut self,
        kind: FindingKind,
        at: Timestamp,
        left: Option<Identity>,
        scene: &Scene,
        out: &mut Output,
    ) {
        if let Some(left) = left {
            let of_left = |mac| self.owner_of(mac, scene) == left;
            let held = scene.held.map(|held| held.mac);
            self.holder = self
                .claimants
                .iter()
                .filter(|claimant| of_left(claimant.mac))
                .max_by_key(|claimant| claimant.last_seen)
                .map(|claimant| claimant.mac)
                .or(held.filter(|&mac| of_left(mac)))
                .or(self.holder);
        }
        self.tell_of_conflict(kind, at, scene, out);
        if let Some(dispute) = &mut self.dispute {
            dispute.conflict = None;
            dispute.contest = None;
            dispute.contested = None;
            dispute.returns.clear();
        }
        self.since = at;
        if let Some(holder) = self.holder {
            self.leave_only(holder, scene);
        }
    }

    /// Takes the outcome of a round of asking.
    pub fn answered(
        &mut self,
        ask: &Ask,
        at: Timestamp,
        by: &[MacAddr],
        scene: &Scene,
        out: &mut Output,
    ) {
        match ask.purpose {
            Purpose::Confirmation => self.confirmed(ask, at, by, scene, out),
            Purpose::Local => {
                let grace = scene.rules.config.local_grace;
                for &mac in by {
                    let since = self.local_dispute_since(mac, scene);
                    if since.is_some_and(|since| at.since(since) >= grace) {
                        self.evidence(Evidence::Local, at, None, None, scene, out);
                    }
                }
            }
            Purpose::Resolution => self.resolution(ask, at, by, scene, out),
        }
    }

    fn confirmed(
        &mut self,
        ask: &Ask,
        at: Timestamp,
        by: &[MacAddr],
        scene: &Scene,
        out: &mut Output,
    ) {
        let Some(holder) = self.holder.filter(|_| self.since == ask.about) else {
            return;
        };
        let Some(previous) = self.contest_mut().map(|contest| contest.previous) else {
            return;
        };
        let answered = |mac| {
            let owner = self.owner_of(mac, scene);
            by.iter().any(|&mac| self.owner_of(mac, scene) == owner)
        };
        let said = Confirmation {
            previous: answered(previous),
            holder: answered(holder),
        };
        let Some(contest) = self.contest_mut() else {
            return;
        };
        let Some(round) = contest.rounds.get_mut(usize::from(ask.round)) else {
            return;
        };
        *round = Some(said);
        let [Some(first), Some(second)] = contest.rounds else {
            return;
        };
        if first.previous && first.holder && second.previous && second.holder {
            self.evidence(Evidence::Confirmed, at, None, None, scene, out);
        } else if !first.previous && !second.previous {
            self.settle(at, scene, out);
        }
    }

    fn resolution(
        &mut self,
        ask: &Ask,
        at: Timestamp,
        by: &[MacAddr],
        scene: &Scene,
        out: &mut Output,
    ) {
        // Nobody hears himself answer: what this host holds, it would have answered for.
        let mut owners = by.iter().copied().chain(scene.held.map(|held| held.mac));
        let owners = owners.by_ref().map(|mac| self.owner_of(mac, scene));
        let answered = owners.fold(Answered::Nobody, |answered, owner| match answered {
            Answered::Nobody => Answered::One(owner),
            Answered::One(known) if known == owner => answered,
            Answered::One(_) | Answered::Several => Answered::Several,
        });
        // What speaks for the address on this host without its being configured here cannot be asked.
        let silent_local = scene.held.is_none()
            && self
                .claimants
                .iter()
                .any(|claimant| claimant.present && scene.facts.is_local(claimant.mac));
        let Some(conflict) = self.conflict_mut() else {
            return;
        };
        match conflict.answered(ask, answered) {
            Conclusion::Waiting => {}
            Conclusion::OneLeft(owner) if !silent_local => {
                self.end_conflict(FindingKind::ConflictResolved, at, Some(owner), scene, out);
            }
            Conclusion::OneLeft(_) | Conclusion::Unclear => self.become_quiet(at, scene, out),
            Conclusion::StillShared => {
                self.evidence(Evidence::Confirmed, at, None, None, scene, out);
            }
        }
    }

    /// Whether the answer to an ask would still be of use.
    pub fn wants(&self, ask: &Ask, scene: &Scene) -> bool {
        match ask.purpose {
            Purpose::Confirmation => {
                self.since == ask.about && self.conflict().is_none() && self.in_doubt()
            }
            Purpose::Local => scene.held.is_some() && self.conflict().is_none(),
            Purpose::Resolution => {
                let inquiring = self.conflict().and_then(Conflict::inquiring_since);
                inquiring == Some(ask.about)
            }
        }
    }

    fn silent_at(&self, scene: &Scene) -> Option<Timestamp> {
        if !scene.tracked || scene.held.is_some() || self.silent_told {
            return None;
        }
        Some(self.last_claim() + scene.rules.config.silent_after?)
    }

    fn last_claim(&self) -> Timestamp {
        let last_seen = self.claimants.iter().map(|claimant| claimant.last_seen);
        last_seen.max().unwrap_or(self.since)
    }

    fn fall_silent(&mut self, at: Timestamp, scene: &Scene, out: &mut Output) {
        self.silent_told = true;
        let mut finding = scene.finding(FindingKind::Silent, at, self.last_claim());
        finding.owners = self.owners(scene, at);
        out.report(scene, finding);
    }

    fn forgets_at(&self, scene: &Scene) -> Option<Timestamp> {
        self.dispute.as_ref()?.spent_at(&scene.rules.config)
    }

    /// Reports, once for each MAC, that its claims come from another Ethernet source, where that is not
    /// expected of it.
    pub fn check_source(&mut self, claim: &Claim, at: Timestamp, scene: &Scene, out: &mut Output) {
        if claim.mac == claim.eth_src || scene.rules.identify(claim.mac).has_other_sources() {
            return;
        }
        let Some(claimant) = self.claimants.get_mut(claim.mac) else {
            return;
        };
        if std::mem::replace(&mut claimant.mismatch_told, true) {
            out.hold_back(FindingKind::SourceMismatch);
            return;
        }
        let mut finding = scene.finding(FindingKind::SourceMismatch, at, at);
        finding.owners = self.owners_among(scene, at, |mac| mac == claim.mac);
        finding
            .owners
            .push(super::parties::sender(claim.eth_src, at, scene));
        out.report(scene, finding);
    }

    /// No time lies in the future: called when the clock was set back to `now`.
    pub fn forget_future(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.claimants.forget_future(now);
        if let Some(dispute) = &mut self.dispute {
            dispute.forget_future(now);
        }
    }

    /// Whether the claim of `mac` made before was noted at or after `at`.
    pub fn has_heard(&self, mac: MacAddr, at: Timestamp) -> bool {
        let known = self.claimants.get(mac);
        known.is_some_and(|claimant| claimant.last_seen >= at)
    }

    fn in_doubt(&self) -> bool {
        let dispute = self.dispute.as_ref();
        dispute.is_some_and(|dispute| dispute.contest.is_some() || dispute.conflict.is_some())
    }

    fn contest_mut(&mut self) -> Option<&mut Contest> {
        self.dispute.as_mut()?.contest.as_mut()
    }

    fn conflict_mut(&mut self) -> Option<&mut Conflict> {
        self.dispute.as_mut()?.conflict.as_mut()
    }
}
