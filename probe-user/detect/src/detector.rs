//! The machine: what goes in, what comes out.

mod reconfigure;

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::{
    BindingKey, BindingView, BogusReason, Finding, FindingKind, Role, Segment, Timestamp,
};
use smallvec::SmallVec;

use super::{
    AddressView, Ask, Body, BogusFrame, Claim, Cursor, DetectConfig, Expected, Group, HostFacts,
    Observation, Page, Probe, Purpose, Statistics,
    binding::{Binding, Change, Heard, station},
    bogus::Offenders,
    facts::KnownFacts,
    owner::Rules,
    probes::{Denial, Probes},
    table::{Entry, Slot, Table},
    turn::{Ledger, Scene, Turn},
    world::World,
};
use crate::view::{binding_view, conflict_view};

/// Observations may be this much out of order. An earlier one means that the clock was set back.
const OUT_OF_ORDER: Duration = Duration::from_secs(1);

/// How long a newcomer's probe is kept in mind (RFC 5227 section 2.1.1: it probes and waits for less).
const PROBE_MEMORY: Duration = Duration::from_secs(10);

/// The detection state machine. See the [module](super) for what it decides.
#[derive(Debug)]
pub struct Detector {
    world: World,
    table: Table,
    ledger: Ledger,
    probes: Probes,
    offenders: Offenders,
    /// How often it was told which addresses matter.
    told: u64,
}

impl Detector {
    /// A machine that has seen nothing.
    pub fn new(config: DetectConfig) -> Self {
        let rules = Rules::new(config);
        Self {
            table: Table::new(rules.config.max_bindings),
            world: World {
                rules,
                facts: KnownFacts::default(),
            },
            ledger: Ledger::default(),
            probes: Probes::default(),
            offenders: Offenders::default(),
            told: 0,
        }
    }

    /// Takes one frame and appends what follows from it to `findings`. What became due before it is judged
    /// first, so that a run over a capture needs no ticks, and live ones change nothing but the delay.
    pub fn observe(&mut self, observation: &Observation, findings: &mut Vec<Finding>) {
        self.keep_time(observation.at);
        self.ledger.statistics.observations += 1;
        let (at, segment) = (observation.at, observation.segment);
        match &observation.body {
            Body::Claim(claim) => {
                self.carried_claim(claim, at, segment, findings);
                self.advance(at, findings);
                self.claim(claim, at, segment, findings);
            }
            Body::Probe(probe) => {
                self.advance(at, findings);
                self.probe(probe, at, segment);
            }
            Body::Bogus(frame) => {
                self.advance(at, findings);
                self.bogus(frame, at, segment, findings);
            }
        }
        self.advance(at, findings);
    }

    /// Judges what became due until `now` without a frame.
    pub fn tick(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        self.keep_time(now);
        self.advance(now, findings);
    }

    /// Replaces what is known beyond the frames.
    pub fn learn(&mut self, facts: HostFacts, at: Timestamp, findings: &mut Vec<Finding>) {
        self.keep_time(at);
        self.advance(at, findings);
        self.world.facts.replace(facts, at);
        self.told += 1;
        for slot in self.table.slots() {
            let Some(entry) = self.table.get_mut(slot) else {
                continue;
            };
            if self.world.facts.is_broadcast(&entry.key) {
                self.forget(slot);
                continue;
            }
            entry.tracked = self.world.is_tracked(&entry.key);
            self.refresh(slot);
        }
        self.await_all(at, findings);
        self.advance(at, findings);
    }

    /// Replaces the single addresses that matter and are expected to be there: those of a cluster's services. Their
    /// silence counts from when they are first among them. What is known of one that is no longer stays, its open
    /// conflict too.
    pub fn expect_only(
        &mut self,
        expected: Arc<Expected>,
        at: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        self.keep_time(at);
        self.advance(at, findings);
        self.told += 1;
        for key in self.world.facts.expect_only(expected) {
            let slot = self.table.find(&key);
            let entry = slot.and_then(|slot| Some((slot, self.table.get_mut(slot)?)));
            let Some((slot, entry)) = entry else {
                continue;
            };
            entry.tracked = self.world.is_tracked(&key);
            if !entry.tracked && entry.binding.is_blank() {
                self.forget(slot);
            } else {
                self.refresh(slot);
            }
        }
        self.await_all(at, findings);
        self.advance(at, findings);
    }

