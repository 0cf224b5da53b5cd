//! The detector: its inputs and outputs.

mod reconfigure;

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use probe_common::{counter::Direction, wire::MacAddr};
use probe_model::{
    BindingKey, BindingView, BogusReason, Finding, FindingKind, OwnerRole, Segment, Timestamp,
};
use smallvec::SmallVec;

use super::{
    AddressGroup, AddressView, BindingPage, BogusFrame, Claim, DetectConfig, DetectorStatistics,
    ExpectedAddresses, HostFacts, Observation, ObservationBody, ObservedProbe, ProbePurpose,
    ProbeRequest, TableCursor,
    binding::{Binding, ObservedClaim, ReconfigurationChange, host_owner},
    bogus::BogusSenders,
    environment::DetectorEnvironment,
    host_facts::{HostState, LocalAddress},
    local_replies::{LocalReplies, LocalReply},
    owner::OwnerRules,
    probes::{ProbeDenial, ProbeHistory},
    table::{BindingEntry, BindingSlot, BindingTable},
    transition::{BindingContext, BindingTransition, DetectorState},
};
use crate::view::{binding_view, conflict_view};

/// Observations may be this much out of order. An earlier one means that the clock was set back.
const OUT_OF_ORDER: Duration = Duration::from_secs(1);

/// The detection state machine. See the [module](super) for its rules.
#[derive(Debug)]
pub struct Detector {
    environment: DetectorEnvironment,
    table: BindingTable,
    state: DetectorState,
    probes: ProbeHistory,
    local_replies: LocalReplies,
    bogus_senders: BogusSenders,
    /// How often the facts, the expected addresses or the configuration were replaced.
    reported_count: u64,
}

impl Detector {
    /// A detector without observations.
    pub fn new(config: DetectConfig) -> Self {
        let rules = OwnerRules::new(config);
        Self {
            table: BindingTable::new(rules.config.max_bindings),
            environment: DetectorEnvironment {
                rules,
                facts: HostState::default(),
            },
            state: DetectorState::default(),
            probes: ProbeHistory::default(),
            local_replies: LocalReplies::default(),
            bogus_senders: BogusSenders::default(),
            reported_count: 0,
        }
    }

    /// Processes one frame and appends its findings to `findings`. Deadlines before it are processed first, so a run over
    /// a capture needs no ticks, and live ticks only reduce the delay.
    pub fn observe(&mut self, observation: &Observation, findings: &mut Vec<Finding>) {
        self.handle_clock_step(observation.at);
        self.state.statistics.observations += 1;
        let (at, segment) = (observation.at, observation.segment);
        match &observation.body {
            ObservationBody::Claim(claim) => {
                self.process_carried_claim(claim, at, segment, findings);
                self.advance(at, findings);
                self.process_claim(claim, at, segment, findings);
                if observation.direction == Direction::Egress {
                    self.compare_local_replies(claim, at, segment, findings);
                }
            }
            ObservationBody::Probe(probe) => {
                self.advance(at, findings);
                self.observe_probe(probe, at, segment);
            }
            ObservationBody::Bogus(frame) => {
                self.advance(at, findings);
                self.observe_bogus(frame, at, segment, findings);
            }
        }
        self.advance(at, findings);
    }

    /// Processes the deadlines until `now`.
    pub fn tick(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        self.handle_clock_step(now);
        self.advance(now, findings);
    }

    /// Replaces the host facts.
    pub fn learn(&mut self, facts: HostFacts, at: Timestamp, findings: &mut Vec<Finding>) {
        self.handle_clock_step(at);
        self.advance(at, findings);
        self.environment.facts.replace(facts, at);
        self.reported_count += 1;
        for slot in self.table.slots() {
            let Some(entry) = self.table.get_mut(slot) else {
                continue;
            };
            if self.environment.facts.is_broadcast(&entry.key) {
                self.forget(slot);
                continue;
            }
            entry.tracked = self.environment.is_tracked(&entry.key);
            let context = self.environment.context(entry.key, entry.tracked);
            let is_new = |address: LocalAddress| address.since == at;
            if context.local_address.is_some_and(is_new) {
                entry
                    .binding
                    .check_new_local_address(&mut BindingTransition {
                        at,
                        context,
                        state: &mut self.state,
                        findings,
                    });
            }
            self.refresh(slot);
        }
        self.expect_all(at, findings);
        self.advance(at, findings);
    }

