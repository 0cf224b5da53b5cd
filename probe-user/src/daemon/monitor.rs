//! The monitor task: drains the rings, orders the events, passes them to detection and publishes the findings. It owns
//! its state exclusively; other tasks send requests.

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

/// Maximum number of events per ring and iteration, so that a storm does not delay requests.
const EVENTS_PER_BATCH: usize = 4_096;
/// Findings that a slow reader may be behind before it misses some.
pub(crate) const FINDING_CHANNEL_CAPACITY: usize = 10_000;
/// Events that a slow reader may be behind before it misses some.
const EVENT_CHANNEL_CAPACITY: usize = 16_384;
/// The number of addresses in a page for the metrics. A page takes about 50 µs, and events are processed between pages.
const PAGE: usize = 256;
/// Maximum number of queued requests.
const REQUEST_QUEUE: usize = 64;

/// A snapshot of the monitor.
#[derive(Clone, Debug, Default)]
pub struct MonitorSnapshot {
    /// The statistics of detection.
    pub statistics: DetectorStatistics,
    /// Events received, by interface index and direction.
    pub received: DirectionCounts,
    /// Events that could not be decoded.
    pub undecodable: u64,
    /// The time stamp of the last event.
    pub last_event: Option<Timestamp>,
    /// The detection latency.
    pub detection_latency: DetectionLatency,
    /// The names of the segments.
    pub segments: Arc<SegmentNames>,
    /// The status of the prober with its counts.
    pub prober: ProberStatus,
}

/// A page of a group of addresses, for the metrics.
#[derive(Clone, Debug, Default)]
pub struct AddressPage {
    /// The addresses, with the counts of findings of the tracked ones.
    pub addresses: Vec<(AddressView, AddressCounts)>,
    /// The start of the next page; `None` after the last.
    pub next: Option<TableCursor>,
}

/// The MACs of the owner of an address, empty without an owner; `None` if ownership is in dispute.
pub type OwnerMacs = Option<SmallVec<[MacAddr; 2]>>;

/// The error of requests to a monitor that has stopped.
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
    ProbeOnce(Vec<BindingKey>, oneshot::Sender<()>),
    Reconfigure(Box<DetectConfig>, Vec<SegmentName>, oneshot::Sender<()>),
}

/// The handle for requests to the monitor.
#[derive(Clone, Debug)]
pub struct MonitorHandle {
    requests: mpsc::Sender<MonitorRequest>,
    findings: broadcast::Sender<Arc<FindingRecord>>,
    events: broadcast::Sender<ArpEvent>,
}

impl MonitorHandle {
    /// The current snapshot.
    pub async fn snapshot(&self) -> Result<MonitorSnapshot, MonitorStopped> {
        self.request(MonitorRequest::Snapshot).await
    }

    /// All bindings, read in pages. Clients of the API get them page by page.
    pub async fn bindings(&self) -> Result<Vec<BindingView>, MonitorStopped> {
        let (mut all, mut next) = (Vec::new(), Some(TableCursor::default()));
        while let Some(from) = next {
            let page;
            (page, next) = self.bindings_page(from).await?;
            all.extend(page);
        }
        Ok(all)
    }

    /// A page of all bindings, and the start of the next page. Pages are short, so that no event waits for them. A
    /// binding added or removed between two pages may be missing or occur twice.
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

    /// The bindings with a pending takeover.
    pub async fn pending_takeovers(&self) -> Result<Vec<BindingView>, MonitorStopped> {
        self.request(MonitorRequest::Takeovers).await
    }

    /// A page of a group of addresses.
    pub async fn addresses(
        &self,
        group: AddressGroup,
        from: TableCursor,
    ) -> Result<AddressPage, MonitorStopped> {
        let request = |sender| MonitorRequest::Addresses(group, from, sender);
        self.request(request).await
    }