    /// Whether the address is among the single ones that are expected.
    pub fn is_expected(&self, key: &BindingKey) -> bool {
        self.world.facts.is_expected(key)
    }

    /// Sees that there is a binding of every address that is awaited, so that its silence can be told. An open
    /// conflict on one that did not matter before is told again.
    fn await_all(&mut self, at: Timestamp, findings: &mut Vec<Finding>) {
        for key in self.world.facts.awaited() {
            let Some(slot) = self.table.find(&key) else {
                self.open(key, at);
                continue;
            };
            let Some(entry) = self.table.get_mut(slot).filter(|entry| !entry.tracked) else {
                continue;
            };
            entry.tracked = true;
            entry.binding.await_from(at);
            let scene = self.world.scene(key, true);
            let change = Change {
                newly_tracked: true,
                before: Scene {
                    tracked: false,
                    ..scene
                },
            };
            let mut turn = Turn {
                at,
                scene,
                ledger: &mut self.ledger,
                findings,
            };
            entry.binding.reconsider(&change, &mut turn);
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

    /// Takes the outcome of one round of asking: the MACs that answered, perhaps none. The answers
    /// themselves are frames and are to be observed first.
    pub fn answered(
        &mut self,
        ask: &Ask,
        at: Timestamp,
        answered_by: &[MacAddr],
        findings: &mut Vec<Finding>,
    ) {
        self.tell(ask, at, findings, |binding, turn| {
            binding.answered(ask, answered_by, turn);
        });
    }

    /// Takes that a round of asking will not be: somebody else asks, or it cannot be asked from here.
    pub fn unasked(&mut self, ask: &Ask, at: Timestamp, findings: &mut Vec<Finding>) {
        self.tell(ask, at, findings, |binding, turn| {
            binding.unasked(ask, turn);
        });
    }

    /// Tells the binding that an ask was about what became of it.
    fn tell(
        &mut self,
        ask: &Ask,
        at: Timestamp,
        findings: &mut Vec<Finding>,
        news: impl FnOnce(&mut Binding, &mut Turn),
    ) {
        self.keep_time(at);
        self.advance(at, findings);
        let Some(slot) = self.table.find(&ask.key) else {
            return;
        };
        let Some(entry) = self.table.get_mut(slot) else {
            return;
        };
        let mut turn = Turn {
            at,
            scene: self.world.scene(entry.key, entry.tracked),
            ledger: &mut self.ledger,
            findings,
        };
        news(&mut entry.binding, &mut turn);
        self.refresh(slot);
        self.advance(at, findings);
    }

    /// Makes a binding of an address that matters, before anybody claims it: so that its silence can be told.
    pub fn expect(&mut self, key: BindingKey, at: Timestamp) {
        if self.table.find(&key).is_none() && self.world.is_tracked(&key) {
            self.open(key, at);
        }
    }

    /// The networks whose addresses matter, as the configuration and the facts have them.
    pub fn tracked_networks(&self) -> impl Iterator<Item = &IpNet> {
        let configured = self.world.rules.config.tracked.iter();
        configured.chain(self.world.facts.tracked_networks())
    }

    /// A number that is another one when [`Self::cared_for`], [`Self::is_expected`] or [`Self::tracked_networks`] may
    /// say something else than before.
    pub const fn cares(&self) -> u64 {
        // Neither ever falls.
        self.table.tracked_changes() + self.told
    }

    /// The addresses that matter: those remembered, and this host's own. In no particular order, some twice.
    pub fn cared_for(&self) -> impl Iterator<Item = BindingKey> {
        let tracked = self.table.group(Group::Tracked, Cursor::default());
        let tracked = tracked.map(|(_, entry)| entry.key);
        tracked.chain(self.world.facts.addresses())
    }

    /// Whether the silence of an address has been reported and lasts.
    pub fn is_silent(&self, key: &BindingKey) -> bool {
        self.entry(key).is_some_and(|entry| {
            let scene = self.world.scene(entry.key, entry.tracked);
            entry.binding.is_silent(&scene)
        })
    }

    /// Forgets that an address is silent: nobody has looked for long.
    pub fn forget_silence(&mut self, key: &BindingKey) {
        let slot = self.table.find(key);
        if let Some(entry) = slot.and_then(|slot| self.table.get_mut(slot)) {
            entry.binding.forget_silence();
        }
        if let Some(slot) = slot {
            self.refresh(slot);
        }
    }

    /// An address of another station on a segment, of which somebody has claimed an address last: who would
    /// answer there, if anybody.
    pub fn witness(&self, segment: Segment, except: IpAddr) -> Option<BindingKey> {
        let elsewhere = |entry: &&Entry| {
            let scene = self.world.scene(entry.key, entry.tracked);
            let is_elsewhere = entry.key.segment == segment && entry.key.ip != except;
            is_elsewhere && !entry.binding.is_silent(&scene)
        };
        let of_others = self.table.iter().filter(elsewhere);
        let claimed = of_others.filter_map(|entry| {
            let at = entry.binding.last_claim_of_others(&self.world.facts)?;
            Some((at, entry.key))
        });
        claimed.max().map(|(_, key)| key)
    }

    /// When to tick next; before that a tick does nothing. It may turn out that nothing is due yet.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.table.next_deadline()
    }

    /// Fetches what is to be asked. Without [`DetectConfig::may_ask`] it is always empty.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.ledger.asks)
    }