    /// Replaces the single tracked addresses that are expected to have an owner: those of a cluster's services. Their
    /// silence counts from when they are first among them. The state of one that is no longer among them stays, its
    /// open conflict too.
    pub fn set_expected(
        &mut self,
        expected: Arc<ExpectedAddresses>,
        at: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        self.handle_clock_step(at);
        self.advance(at, findings);
        self.reported_count += 1;
        for key in self.environment.facts.set_expected(expected) {
            let slot = self.table.find(&key);
            let entry = slot.and_then(|slot| Some((slot, self.table.get_mut(slot)?)));
            let Some((slot, entry)) = entry else {
                continue;
            };
            entry.tracked = self.environment.is_tracked(&key);
            if !entry.tracked && entry.binding.is_empty() {
                self.forget(slot);
            } else {
                self.refresh(slot);
            }
        }
        self.expect_all(at, findings);
        self.advance(at, findings);
    }

    /// Whether the address is among the single ones that are expected.
    pub fn is_expected(&self, key: &BindingKey) -> bool {
        self.environment.facts.is_expected(key)
    }

    /// Inserts a binding for each expected address, so that its silence can be reported. An open conflict of one that
    /// was not tracked before is reported again.
    fn expect_all(&mut self, at: Timestamp, findings: &mut Vec<Finding>) {
        for key in self.environment.facts.expected_keys() {
            let Some(slot) = self.table.find(&key) else {
                self.entry_or_insert(key, at);
                continue;
            };
            let Some(entry) = self.table.get_mut(slot).filter(|entry| !entry.tracked) else {
                continue;
            };
            entry.tracked = true;
            entry.binding.expect_from(at);
            let context = self.environment.context(key, true);
            let change = ReconfigurationChange {
                newly_tracked: true,
                before: BindingContext {
                    tracked: false,
                    ..context
                },
            };
            let mut transition = BindingTransition {
                at,
                context,
                state: &mut self.state,
                findings,
            };
            entry.binding.reconsider(&change, &mut transition);
            self.refresh(slot);
        }
    }

    /// Forgets everything about an interface that is gone, its open conflicts too.
    pub fn forget_interface(&mut self, interface: u32) {
        for slot in self.table.slots() {
            let entry = self.table.get(slot);
            if entry.is_some_and(|entry| entry.key.segment.interface == interface) {
                self.forget(slot);
            }
        }
    }

    /// Takes the outcome of one round of probes: the MACs that replied, perhaps none. The replies themselves are frames
    /// and have to be observed first.
    pub fn record_replies(
        &mut self,
        probe_request: &ProbeRequest,
        at: Timestamp,
        replied_by: &[MacAddr],
        findings: &mut Vec<Finding>,
    ) {
        self.emit_findings(probe_request, at, findings, |binding, transition| {
            binding.record_replies(probe_request, replied_by, transition);
        });
    }

    /// Takes that a round of probes is not sent: another agent sends it, or it cannot be sent from here.
    pub fn record_not_probed(
        &mut self,
        probe_request: &ProbeRequest,
        at: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        self.emit_findings(probe_request, at, findings, |binding, transition| {
            binding.record_not_probed(probe_request, transition);
        });
    }

    /// Passes the outcome of a probe request to its binding.
    fn emit_findings(
        &mut self,
        probe_request: &ProbeRequest,
        at: Timestamp,
        findings: &mut Vec<Finding>,
        apply: impl FnOnce(&mut Binding, &mut BindingTransition),
    ) {
        self.handle_clock_step(at);
        self.advance(at, findings);
        let Some(slot) = self.table.find(&probe_request.key) else {
            return;
        };
        let Some(entry) = self.table.get_mut(slot) else {
            return;
        };
        let mut transition = BindingTransition {
            at,
            context: self.environment.context(entry.key, entry.tracked),
            state: &mut self.state,
            findings,
        };
        apply(&mut entry.binding, &mut transition);
        self.refresh(slot);
        self.advance(at, findings);
    }

    /// Inserts a binding for a tracked address before its first claim, so that its silence can be reported.
    pub fn expect(&mut self, key: BindingKey, at: Timestamp) {
        if self.table.find(&key).is_none() && self.environment.is_tracked(&key) {
            self.entry_or_insert(key, at);
        }
    }

