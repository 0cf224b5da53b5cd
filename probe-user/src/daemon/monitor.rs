//! The one task that joins the parts: drains the rings, puts events in order, lets detection judge them
//! and publishes what it finds. Everything it owns, it owns alone; others ask it.

use std::{io, mem, sync::Arc};

use probe_common::{
    counter::Direction,
    event::{ArpEvent, Hook},
    wire::MacAddr,
};
use probe_datapath::{
    EventRings,
    clock::{Timer, monotonic},
    frame_counters::{DirectionCounts, FrameCounters},
    reorder::ReorderBuffer,
};
use probe_detect::{
    AddressGroup, AddressView, DetectConfig, Detector, DetectorStatistics, ExpectedAddresses,
    Observation, TableCursor,
};
use probe_model::{
    BindingKey, BindingRecord, BindingView, Finding, FindingRecord, Links, Timestamp,
    watched::WatchedInterfaces,
};
use probe_network::host_facts::host_facts;
use probe_prober::{Prober, ProberState, ProberStatus};
use smallvec::SmallVec;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::daemon::{
    address_statistics::{AddressCounts, AddressStatistics, DetectionLatency},
    segments::{SegmentName, SegmentNames},
};

/// Events taken from each ring in one turn, so that a storm does not keep questions waiting.
const EVENTS_PER_BATCH: usize = 4_096;
/// Findings that a slow reader may be behind before it misses some.
pub(crate) const FINDING_CHANNEL_CAPACITY: usize = 10_000;
/// Events that a slow reader may be behind before it misses some.
const EVENT_CHANNEL_CAPACITY: usize = 16_384;
/// Addresses in a page for the metrics: it takes some 50 µs, and frames come in between.
const PAGE: usize = 256;
/// Questions that may wait.
const REQUEST_QUEUE: usize = 64;

/// What the monitor knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct MonitorSnapshot {
    /// What detection counts.
    pub statistics: DetectorStatistics,
    /// Events received, by interface index and direction.
    pub received: DirectionCounts,
    /// Events that could not be understood.
    pub undecodable: u64,
    /// When the last event was stamped.
    pub last_event: Option<Timestamp>,
    /// How long events took until they were judged.
    pub detection_latency: DetectionLatency,
    /// What the segments are called.
    pub segments: Arc<SegmentNames>,
    /// Whether questions are asked, and how many were.
    pub asking: ProberStatus,
}

/// A part of a group of addresses, for the metrics.
#[derive(Clone, Debug, Default)]
pub struct AddressPage {
    /// The addresses, and how often something was found about the tracked ones.
    pub addresses: Vec<(AddressView, AddressCounts)>,
    /// Where the next page begins; none after the last.
    pub next: Option<TableCursor>,
}

/// The MACs of an owner, none where there is none; `None` where that is in dispute.
pub type OwnerMacs = Option<SmallVec<[MacAddr; 2]>>;

/// The monitor is not running any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the monitor has stopped")]
pub struct MonitorStopped;

enum MonitorRequest {
    Snapshot(oneshot::Sender<MonitorSnapshot>),
    Bindings(
        TableCursor,
        oneshot::Sender<(Vec<BindingView>, Option<TableCursor>)>,
    ),
    Conflicts(oneshot::Sender<Vec<BindingView>>),
    Takeovers(oneshot::Sender<Vec<BindingView>>),
    Addresses(AddressGroup, TableCursor, oneshot::Sender<AddressPage>),
    Owners(Vec<BindingKey>, oneshot::Sender<Vec<OwnerMacs>>),
    AskOnce(Vec<BindingKey>, oneshot::Sender<()>),
    Reconfigure(Box<DetectConfig>, Vec<SegmentName>, oneshot::Sender<()>),
}

/// How the rest of the program talks to the monitor.
#[derive(Clone, Debug)]
pub struct MonitorHandle {
    requests: mpsc::Sender<MonitorRequest>,
    findings: broadcast::Sender<Arc<FindingRecord>>,
    events: broadcast::Sender<ArpEvent>,
}

impl MonitorHandle {
    /// What the monitor knows now.
    pub async fn snapshot(&self) -> Result<MonitorSnapshot, MonitorStopped> {
        self.request(MonitorRequest::Snapshot).await
    }