    /// The MACs of the owners of these addresses, in the same order. Requested in parts, so that no event waits for
    /// them.
    pub async fn owners(&self, keys: &[BindingKey]) -> Result<Vec<OwnerMacs>, MonitorStopped> {
        let mut owners = Vec::with_capacity(keys.len());
        for page in keys.chunks(PAGE) {
            let request = |sender| MonitorRequest::Owners(page.to_vec(), sender);
            owners.extend(self.request(request).await?);
        }
        Ok(owners)
    }

    /// Probes these addresses once, if active probing is enabled. Replies appear in the bindings.
    pub async fn probe_once(&self, keys: Vec<BindingKey>) -> Result<(), MonitorStopped> {
        self.request(|sender| MonitorRequest::ProbeOnce(keys, sender))
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

    /// The same monitor with findings published on another channel, after annotation.
    #[must_use]
    pub fn with_findings(&self, findings: broadcast::Sender<Arc<FindingRecord>>) -> Self {
        Self {
            findings,
            ..self.clone()
        }
    }

    /// Publishes a finding that is not from detection, as of a drill.
    pub(crate) fn publish(&self, record: FindingRecord) {
        // No subscribers is no error.
        let _ = self.findings.send(Arc::new(record));
    }

    /// Applies a new detection configuration and new segment names, and keeps the state of detection.
    pub async fn reconfigure(
        &self,
        config: DetectConfig,
        names: Vec<SegmentName>,
    ) -> Result<(), MonitorStopped> {
        let request = |sender| MonitorRequest::Reconfigure(Box::new(config), names, sender);
        self.request(request).await
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> MonitorRequest,
    ) -> Result<T, MonitorStopped> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.requests.send(request(sender)).await;
        sent.map_err(|_| MonitorStopped)?;
        receiver.await.map_err(|_| MonitorStopped)
    }

    /// Subscribes to findings. A slow reader gets the number of missed findings.
    pub fn findings(&self) -> broadcast::Receiver<Arc<FindingRecord>> {
        self.findings.subscribe()
    }

    /// Subscribes to ordered events, which are only published while there are subscribers. A slow reader gets the
    /// number of missed events.
    pub fn events(&self) -> broadcast::Receiver<ArpEvent> {
        self.events.subscribe()
    }
}