    /// The tracked networks of the configuration and the facts.
    pub fn tracked_networks(&self) -> impl Iterator<Item = &IpNet> {
        let configured = self.environment.rules.config.tracked.iter();
        configured.chain(self.environment.facts.tracked_networks())
    }

    /// A number that changes when [`Self::tracked_keys`], [`Self::is_expected`] or [`Self::tracked_networks`] may
    /// return something else than before.
    pub const fn tracked_generation(&self) -> u64 {
        // Neither ever falls.
        self.table.tracked_changes() + self.reported_count
    }

    /// The tracked addresses: those remembered, and this host's own. In no particular order, some twice.
    pub fn tracked_keys(&self) -> impl Iterator<Item = BindingKey> {
        let tracked = self
            .table
            .group(AddressGroup::Tracked, TableCursor::default());
        let tracked = tracked.map(|(_, entry)| entry.key);
        tracked.chain(self.environment.facts.addresses())
    }

    /// Whether the silence of an address has been reported and lasts.
    pub fn is_silent(&self, key: &BindingKey) -> bool {
        self.entry(key).is_some_and(|entry| {
            let context = self.environment.context(entry.key, entry.tracked);
            entry.binding.is_silent(&context)
        })
    }

    /// Forgets that an address is silent, because it was not probed for long.
    pub fn withdraw_silence(&mut self, key: &BindingKey) {
        let slot = self.table.find(key);
        if let Some(entry) = slot.and_then(|slot| self.table.get_mut(slot)) {
            entry.binding.withdraw_silence();
        }
        if let Some(slot) = slot {
            self.refresh(slot);
        }
    }

    /// The address on a segment that another host claimed last: the one most likely to reply to a probe.
    pub fn reference_address(&self, segment: Segment, except: IpAddr) -> Option<BindingKey> {
        let elsewhere = |entry: &&BindingEntry| {
            let context = self.environment.context(entry.key, entry.tracked);
            let is_elsewhere = entry.key.segment == segment && entry.key.ip != except;
            is_elsewhere && !entry.binding.is_silent(&context)
        };
        let of_others = self.table.iter().filter(elsewhere);
        let claimed = of_others.filter_map(|entry| {
            let at = entry
                .binding
                .last_claim_of_others(&self.environment.facts)?;
            Some((at, entry.key))
        });
        claimed.max().map(|(_, key)| key)
    }