    /// All bindings, read in pages. For those who need all of them at once; a client gets them page by page.
    pub async fn bindings(&self) -> Result<Vec<BindingView>, MonitorStopped> {
        let (mut all, mut next) = (Vec::new(), Some(TableCursor::default()));
        while let Some(from) = next {
            let page;
            (page, next) = self.bindings_page(from).await?;
            all.extend(page);
        }
        Ok(all)
    }

    /// A page of all bindings, and where the next begins: short, so that no frame waits for it. A binding that comes or
    /// goes between two pages may be missing, or be there twice.
    pub async fn bindings_page(
        &self,
        from: TableCursor,
    ) -> Result<(Vec<BindingView>, Option<TableCursor>), MonitorStopped> {
        self.request(|sender| MonitorRequest::Bindings(from, sender))
            .await
    }

    /// The bindings with an open conflict.
    pub async fn open_conflicts(&self) -> Result<Vec<BindingView>, MonitorStopped> {
        self.request(MonitorRequest::Conflicts).await
    }

    /// The bindings with a takeover that is not decided.
    pub async fn pending_takeovers(&self) -> Result<Vec<BindingView>, MonitorStopped> {
        self.request(MonitorRequest::Takeovers).await
    }

    /// A part of a group of addresses.
    pub async fn addresses(
        &self,
        group: AddressGroup,
        from: TableCursor,
    ) -> Result<AddressPage, MonitorStopped> {
        let question = |sender| MonitorRequest::Addresses(group, from, sender);
        self.request(question).await
    }

    /// The MACs of the owners of these addresses, in their order. Asked for in parts, so that no frame waits for them.
    pub async fn owners(&self, keys: &[BindingKey]) -> Result<Vec<OwnerMacs>, MonitorStopped> {
        let mut owners = Vec::with_capacity(keys.len());
        for page in keys.chunks(PAGE) {
            let question = |sender| MonitorRequest::Owners(page.to_vec(), sender);
            owners.extend(self.request(question).await?);
        }
        Ok(owners)
    }

    /// Has these addresses asked about once, if this program asks at all. Who answers will be among the bindings.
    pub async fn probe_once(&self, keys: Vec<BindingKey>) -> Result<(), MonitorStopped> {
        self.request(|sender| MonitorRequest::AskOnce(keys, sender))
            .await
    }

    /// A monitor that has stopped.
    #[cfg(test)]
    pub(crate) fn disconnected() -> Self {
        Self {
            requests: mpsc::channel(1).0,
            findings: broadcast::channel(1).0,
            events: broadcast::channel(1).0,
        }
    }

    /// The same monitor, whose findings others publish: those who add to them what they know.
    #[must_use]
    pub fn with_findings(&self, findings: broadcast::Sender<Arc<FindingRecord>>) -> Self {
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
    ) -> Result<(), MonitorStopped> {
        let question = |sender| MonitorRequest::Reconfigure(Box::new(config), names, sender);
        self.request(question).await
    }

    async fn request<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> MonitorRequest,
    ) -> Result<T, MonitorStopped> {
        let (sender, receiver) = oneshot::channel();
        let asked = self.requests.send(question(sender)).await;
        asked.map_err(|_| MonitorStopped)?;
        receiver.await.map_err(|_| MonitorStopped)
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
    rings: EventRings,
    reorder_buffer: ReorderBuffer,
    detector: Detector,
    asking: Option<Prober>,
    prober_state: ProberState,
    timer: Timer,
    links: watch::Receiver<Arc<Links>>,
    watched: watch::Receiver<Arc<WatchedInterfaces>>,
    expected: watch::Receiver<Arc<ExpectedAddresses>>,
    requests: mpsc::Receiver<MonitorRequest>,
    publish: broadcast::Sender<Arc<FindingRecord>>,
    events: broadcast::Sender<ArpEvent>,
    /// Reused from turn to turn.
    findings: Vec<Finding>,
    received: FrameCounters,
    undecodable: u64,
    last_event: Option<Timestamp>,
    detection_latency: DetectionLatency,
    address_statistics: AddressStatistics,
    names: Vec<SegmentName>,
    segments: Arc<SegmentNames>,
}