/// The monitor task with its parts.
pub struct Monitor {
    rings: EventRings,
    reorder_buffer: ReorderBuffer,
    detector: Detector,
    prober: Option<Prober>,
    prober_state: ProberState,
    timer: Timer,
    links: watch::Receiver<Arc<Links>>,
    watched: watch::Receiver<Arc<WatchedInterfaces>>,
    expected: watch::Receiver<Arc<ExpectedAddresses>>,
    requests: mpsc::Receiver<MonitorRequest>,
    publish: broadcast::Sender<Arc<FindingRecord>>,
    events: broadcast::Sender<ArpEvent>,
    /// Reused in each iteration.
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
    /// A monitor of these rings and its handle. `prober` sends probes, or is the reason why none are sent.
    pub fn new(
        rings: EventRings,
        config: DetectConfig,
        prober: Result<Prober, ProberState>,
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
        let prober_state = prober.as_ref().err().copied();
        let prober = prober.ok();
        let config = DetectConfig {
            can_probe: prober.is_some(),
            ..config
        };
        let monitor = Self {
            rings,
            reorder_buffer: ReorderBuffer::default(),
            detector: Detector::new(config),
            prober,
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

    /// Sets the configured segment names.
    pub fn name_segments(&mut self, names: Vec<SegmentName>) {
        self.names = names;
    }

    /// Sets the source of the expected addresses.
    pub fn expect(&mut self, expected: watch::Receiver<Arc<ExpectedAddresses>>) {
        self.expected = expected;
    }

    /// Runs until `stop` completes or the rings fail; remaining events are still processed. Returns the bindings with a
    /// pending takeover.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> io::Result<Vec<BindingRecord>> {
        let mut stop = std::pin::pin!(stop);
        self.update_host_facts();
        loop {
            let emptied = self.run_due();
            self.timer.arm(self.next_deadline())?;
            tokio::select! {
                () = &mut stop => break,
                readable = self.rings.readable() => readable?,
                elapsed = self.timer.elapsed() => elapsed?,
                () = std::future::ready(()), if !emptied => tokio::task::yield_now().await,
                Some(request) = self.requests.recv() => self.handle_request(request),
                Ok(()) = self.links.changed() => self.update_host_facts(),
                Ok(()) = self.watched.changed() => self.update_host_facts(),
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

    /// One iteration: drain, order, detect, publish. Returns whether the rings were emptied.
    fn run_due(&mut self) -> bool {
        // Read before draining: events with a later time stamp may still be missing from other rings.
        let drained_at = monotonic();
        let reorder_buffer = &mut self.reorder_buffer;
        let emptied = self
            .rings
            .drain(EVENTS_PER_BATCH, |event| reorder_buffer.push(event));
        if emptied {
            self.process_until(drained_at);
            self.detector.tick(drained_at, &mut self.findings);
            if let Some(prober) = &mut self.prober {
                prober.run_due(&mut self.detector, drained_at, &mut self.findings);
            }
        }
        self.publish();
        emptied
    }

    /// The time of the next iteration without new events.
    fn next_deadline(&self) -> Option<Timestamp> {
        let drain = self.reorder_buffer.next_drain_ns().map(Timestamp);
        let prober = self.prober.as_ref().and_then(Prober::next_deadline);
        [drain, self.detector.next_deadline(), prober]
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
                // The subscriber may have been dropped.
                let _ = self.events.send(event);
            }
            match Observation::try_from(&event) {
                Ok(observation) => {
                    if let Some(prober) = &mut self.prober {
                        prober.observe(&observation);
                    }
                    self.detector.observe(&observation, &mut self.findings);
                }
                Err(error) => {
                    self.undecodable += 1;
                    tracing::debug!(%error, "event not decoded");
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
            // No subscribers is no error: the finding is in the metrics.
            let _ = self.publish.send(Arc::new(record));
        }
        self.findings = findings;
    }

    /// Passes the facts about this host to detection.
    fn update_host_facts(&mut self) {
        let links = self.links.borrow_and_update().clone();
        let watched = self.watched.borrow_and_update().clone();
        self.segments = Arc::new(SegmentNames::new(&self.names, &links, &watched));
        let facts = host_facts(&links, |ifindex| watched.contains(ifindex));
        self.detector.learn(facts, monotonic(), &mut self.findings);
        if let Some(prober) = &mut self.prober {
            prober.update_interfaces(&links, &watched);
        }
        // An index may be reused by an interface on another network.
        for ifindex in self.received.update_watched(&watched) {
            self.detector.forget_interface(ifindex);
        }
        self.set_expected();
    }

    /// Passes the expected addresses to detection.
    fn set_expected(&mut self) {
        let expected = self.expected.borrow_and_update().clone();
        self.detector
            .set_expected(expected, monotonic(), &mut self.findings);
    }

    fn handle_request(&mut self, request: MonitorRequest) {
        match request {
            // The requester may have been dropped.
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
            MonitorRequest::ProbeOnce(keys, sender) => {
                if let Some(prober) = &mut self.prober {
                    for key in keys {
                        prober.probe_once(key, monotonic());
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
            can_probe: self.prober.is_some(),
            ..config
        };
        self.detector
            .reconfigure(config, monotonic(), &mut self.findings);
        self.name_segments(names);
        self.update_host_facts();
        self.publish();
    }

    fn addresses(&self, group: AddressGroup, from: TableCursor) -> AddressPage {
        let page = self.detector.page(group, from, PAGE);
        let watched = self.watched.borrow();
        let summary = |address: &AddressView| {
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
                    let summary = summary(&address);
                    (address, summary)
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
            prober: self
                .prober
                .as_ref()
                .map_or_else(|| ProberStatus::inactive(self.prober_state), Prober::view),
        }
    }
}

/// Whether it is a change event. Others wait to be drained in batches (`kernel/rings.rs`), so their delay does not
/// measure detection.
fn is_change(event: &ArpEvent) -> bool {
    !event.previous.is_some() || event.previous.mac != event.frame.sha
}