    /// Whether the answer to an ask would still be of use.
    pub fn wants(&self, ask: &Ask) -> bool {
        // Its answer may be the first that is heard of the address.
        let unknown = ask.purpose == Purpose::Care;
        self.entry(&ask.key).map_or(unknown, |entry| {
            let scene = self.world.scene(entry.key, entry.tracked);
            entry.binding.wants(ask, &scene)
        })
    }

    /// When a newcomer last asked for the address by ARP probe, if that was in the 10 s before `now`. To
    /// ask now would make a booting host believe that it has a rival (RFC 5227 section 2.1.1).
    pub fn last_probed(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp> {
        let last = self.probes.last(key);
        last.filter(|&at| now.since(at) < PROBE_MEMORY)
    }

    /// One binding.
    pub fn binding(&self, key: &BindingKey) -> Option<BindingView> {
        self.entry(key).map(|entry| self.view(entry))
    }

    /// The MACs of an address's owner, none where nobody has claimed it; `None` while that is in dispute.
    pub fn owner_macs(&self, key: &BindingKey) -> Option<SmallVec<[MacAddr; 2]>> {
        let Some(entry) = self.entry(key) else {
            return Some(SmallVec::new());
        };
        let scene = self.world.scene(entry.key, entry.tracked);
        let holder = || entry.binding.current(&scene).map(|holder| holder.macs);
        let is_settled = entry.binding.conflict().is_none();
        is_settled.then(|| holder().unwrap_or_default())
    }

    /// The bindings with an open conflict, ignored ones included, in a stable order that means nothing.
    pub fn open_conflicts(&self) -> impl Iterator<Item = BindingView> {
        self.table.conflicts().map(|entry| self.view(entry))
    }

    /// A part of a group of addresses, at most so many, in a stable order that means nothing.
    pub fn page(&self, group: Group, from: Cursor, most: usize) -> Page {
        let mut page = Page::default();
        for (slot, entry) in self.table.group(group, from).take(most) {
            page.addresses.push(self.address(entry));
            page.next = (page.addresses.len() == most).then_some(Cursor::after(slot));
        }
        page
    }

    /// A part of all bindings: not more than so many from the cursor on, and where the next part begins. One
    /// that comes or goes between two parts may be missing, or be there twice.
    pub fn bindings_from(&self, from: Cursor, most: usize) -> (Vec<BindingView>, Option<Cursor>) {
        let (mut views, mut next) = (Vec::new(), None);
        for (slot, entry) in self.table.rest(from).take(most) {
            views.push(self.view(entry));
            next = (views.len() == most).then_some(Cursor::after(slot));
        }
        (views, next)
    }

    /// Whether the address matters.
    pub fn is_tracked(&self, key: &BindingKey) -> bool {
        self.world.is_tracked(key)
    }

    /// The counts.
    pub fn statistics(&self) -> Statistics {
        let conflicts = self.table.conflicts();
        let quiet = conflicts.filter_map(|entry| entry.binding.conflict()?.quiet_since);
        Statistics {
            bindings: self.table.len(),
            open_conflicts: self.table.open_conflicts(),
            quiet_conflicts: quiet.count(),
            tracked: self.table.count(Group::Tracked),
            contested: self.table.count(Group::Contested),
            ..self.ledger.statistics
        }
    }

    /// What it goes by.
    pub const fn config(&self) -> &DetectConfig {
        &self.world.rules.config
    }

    fn entry(&self, key: &BindingKey) -> Option<&Entry> {
        self.table.get(self.table.find(key)?)
    }

    fn view(&self, entry: &Entry) -> BindingView {
        let scene = self.world.scene(entry.key, entry.tracked);
        binding_view(entry, &scene, self.ledger.now)
    }

    fn address(&self, entry: &Entry) -> AddressView {
        let scene = self.world.scene(entry.key, entry.tracked);
        let (binding, now) = (&entry.binding, self.ledger.now);
        AddressView {
            key: entry.key,
            tracked: entry.tracked,
            ignored: scene.rules.config.ignored(entry.key.ip, now).is_some(),
            holder: binding.current(&scene),
            silent: binding.is_silent(&scene),
            contested: binding.is_contested(&scene, now),
            parties: binding.conflict().map(|_| binding.shown(&scene, now)),
            conflict: conflict_view(binding),
        }
    }

    /// Judges, in the order of time, everything that became due until `now`. Every input ends with it too:
    /// what it changes can be long due, as the expiry of a conflict whose owners turn out to be one.
    fn advance(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        while let Some((at, slot)) = self.table.pop_due(now) {
            self.ledger.now = self.ledger.now.max(at);
            if let Some(entry) = self.table.get_mut(slot) {
                entry.binding.expire(&mut Turn {
                    at,
                    scene: self.world.scene(entry.key, entry.tracked),
                    ledger: &mut self.ledger,
                    findings,
                });
            }
            self.refresh(slot);
        }
        self.ledger.now = self.ledger.now.max(now);
    }

    /// Notices that the clock was set back. Nothing that is remembered lies in the future then: what was to
    /// take a minute takes no more than that from now.
    fn keep_time(&mut self, now: Timestamp) {
        if now + OUT_OF_ORDER >= self.ledger.now {
            return;
        }
        self.ledger.statistics.clock_steps += 1;
        self.ledger.now = now;
        self.world.facts.forget_future(now);
        self.probes.clear();
        self.offenders.clear();
        for slot in self.table.slots() {
            if let Some(entry) = self.table.get_mut(slot) {
                entry.binding.forget_future(now);
            }
            self.refresh(slot);
        }
    }

    /// The claim that an observed one carries is a claim of its own, and an earlier one.
    fn carried_claim(
        &mut self,
        claim: &Claim,
        at: Timestamp,
        segment: Segment,
        findings: &mut Vec<Finding>,
    ) {
        let ip = claim.ip;
        let key = BindingKey { segment, ip };
        let Some(carried) = Heard::carried_by(claim, at, &self.world) else {
            return;
        };
        let known = self
            .entry(&key)
            .is_some_and(|entry| entry.binding.has_heard(carried.mac, carried.at));
        if !known && !self.world.facts.is_broadcast(&key) {
            self.advance(carried.at, findings);
            self.hear(key, &carried, findings);
        }
    }

    fn claim(
        &mut self,
        claim: &Claim,
        at: Timestamp,
        segment: Segment,
        findings: &mut Vec<Finding>,
    ) {
        let ip = claim.ip;
        let key = BindingKey { segment, ip };
        if self.world.facts.is_broadcast(&key) {
            let frame = BogusFrame {
                ip,
                mac: claim.mac,
                eth_src: claim.eth_src,
                reason: BogusReason::SpaNetworkBroadcast,
            };
            self.bogus(&frame, at, segment, findings);
            return;
        }
        let heard = Heard::of(claim, at, &self.world);
        let Some(slot) = self.hear(key, &heard, findings) else {
            self.ledger.statistics.turned_away += 1;
            return;
        };
        let Some(entry) = self.table.get_mut(slot) else {
            return;
        };
        let mut turn = Turn {
            at,
            scene: self.world.scene(key, entry.tracked),
            ledger: &mut self.ledger,
            findings,
        };
        entry.binding.check_source(claim, &mut turn);
        if let Some(prober) = claim.answer.filter(|answer| answer.to_probe) {
            let (prober, config) = (prober.asker, &self.world.rules.config);
            match self.probes.answer(key, prober, claim.mac, at, config) {
                Denial::None => {}
                Denial::ToldAlready => turn.hold_back(FindingKind::ProbeDenied),
                Denial::Denied { asked } => {
                    let denial = entry.binding.denial(claim.mac, prober, asked, &turn);
                    turn.report(denial);
                }
            }
        }
    }

    /// Lets a binding hear a claim, and says which; `None` if there is no room for it.
    fn hear(
        &mut self,
        key: BindingKey,
        heard: &Heard,
        findings: &mut Vec<Finding>,
    ) -> Option<Slot> {
        let slot = self.table.find(&key).or_else(|| self.open(key, heard.at))?;
        let entry = self.table.get_mut(slot)?;
        let scene = self.world.scene(key, entry.tracked);
        let mut turn = Turn {
            at: heard.at,
            scene,
            ledger: &mut self.ledger,
            findings,
        };
        entry.binding.hear(heard, &mut turn);
        let due = entry.binding.next_deadline(&scene);
        self.table.update(slot, due);
        Some(slot)
    }

    fn probe(&mut self, probe: &Probe, at: Timestamp, segment: Segment) {
        let ip = probe.target;
        let key = BindingKey { segment, ip };
        if !probe.unicast && !self.world.facts.is_local(probe.prober) {
            let slot = self.table.find(&key);
            if let Some(entry) = slot.and_then(|slot| self.table.get_mut(slot)) {
                entry.binding.hear_question(at);
            }
        }
        let newcomer = !probe.signed
            && !self.world.facts.is_local(probe.prober)
            && !self.ledger.holders.holds_any(segment, probe.prober);
        if newcomer && !probe.unicast {
            self.probes.ask(key, probe.prober, at);
        }
    }

    fn bogus(
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
        let scene = self.world.scene(key, false);
        let mut turn = Turn {
            at,
            scene,
            ledger: &mut self.ledger,
            findings,
        };
        let held_back = self
            .offenders
            .report(segment, frame, at, &scene.rules.config);
        let Some(held_back) = held_back else {
            turn.hold_back(FindingKind::BogusClaim);
            return;
        };
        let mut finding = turn.finding(FindingKind::BogusClaim, at);
        finding.owners = vec![station(Role::Sender, frame.eth_src, at, &scene)];
        finding.counts.held_back = held_back;
        finding.bogus = Some(frame.reason);
        turn.report(finding);
    }

    /// Makes a binding; `None` if there is no room that may be made.
    fn open(&mut self, key: BindingKey, at: Timestamp) -> Option<Slot> {
        self.evict_surplus();
        let tracked = self.world.is_tracked(&key);
        let (slot, evicted) = self.table.insert(key, tracked, Binding::new(at))?;
        if let Some(evicted) = evicted {
            self.ledger.statistics.evicted_bindings += 1;
            self.release(&evicted);
        }
        self.refresh(slot);
        Some(slot)
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(entry) = self.table.remove(slot) {
            self.release(&entry);
        }
    }

    /// A binding is gone, and with it what its claimants held.
    fn release(&mut self, entry: &Entry) {
        for mac in entry.binding.macs() {
            self.ledger.holders.remove(entry.key.segment, mac);
        }
    }

    /// Brings the table up to date after a change to a binding.
    fn refresh(&mut self, slot: Slot) {
        let Some(entry) = self.table.get(slot) else {
            return;
        };
        let scene = self.world.scene(entry.key, entry.tracked);
        let due = entry.binding.next_deadline(&scene);
        self.table.update(slot, due);
    }
}