    /// When to tick next; before that a tick does nothing. At that time, perhaps nothing is due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.table.next_deadline()
    }

    /// Takes the probe requests. Without [`DetectConfig::can_probe`] there are none.
    pub fn take_probe_requests(&mut self) -> Vec<ProbeRequest> {
        std::mem::take(&mut self.state.probe_requests)
    }

    /// Whether the replies to a probe request are still of use.
    pub fn is_wanted(&self, probe_request: &ProbeRequest) -> bool {
        // Its reply may be the first claim of the address.
        let unknown = probe_request.purpose == ProbePurpose::Periodic;
        self.entry(&probe_request.key).map_or(unknown, |entry| {
            let context = self.environment.context(entry.key, entry.tracked);
            entry.binding.is_wanted(probe_request, &context)
        })
    }

    /// Until when an ARP probe for the address would make a booting host believe that its address is used (RFC 5227
    /// section 2.1.1); `None` if no host is booting with it.
    pub fn quiet_until(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp> {
        self.probes.get(key)?.quiet_until(now)
    }

    /// One binding.
    pub fn binding(&self, key: &BindingKey) -> Option<BindingView> {
        self.entry(key).map(|entry| self.view(entry))
    }

    /// The MACs of an address's owner, none if it was never claimed; `None` in a conflict.
    pub fn owner_macs(&self, key: &BindingKey) -> Option<SmallVec<[MacAddr; 2]>> {
        let Some(entry) = self.entry(key) else {
            return Some(SmallVec::new());
        };
        let context = self.environment.context(entry.key, entry.tracked);
        let current_owner = || {
            entry
                .binding
                .current(&context)
                .map(|current_owner| current_owner.macs)
        };
        let is_settled = entry.binding.conflict().is_none();
        is_settled.then(|| current_owner().unwrap_or_default())
    }

    /// The bindings with an open conflict, ignored ones included, in a stable order without meaning.
    pub fn open_conflicts(&self) -> impl Iterator<Item = BindingView> {
        self.table.conflicts().map(|entry| self.view(entry))
    }

    /// The bindings with a takeover that is neither a move nor a conflict yet, in a stable order without meaning.
    pub fn pending_takeovers(&self) -> impl Iterator<Item = BindingView> {
        let views = self.table.iter().map(|entry| self.view(entry));
        views.filter(|view| view.takeover.is_some())
    }

    /// A part of a group of addresses, at most so many, in a stable order without meaning.
    pub fn page(&self, group: AddressGroup, from: TableCursor, most: usize) -> BindingPage {
        let mut page = BindingPage::default();
        for (slot, entry) in self.table.group(group, from).take(most) {
            page.addresses.push(self.address(entry));
            page.next = (page.addresses.len() == most).then_some(TableCursor::after(slot));
        }
        page
    }

    /// A part of all bindings: not more than so many from the cursor on, and where the next part begins. One
    /// that comes or goes between two parts may be missing, or be there twice.
    pub fn bindings_from(
        &self,
        from: TableCursor,
        most: usize,
    ) -> (Vec<BindingView>, Option<TableCursor>) {
        let (mut views, mut next) = (Vec::new(), None);
        for (slot, entry) in self.table.rest(from).take(most) {
            views.push(self.view(entry));
            next = (views.len() == most).then_some(TableCursor::after(slot));
        }
        (views, next)
    }

    /// Whether the address is tracked.
    pub fn is_tracked(&self, key: &BindingKey) -> bool {
        self.environment.is_tracked(key)
    }

    /// The counts.
    pub fn statistics(&self) -> DetectorStatistics {
        let conflicts = self.table.conflicts();
        let quiet = conflicts.filter_map(|entry| entry.binding.conflict()?.quiet_since);
        DetectorStatistics {
            bindings: self.table.len(),
            open_conflicts: self.table.open_conflicts(),
            quiet_conflicts: quiet.count(),
            tracked: self.table.count(AddressGroup::Tracked),
            contested: self.table.count(AddressGroup::Contested),
            ..self.state.statistics
        }
    }

    /// How many deadlines have been processed.
    #[cfg(test)]
    pub(super) const fn processed_deadlines(&self) -> u64 {
        self.state.processed_deadlines
    }

    /// The configuration.
    pub const fn config(&self) -> &DetectConfig {
        &self.environment.rules.config
    }

    fn entry(&self, key: &BindingKey) -> Option<&BindingEntry> {
        self.table.get(self.table.find(key)?)
    }

    fn view(&self, entry: &BindingEntry) -> BindingView {
        let context = self.environment.context(entry.key, entry.tracked);
        binding_view(entry, &context, self.state.now)
    }

    fn address(&self, entry: &BindingEntry) -> AddressView {
        let context = self.environment.context(entry.key, entry.tracked);
        let (binding, now) = (&entry.binding, self.state.now);
        AddressView {
            key: entry.key,
            tracked: entry.tracked,
            ignored: context.rules.config.ignored(entry.key.ip, now).is_some(),
            current_owner: binding.current(&context),
            silent: binding.is_silent(&context),
            rate_limited: binding.is_rate_limited(&context, now),
            stale_announcement: binding.has_stale_announcement(),
            contested: binding.is_contested(&context, now),
            parties: binding
                .conflict()
                .map(|_| binding.shown_owners(&context, now)),
            conflict: conflict_view(binding),
        }
    }

    /// Processes the deadlines until `now` in the order of time. Every input ends with it too, because it can create
    /// deadlines in the past, such as the expiry of a conflict whose owners are one.
    fn advance(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        while let Some((due, slot)) = self.table.pop_due(now) {
            // A claim that a later one carries may be hours old and leave deadlines in the past. They are processed
            // now: replaying the time since then would repeat what is periodic, for as long as that is.
            let at = due.max(self.state.now);
            self.state.now = at;
            self.state.processed_deadlines += 1;
            if let Some(entry) = self.table.get_mut(slot) {
                entry.binding.expire(&mut BindingTransition {
                    at,
                    context: self.environment.context(entry.key, entry.tracked),
                    state: &mut self.state,
                    findings,
                });
            }
            // `expire` leaves nothing that is due at `at`, so every deadline of a binding is processed later than the
            // one before it.
            self.refresh_from(slot, Timestamp(at.0.saturating_add(1)));
        }
        self.state.now = self.state.now.max(now);
    }

    /// Detects that the clock was set back, and moves remembered times in the future to the present: what was to take a
    /// minute takes no more than that from now.
    fn handle_clock_step(&mut self, now: Timestamp) {
        if now + OUT_OF_ORDER >= self.state.now {
            return;
        }
        self.state.statistics.clock_steps += 1;
        self.state.now = now;
        self.environment.facts.forget_future(now);
        self.probes.clear();
        self.local_replies.clear();
        self.bogus_senders.clear();
        for slot in self.table.slots() {
            if let Some(entry) = self.table.get_mut(slot) {
                entry.binding.forget_future(now);
            }
            self.refresh(slot);
        }
    }

    /// Processes the earlier claim that an observed one carries.
    fn process_carried_claim(
        &mut self,
        claim: &Claim,
        at: Timestamp,
        segment: Segment,
        findings: &mut Vec<Finding>,
    ) {
        let ip = claim.ip;
        let key = BindingKey { segment, ip };
        let Some(carried) = ObservedClaim::carried_by(claim, at, &self.environment) else {
            return;
        };
        let known = self
            .entry(&key)
            .is_some_and(|entry| entry.binding.has_observed(carried.mac, carried.at));
        if !known && !self.environment.facts.is_broadcast(&key) {
            self.advance(carried.at, findings);
            self.observe_claim(key, &carried, findings);
        }
    }

    fn process_claim(
        &mut self,
        claim: &Claim,
        at: Timestamp,
        segment: Segment,
        findings: &mut Vec<Finding>,
    ) {
        let ip = claim.ip;
        let key = BindingKey { segment, ip };
        if self.environment.facts.is_broadcast(&key) {
            let frame = BogusFrame {
                ip,
                mac: claim.mac,
                eth_src: claim.eth_src,
                reason: BogusReason::SpaNetworkBroadcast,
            };
            self.observe_bogus(&frame, at, segment, findings);
            return;
        }
        let observed = ObservedClaim::new_claim(claim, at, &self.environment);
        let Some(slot) = self.observe_claim(key, &observed, findings) else {
            self.state.statistics.rejected_claims += 1;
            return;
        };
        let Some(entry) = self.table.get_mut(slot) else {
            return;
        };
        let mut transition = BindingTransition {
            at,
            context: self.environment.context(key, entry.tracked),
            state: &mut self.state,
            findings,
        };
        if claim.rate_limited {
            entry.binding.record_rate_limit(at);
        }
        entry.binding.check_source(claim, &mut transition);
        if let Some(prober) = claim.reply.filter(|reply| reply.to_probe) {
            let (prober, config) = (prober.requester, &self.environment.rules.config);
            match self.probes.record_reply(key, prober, claim.mac, at, config) {
                ProbeDenial::None => {}
                ProbeDenial::AlreadyReported => transition.suppress(FindingKind::ProbeDenied),
                ProbeDenial::Denied { requested_at } => {
                    let denial = entry
                        .binding
                        .denial(claim.mac, prober, requested_at, &transition);
                    transition.report(denial);
                }
            }
        }
    }

    /// Compares a reply that this host sent with its replies on other interfaces: where two interfaces with different
    /// MACs reply to one host for one address, both are in one network and both reply for it (ARP flux). The other
    /// MAC's reply is then a claim on the segment that has the address.
    fn compare_local_replies(
        &mut self,
        claim: &Claim,
        at: Timestamp,
        segment: Segment,
        findings: &mut Vec<Finding>,
    ) {
        let facts = &self.environment.facts;
        let window = self.environment.rules.config.reply_window;
        let Some(reply) = claim.reply.filter(|_| facts.is_local(claim.mac)) else {
            return;
        };
        let latest = LocalReply {
            segment,
            mac: claim.mac,
            claim: ObservedClaim::new_claim(claim, at, &self.environment),
        };
        let Some(earlier) = self
            .local_replies
            .record(claim.ip, reply.requester, latest, window)
        else {
            return;
        };
        let has_address = |reply: &LocalReply| {
            let (segment, ip) = (reply.segment, claim.ip);
            facts.local_address(&BindingKey { segment, ip }).is_some()
        };
        let (owner, other) = if has_address(&earlier) {
            (earlier, latest)
        } else {
            (latest, earlier)
        };
        let key = BindingKey {
            segment: owner.segment,
            ip: claim.ip,
        };
        let other = ObservedClaim {
            at,
            request: owner.claim.request,
            ..other.claim
        };
        self.observe_claim(key, &other, findings);
    }

    /// Passes a claim to its binding and returns the slot; `None` if the table has no room.
    fn observe_claim(
        &mut self,
        key: BindingKey,
        observed: &ObservedClaim,
        findings: &mut Vec<Finding>,
    ) -> Option<BindingSlot> {
        let slot = self
            .table
            .find(&key)
            .or_else(|| self.entry_or_insert(key, observed.at))?;
        let entry = self.table.get_mut(slot)?;
        let context = self.environment.context(key, entry.tracked);
        let mut transition = BindingTransition {
            at: observed.at,
            context,
            state: &mut self.state,
            findings,
        };
        entry.binding.observe_claim(observed, &mut transition);
        let due = entry.binding.next_deadline(&context);
        self.table.update(slot, due);
        Some(slot)
    }

    fn observe_probe(&mut self, probe: &ObservedProbe, at: Timestamp, segment: Segment) {
        let ip = probe.target;
        let key = BindingKey { segment, ip };
        if !probe.unicast && !self.environment.facts.is_local(probe.prober) {
            let slot = self.table.find(&key);
            if let Some(entry) = slot.and_then(|slot| self.table.get_mut(slot)) {
                entry.binding.record_request(at);
            }
        }
        let is_unknown_host = !probe.has_sender_ip
            && !self.environment.facts.is_local(probe.prober)
            && !self.state.claimed_addresses.has_any(segment, probe.prober)
            && !self.is_router_address(&key);
        if is_unknown_host && !probe.unicast {
            self.probes.record_probe(key, probe.prober, at);
        }
    }

    /// Whether the address is a gateway's or a virtual router's. A host without an address looks its gateway up by
    /// requests like those of a booting host that probes for its future address.
    fn is_router_address(&self, key: &BindingKey) -> bool {
        self.environment.facts.is_gateway(key)
            || self.entry(key).is_some_and(|entry| {
                let context = self.environment.context(entry.key, entry.tracked);
                entry.binding.has_virtual_router(&context)
            })
    }

    fn observe_bogus(
        &mut self,
        frame: &BogusFrame,
        at: Timestamp,
        segment: Segment,
        findings: &mut Vec<Finding>,
    ) {
        let key = BindingKey {
            segment,
            ip: frame.ip,
        };
        let context = self.environment.context(key, false);
        let mut transition = BindingTransition {
            at,
            context,
            state: &mut self.state,
            findings,
        };
        let suppressed = self
            .bogus_senders
            .report(segment, frame, at, &context.rules.config);
        let Some(suppressed) = suppressed else {
            transition.suppress(FindingKind::BogusClaim);
            return;
        };
        let mut finding = transition.finding(FindingKind::BogusClaim, at);
        finding.owners = vec![host_owner(OwnerRole::Sender, frame.eth_src, at, &context)];
        finding.counts.suppressed = suppressed;
        finding.bogus = Some(frame.reason);
        transition.report(finding);
    }

    /// Inserts a binding; `None` if no other one may be evicted for it.
    fn entry_or_insert(&mut self, key: BindingKey, at: Timestamp) -> Option<BindingSlot> {
        self.evict_surplus();
        let tracked = self.environment.is_tracked(&key);
        let (slot, evicted) = self.table.insert(key, tracked, Binding::new(at))?;
        if let Some(evicted) = evicted {
            self.state.statistics.evicted_bindings += 1;
            self.remove_claimed_addresses(&evicted);
        }
        self.refresh(slot);
        Some(slot)
    }

    fn forget(&mut self, slot: BindingSlot) {
        if let Some(entry) = self.table.remove(slot) {
            self.remove_claimed_addresses(&entry);
        }
    }

    /// Removes the address of an evicted binding from those of its claimants.
    fn remove_claimed_addresses(&mut self, entry: &BindingEntry) {
        for mac in entry.binding.macs() {
            self.state.claimed_addresses.remove(entry.key, mac);
        }
    }

    /// Updates the table after a change to a binding.
    fn refresh(&mut self, slot: BindingSlot) {
        let Some(entry) = self.table.get(slot) else {
            return;
        };
        let context = self.environment.context(entry.key, entry.tracked);
        let due = entry.binding.next_deadline(&context);
        self.table.update(slot, due);
    }
}