impl Monitor {
    /// A monitor over these rings, and the handle to talk to it. It asks, or says why not.
    pub fn new(
        rings: EventRings,
        config: DetectConfig,
        asking: Result<Prober, ProberState>,
        links: watch::Receiver<Arc<Links>>,
        watched: watch::Receiver<Arc<WatchedInterfaces>>,
    ) -> io::Result<(Self, MonitorHandle)> {
        let (question_sender, requests) = mpsc::channel(REQUEST_QUEUE);
        let (publish, _) = broadcast::channel(FINDING_CHANNEL_CAPACITY);
        let (events, _) = broadcast::channel(EVENT_CHANNEL_CAPACITY);
        let handle = MonitorHandle {
            requests: question_sender,
            findings: publish.clone(),
            events: events.clone(),
        };
        let prober_state = asking.as_ref().err().copied();
        let asking = asking.ok();
        let config = DetectConfig {
            can_probe: asking.is_some(),
            ..config
        };
        let monitor = Self {
            rings,
            reorder_buffer: ReorderBuffer::default(),
            detector: Detector::new(config),
            asking,
            prober_state: prober_state.unwrap_or(ProberState::Off),
            timer: Timer::new()?,
            links,
            watched,
            expected: watch::Sender::default().subscribe(),
            requests,
            publish,
            events,
            findings: Vec::new(),
            received: FrameCounters::default(),
            undecodable: 0,
            last_event: None,
            detection_latency: DetectionLatency::default(),
            address_statistics: AddressStatistics::default(),
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
    pub fn expect(&mut self, expected: watch::Receiver<Arc<ExpectedAddresses>>) {
        self.expected = expected;
    }

    /// Runs until `stop` completes or the rings fail; what is in the rings then is still judged. Returns the bindings
    /// whose takeover is not decided by then.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> io::Result<Vec<BindingRecord>> {
        let mut stop = std::pin::pin!(stop);
        self.learn();
        loop {
            let emptied = self.run_due();
            self.timer.arm(self.next_deadline())?;
            tokio::select! {
                () = &mut stop => break,
                readable = self.rings.readable() => readable?,
                elapsed = self.timer.elapsed() => elapsed?,
                () = std::future::ready(()), if !emptied => tokio::task::yield_now().await,
                Some(question) = self.requests.recv() => self.handle_request(question),
                Ok(()) = self.links.changed() => self.learn(),
                Ok(()) = self.watched.changed() => self.learn(),
                Ok(()) = self.expected.changed() => self.set_expected(),
            }
        }
        while !self.run_due() {}
        self.process_until(Timestamp(u64::MAX));
        self.publish();
        Ok(self.undecided())
    }

    fn undecided(&self) -> Vec<BindingRecord> {
        let watched = self.watched.borrow();
        let views = self.detector.pending_takeovers();
        let named = views.map(|view| {
            let name = watched.name_of(view.key.segment.interface);
            BindingRecord::new(&view, name, probe_datapath::clock::MONOTONIC)
        });
        named.collect()
    }

    /// One turn: drain, order, judge, publish. Returns whether the rings were emptied.
    fn run_due(&mut self) -> bool {
        // Read before draining: what is stamped later may still be missing from the other rings.
        let drained_at = monotonic();
        let reorder_buffer = &mut self.reorder_buffer;
        let emptied = self
            .rings
            .drain(EVENTS_PER_BATCH, |event| reorder_buffer.push(event));
        if emptied {
            self.process_until(drained_at);
            self.detector.tick(drained_at, &mut self.findings);
            if let Some(asking) = &mut self.asking {
                asking.run_due(&mut self.detector, drained_at, &mut self.findings);
            }
        }
        self.publish();
        emptied
    }

    /// When the next turn is due without a new event.
    fn next_deadline(&self) -> Option<Timestamp> {
        let drain = self.reorder_buffer.next_drain_ns().map(Timestamp);
        let asking = self.asking.as_ref().and_then(Prober::next_deadline);
        [drain, self.detector.next_deadline(), asking]
            .into_iter()
            .flatten()
            .min()
    }

    fn process_until(&mut self, drained_at: Timestamp) {
        while let Some(event) = self.reorder_buffer.pop(drained_at.0) {
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
                        asking.observe(&observation);
                    }
                    self.detector.observe(&observation, &mut self.findings);
                }
                Err(error) => {
                    self.undecodable += 1;
                    tracing::debug!(%error, "event not understood");
                }
            }
            if is_change(&event) {
                self.detection_latency
                    .record(Timestamp(event.ktime_ns), monotonic());
            }
        }
    }

    fn publish(&mut self) {
        let mut findings = mem::take(&mut self.findings);
        for finding in findings.drain(..) {
            let interface = self.watched.borrow().name_of(finding.segment.interface);
            if self.detector.is_tracked(&finding.key()) {
                let vlan = finding.segment.vlan;
                self.address_statistics
                    .count(&interface, vlan, finding.ip, finding.kind);
            }
            let segment = self.segments.name(finding.segment, finding.ip).to_owned();
            let record = FindingRecord::new(&finding, interface, probe_datapath::clock::MONOTONIC)
                .with_segment(segment);
            // Nobody listening is fine: the finding is in the metrics.
            let _ = self.publish.send(Arc::new(record));
        }
        self.findings = findings;
    }

    /// Tells detection what this host holds.
    fn learn(&mut self) {
        let links = self.links.borrow_and_update().clone();
        let watched = self.watched.borrow_and_update().clone();
        self.segments = Arc::new(SegmentNames::new(&self.names, &links, &watched));
        let facts = host_facts(&links, |ifindex| watched.contains(ifindex));
        self.detector.learn(facts, monotonic(), &mut self.findings);
        if let Some(asking) = &mut self.asking {
            asking.update_interfaces(&links, &watched);
        }
        // An index may come back as another interface, on another wire.
        for ifindex in self.received.update_watched(&watched) {
            self.detector.forget_interface(ifindex);
        }
        self.set_expected();
    }

    /// Tells detection what is expected.
    fn set_expected(&mut self) {
        let expected = self.expected.borrow_and_update().clone();
        self.detector
            .set_expected(expected, monotonic(), &mut self.findings);
    }

    fn handle_request(&mut self, question: MonitorRequest) {
        match question {
            // Whoever asked may have gone meanwhile.
            MonitorRequest::Snapshot(sender) => drop(sender.send(self.snapshot())),
            MonitorRequest::Bindings(from, sender) => {
                drop(sender.send(self.detector.bindings_from(from, PAGE)));
            }
            MonitorRequest::Conflicts(sender) => {
                drop(sender.send(self.detector.open_conflicts().collect()));
            }
            MonitorRequest::Takeovers(sender) => {
                drop(sender.send(self.detector.pending_takeovers().collect()));
            }
            MonitorRequest::Addresses(group, from, sender) => {
                drop(sender.send(self.addresses(group, from)));
            }
            MonitorRequest::Owners(keys, sender) => {
                let owners = keys.iter().map(|key| self.detector.owner_macs(key));
                drop(sender.send(owners.collect()));
            }
            MonitorRequest::AskOnce(keys, sender) => {
                if let Some(asking) = &mut self.asking {
                    for key in keys {
                        asking.probe_once(key, monotonic());
                    }
                }
                let _ = sender.send(());
            }
            MonitorRequest::Reconfigure(config, names, sender) => {
                self.reconfigure(*config, names);
                let _ = sender.send(());
            }
        }
    }

    fn reconfigure(&mut self, config: DetectConfig, names: Vec<SegmentName>) {
        let config = DetectConfig {
            can_probe: self.asking.is_some(),
            ..config
        };
        self.detector
            .reconfigure(config, monotonic(), &mut self.findings);
        self.name_segments(names);
        self.learn();
        self.publish();
    }

    fn addresses(&self, group: AddressGroup, from: TableCursor) -> AddressPage {
        let page = self.detector.page(group, from, PAGE);
        let watched = self.watched.borrow();
        let tally = |address: &AddressView| {
            let segment = address.key.segment;
            let watched = watched.get(segment.interface);
            watched.map_or_else(AddressCounts::default, |watched| {
                self.address_statistics
                    .for_address(&watched.name, segment.vlan, address.key.ip)
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

    fn snapshot(&self) -> MonitorSnapshot {
        MonitorSnapshot {
            statistics: self.detector.statistics(),
            received: self.received.counts(),
            undecodable: self.undecodable + self.rings.undecodable(),
            last_event: self.last_event,
            detection_latency: self.detection_latency,
            segments: self.segments.clone(),
            asking: self
                .asking
                .as_ref()
                .map_or_else(|| ProberStatus::inactive(self.prober_state), Prober::view),
        }
    }
}

/// Whether it says something new. What does not waits to be taken with others (`kernel/rings.rs`), and how long is no
/// sign of how detection keeps up.
fn is_change(event: &ArpEvent) -> bool {
    !event.previous.is_some() || event.previous.mac != event.frame.sha
}
