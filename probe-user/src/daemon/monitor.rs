//! The one task that joins the parts: drains the rings, puts events in order, lets detection judge them
//! and publishes what it finds. Everything it owns, it owns alone; others ask it.

use std::{io, mem, sync::Arc};

use probe_common::{
    counter::Direction,
    event::{ArpEvent, Hook},
    wire::MacAddr,
};
use probe_datapath::{
    Rings,
    clock::{Timer, monotonic},
    order::Order,
    received::{Counts, Received},
};
use probe_detect::{
    AddressView, Cursor, DetectConfig, Detector, Expected, Group, Observation, Statistics,
};
use probe_model::{
    BindingKey, BindingView, Finding, FindingRecord, Links, Timestamp, watched::WatchedInterfaces,
};
use probe_network::facts::host_facts;
use probe_prober::{Asking, AskingState, AskingView};
use smallvec::SmallVec;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::daemon::{
    book::{Delays, Tallies, Tally},
    segments::{SegmentName, Segments},
};

/// Events taken from each ring in one turn, so that a storm does not keep questions waiting.
const EVENTS_PER_TURN: usize = 4_096;
/// Findings that a slow reader may be behind before it misses some.
pub(crate) const FINDINGS_BEHIND: usize = 10_000;
/// Events that a slow reader may be behind before it misses some.
const EVENTS_BEHIND: usize = 16_384;
/// Addresses in a page for the metrics: it takes some 50 µs, and frames come in between.
const PAGE: usize = 256;
/// Questions that may wait.
const QUESTIONS: usize = 64;

/// What the monitor knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What detection counts.
    pub statistics: Statistics,
    /// Events received, by interface index and direction.
    pub received: Counts,
    /// Events that could not be understood.
    pub undecodable: u64,
    /// When the last event was stamped.
    pub last_event: Option<Timestamp>,
    /// How long events took until they were judged.
    pub delays: Delays,
    /// What the segments are called.
    pub segments: Arc<Segments>,
    /// Whether questions are asked, and how many were.
    pub asking: AskingView,
}

/// A part of a group of addresses, for the metrics.
#[derive(Clone, Debug, Default)]
pub struct AddressPage {
    /// The addresses, and how often something was found about the tracked ones.
    pub addresses: Vec<(AddressView, Tally)>,
    /// Where the next page begins; none after the last.
    pub next: Option<Cursor>,
}

/// The MACs of an owner, none where there is none; `None` where that is in dispute.
pub type OwnerMacs = Option<SmallVec<[MacAddr; 2]>>;

/// The monitor is not running any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the monitor has stopped")]
pub struct Stopped;

enum Question {
    Snapshot(oneshot::Sender<Snapshot>),
    Bindings(Cursor, oneshot::Sender<(Vec<BindingView>, Option<Cursor>)>),
    Conflicts(oneshot::Sender<Vec<BindingView>>),
    Addresses(Group, Cursor, oneshot::Sender<AddressPage>),
    Owners(Vec<BindingKey>, oneshot::Sender<Vec<OwnerMacs>>),
    AskOnce(Vec<BindingKey>, oneshot::Sender<()>),
    Reconfigure(Box<DetectConfig>, Vec<SegmentName>, oneshot::Sender<()>),
}

/// How the rest of the program talks to the monitor.
#[derive(Clone, Debug)]
pub struct MonitorHandle {
    questions: mpsc::Sender<Question>,
    findings: broadcast::Sender<Arc<FindingRecord>>,
    events: broadcast::Sender<ArpEvent>,
}

impl MonitorHandle {
    /// What the monitor knows now.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.ask(Question::Snapshot).await
    }

    /// All bindings, asked for in parts so that no frame waits for them: one that comes or goes meanwhile may be
    /// missing, or be there twice.
    pub async fn bindings(&self) -> Result<Vec<BindingView>, Stopped> {
        let (mut all, mut next) = (Vec::new(), Some(Cursor::default()));
        while let Some(from) = next {
            let part;
            (part, next) = self.ask(|sender| Question::Bindings(from, sender)).await?;
            all.extend(part);
        }
        Ok(all)
    }

    /// The bindings with an open conflict.
    pub async fn open_conflicts(&self) -> Result<Vec<BindingView>, Stopped> {
        self.ask(Question::Conflicts).await
    }

    /// A part of a group of addresses.
    pub async fn addresses(&self, group: Group, from: Cursor) -> Result<AddressPage, Stopped> {
        let question = |sender| Question::Addresses(group, from, sender);
        self.ask(question).await
    }

    /// The MACs of the owners of these addresses, in their order. Asked for in parts, so that no frame waits for them.
    pub async fn owners(&self, keys: &[BindingKey]) -> Result<Vec<OwnerMacs>, Stopped> {
        let mut owners = Vec::with_capacity(keys.len());
        for page in keys.chunks(PAGE) {
            let question = |sender| Question::Owners(page.to_vec(), sender);
            owners.extend(self.ask(question).await?);
        }
        Ok(owners)
    }

    /// Has these addresses asked about once, if this program asks at all. Who answers will be among the bindings.
    pub async fn ask_once(&self, keys: Vec<BindingKey>) -> Result<(), Stopped> {
        self.ask(|sender| Question::AskOnce(keys, sender)).await
    }

    /// A monitor that has stopped.
    #[cfg(test)]
    pub(crate) fn deaf() -> Self {
        Self {
            questions: mpsc::channel(1).0,
            findings: broadcast::channel(1).0,
            events: broadcast::channel(1).0,
        }
    }

    /// The same monitor, whose findings others publish: those who add to them what they know.
    #[must_use]
    pub fn publishing(&self, findings: broadcast::Sender<Arc<FindingRecord>>) -> Self {
        Self {
            findings,
            ..self.clone()
        }
    }

    /// Hands on a finding that is not detection's own: a drill.
    pub(crate) fn publish(&self, record: FindingRecord) {
        // Nobody listening is fine.
        let _ = self.findings.send(Arc::new(record));
    }

    /// Lets detection judge by this from now on, and calls segments so; nothing that is known is lost.
    pub async fn reconfigure(
        &self,
        config: DetectConfig,
        names: Vec<SegmentName>,
    ) -> Result<(), Stopped> {
        let question = |sender| Question::Reconfigure(Box::new(config), names, sender);
        self.ask(question).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Stopped> {
        let (sender, receiver) = oneshot::channel();
        let asked = self.questions.send(question(sender)).await;
        asked.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Every finding from now on. A reader that falls behind is told how many it missed.
    pub fn findings(&self) -> broadcast::Receiver<Arc<FindingRecord>> {
        self.findings.subscribe()
    }

    /// Every event from now on, in order. While nobody listens, none is handed on. A reader that falls
    /// behind is told how many it missed.
    pub fn events(&self) -> broadcast::Receiver<ArpEvent> {
        self.events.subscribe()
    }
}

/// The parts, joined.
pub struct Monitor {
    rings: Rings,
    order: Order,
    detector: Detector,
    asking: Option<Asking>,
    not_asking: AskingState,
    timer: Timer,
    links: watch::Receiver<Arc<Links>>,
    watched: watch::Receiver<Arc<WatchedInterfaces>>,
    expected: watch::Receiver<Arc<Expected>>,
    questions: mpsc::Receiver<Question>,
    publish: broadcast::Sender<Arc<FindingRecord>>,
    events: broadcast::Sender<ArpEvent>,
    /// Reused from turn to turn.
    findings: Vec<Finding>,
    received: Received,
    undecodable: u64,
    last_event: Option<Timestamp>,
    delays: Delays,
    tallies: Tallies,
    names: Vec<SegmentName>,
    segments: Arc<Segments>,
}

impl Monitor {
    /// A monitor over these rings, and the handle to talk to it. It asks, or says why not.
    pub fn new(
        rings: Rings,
        config: DetectConfig,
        asking: Result<Asking, AskingState>,
        links: watch::Receiver<Arc<Links>>,
        watched: watch::Receiver<Arc<WatchedInterfaces>>,
    ) -> io::Result<(Self, MonitorHandle)> {
        let (question_sender, questions) = mpsc::channel(QUESTIONS);
        let (publish, _) = broadcast::channel(FINDINGS_BEHIND);
        let (events, _) = broadcast::channel(EVENTS_BEHIND);
        let handle = MonitorHandle {
            questions: question_sender,
            findings: publish.clone(),
            events: events.clone(),
        };
        let not_asking = asking.as_ref().err().copied();
        let asking = asking.ok();
        let config = DetectConfig {
            may_ask: asking.is_some(),
            ..config
        };
        let monitor = Self {
            rings,
            order: Order::default(),
            detector: Detector::new(config),
            asking,
            not_asking: not_asking.unwrap_or(AskingState::Off),
            timer: Timer::new()?,
            links,
            watched,
            expected: watch::Sender::default().subscribe(),
            questions,
            publish,
            events,
            findings: Vec::new(),
            received: Received::default(),
            undecodable: 0,
            last_event: None,
            delays: Delays::default(),
            tallies: Tallies::default(),
            names: Vec::new(),
            segments: Arc::default(),
        };
        Ok((monitor, handle))
    }

    /// Takes the names that segments were given.
    pub fn name_segments(&mut self, names: Vec<SegmentName>) {
        self.names = names;
    }

    /// Takes which single addresses are expected, and takes note when they change.
    pub fn expect(&mut self, expected: watch::Receiver<Arc<Expected>>) {
        self.expected = expected;
    }

    /// Runs until `stop` completes or the rings fail; what is in the rings then is still judged.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let mut stop = std::pin::pin!(stop);
        self.learn();
        loop {
            let emptied = self.turn();
            self.timer.arm(self.next_turn())?;
            tokio::select! {
                () = &mut stop => break,
                readable = self.rings.readable() => readable?,
                elapsed = self.timer.elapsed() => elapsed?,
                () = std::future::ready(()), if !emptied => tokio::task::yield_now().await,
                Some(question) = self.questions.recv() => self.answer(question),
                Ok(()) = self.links.changed() => self.learn(),
                Ok(()) = self.watched.changed() => self.learn(),
                Ok(()) = self.expected.changed() => self.expect_only(),
            }
        }
        while !self.turn() {}
        self.judge_until(Timestamp(u64::MAX));
        self.publish();
        Ok(())
    }

    /// One turn: drain, order, judge, publish. Returns whether the rings were emptied.
    fn turn(&mut self) -> bool {
        // Read before draining: what is stamped later may still be missing from the other rings.
        let drained_at = monotonic();
        let order = &mut self.order;
        let emptied = self.rings.drain(EVENTS_PER_TURN, |event| order.push(event));
        if emptied {
            self.judge_until(drained_at);
            self.detector.tick(drained_at, &mut self.findings);
            if let Some(asking) = &mut self.asking {
                asking.turn(&mut self.detector, drained_at, &mut self.findings);
            }
        }
        self.publish();
        emptied
    }

    /// When the next turn is due without a new event.
    fn next_turn(&self) -> Option<Timestamp> {
        let drain = self.order.next_drain_ns().map(Timestamp);
        let asking = self.asking.as_ref().and_then(Asking::next_deadline);
        [drain, self.detector.next_deadline(), asking]
            .into_iter()
            .flatten()
            .min()
    }

    fn judge_until(&mut self, drained_at: Timestamp) {
        while let Some(event) = self.order.pop(drained_at.0) {
            let direction = event.hook().map_or(Direction::Ingress, Hook::direction);
            self.received.count(event.ifindex, direction);
            self.last_event = Some(Timestamp(event.ktime_ns));
            if self.events.receiver_count() > 0 {
                // Whoever listened may have gone meanwhile.
                let _ = self.events.send(event);
            }
            match Observation::try_from(&event) {
                Ok(observation) => {
                    if let Some(asking) = &mut self.asking {
                        asking.hear(&observation);
                    }
                    self.detector.observe(&observation, &mut self.findings);
                }
                Err(error) => {
                    self.undecodable += 1;
                    tracing::debug!(%error, "event not understood");
                }
            }
            if is_news(&event) {
                self.delays.note(Timestamp(event.ktime_ns), monotonic());
            }
        }
    }

    fn publish(&mut self) {
        let mut findings = mem::take(&mut self.findings);
        for finding in findings.drain(..) {
            let interface = self.watched.borrow().name_of(finding.segment.interface);
            if self.detector.is_tracked(&finding.key()) {
                let vlan = finding.segment.vlan;
                self.tallies
                    .count(&interface, vlan, finding.ip, finding.kind);
            }
            let segment = self.segments.name(finding.segment, finding.ip).to_owned();
            let record = FindingRecord::new(&finding, interface, probe_datapath::clock::MONOTONIC)
                .on(segment);
            // Nobody listening is fine: the finding is in the metrics.
            let _ = self.publish.send(Arc::new(record));
        }
        self.findings = findings;
    }

    /// Tells detection what this host holds.
    fn learn(&mut self) {
        let links = self.links.borrow_and_update().clone();
        let watched = self.watched.borrow_and_update().clone();
        self.segments = Arc::new(Segments::new(&self.names, &links, &watched));
        let facts = host_facts(&links, |ifindex| watched.contains(ifindex));
        self.detector.learn(facts, monotonic(), &mut self.findings);
        if let Some(asking) = &mut self.asking {
            asking.learn(&links, &watched);
        }
        // An index may come back as another interface, on another wire.
        for ifindex in self.received.learn(&watched) {
            self.detector.forget_interface(ifindex);
        }
        self.expect_only();
    }

    /// Tells detection what is expected.
    fn expect_only(&mut self) {
        let expected = self.expected.borrow_and_update().clone();
        self.detector
            .expect_only(expected, monotonic(), &mut self.findings);
    }

    fn answer(&mut self, question: Question) {
        match question {
            // Whoever asked may have gone meanwhile.
            Question::Snapshot(sender) => drop(sender.send(self.snapshot())),
            Question::Bindings(from, sender) => {
                drop(sender.send(self.detector.bindings_from(from, PAGE)));
            }
            Question::Conflicts(sender) => {
                drop(sender.send(self.detector.open_conflicts().collect()));
            }
            Question::Addresses(group, from, sender) => {
                drop(sender.send(self.addresses(group, from)));
            }
            Question::Owners(keys, sender) => {
                let owners = keys.iter().map(|key| self.detector.owner_macs(key));
                drop(sender.send(owners.collect()));
            }
            Question::AskOnce(keys, sender) => {
                if let Some(asking) = &mut self.asking {
                    for key in keys {
                        asking.ask_once(key, monotonic());
                    }
                }
                let _ = sender.send(());
            }
            Question::Reconfigure(config, names, sender) => {
                self.reconfigure(*config, names);
                let _ = sender.send(());
            }
        }
    }

    fn reconfigure(&mut self, config: DetectConfig, names: Vec<SegmentName>) {
        let config = DetectConfig {
            may_ask: self.asking.is_some(),
            ..config
        };
        self.detector
            .reconfigure(config, monotonic(), &mut self.findings);
        self.name_segments(names);
        self.learn();
        self.publish();
    }

    fn addresses(&self, group: Group, from: Cursor) -> AddressPage {
        let page = self.detector.page(group, from, PAGE);
        let watched = self.watched.borrow();
        let tally = |address: &AddressView| {
            let segment = address.key.segment;
            let watched = watched.get(segment.interface);
            watched.map_or_else(Tally::default, |watched| {
                self.tallies.of(&watched.name, segment.vlan, address.key.ip)
            })
        };
        AddressPage {
            addresses: page
                .addresses
                .into_iter()
                .map(|address| {
                    let tally = tally(&address);
                    (address, tally)
                })
                .collect(),
            next: page.next,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            statistics: self.detector.statistics(),
            received: self.received.counts(),
            undecodable: self.undecodable + self.rings.undecodable(),
            last_event: self.last_event,
            delays: self.delays,
            segments: self.segments.clone(),
            asking: self
                .asking
                .as_ref()
                .map_or_else(|| AskingView::not(self.not_asking), Asking::view),
        }
    }
}

/// Whether it says something new. What does not waits to be taken with others (`kernel/rings.rs`), and how long is no
/// sign of how detection keeps up.
fn is_news(event: &ArpEvent) -> bool {
    !event.previous.is_some() || event.previous.mac != event.frame.sha
}
