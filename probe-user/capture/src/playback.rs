//! Runs detection over a capture, in the order of time.

use std::{cmp::Reverse, collections::BinaryHeap, mem, ops::ControlFlow};

use probe_common::event::ArpEvent;
use probe_detect::{DetectConfig, Detector, Observation};
use probe_model::{BindingRecord, ClaimRecord, Clock, Finding, FindingRecord, Timestamp};

use super::{
    decode::{CaptureItem, CaptureStatistics, CapturedFrame},
    reader::{CaptureError, CaptureReader},
    replay::KernelReplay,
};

/// The maximum number of buffered frames for reordering. Frames of several interfaces or queues are out of order, and so
/// are those that this program writes after a finding.
const REORDER_CAPACITY: usize = 1 << 19;
/// The number of items between two progress events.
const ITEMS_PER_PROGRESS: u64 = 1 << 14;

/// An event of a playback.
#[derive(Debug)]
pub enum PlaybackEvent {
    /// A claim; only if claims are enabled.
    Claim(ClaimRecord),
    /// A finding.
    Finding(FindingRecord),
    /// The end: the bindings with an undecided takeover, and the time of the last processed frame.
    Undecided(Vec<BindingRecord>, Timestamp),
    /// The amount of data that has been read so far.
    BytesRead(CaptureStatistics),
}

/// Runs detection over a capture.
pub struct Playback<'a> {
    reader: CaptureReader<'a>,
    detector: Detector,
    replay: KernelReplay,
    queue: BinaryHeap<Reverse<QueuedFrame>>,
    claims: bool,
    arrivals: u64,
    /// Whether the description of the host changed since the last update of the detector.
    host_changed: bool,
    end_ns: u64,
    processed_until: Timestamp,
    findings: Vec<Finding>,
}

/// A frame with its sort key. Frames with equal times stay in the order of the file.
struct QueuedFrame {
    arrival: u64,
    captured: CapturedFrame,
}

impl QueuedFrame {
    fn sort_key(&self) -> (u64, u64) {
        (self.captured.at_ns, self.arrival)
    }
}

impl PartialEq for QueuedFrame {
    fn eq(&self, other: &Self) -> bool {
        self.sort_key() == other.sort_key()
    }
}

impl Eq for QueuedFrame {}

impl PartialOrd for QueuedFrame {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for QueuedFrame {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.sort_key().cmp(&other.sort_key())
    }
}

impl<'a> Playback<'a> {
    /// Creates a playback of the capture with this configuration of the detector. `claims` enables events for claims.
    pub fn new(reader: CaptureReader<'a>, config: DetectConfig, claims: bool) -> Self {
        Self {
            reader,
            detector: Detector::new(config),
            replay: KernelReplay::default(),
            queue: BinaryHeap::new(),
            claims,
            arrivals: 0,
            host_changed: false,
            end_ns: 0,
            processed_until: Timestamp::ZERO,
            findings: Vec::new(),
        }
    }

    /// Runs detection until the end of the capture, the first error, or until `emit` breaks. Returns the amount of data
    /// that was read, and the error.
    pub fn run(
        mut self,
        mut emit: impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> (CaptureStatistics, Result<(), CaptureError>) {
        let outcome = loop {
            match self.reader.next_item() {
                Ok(Some(item)) => {
                    if self.process_item(item, &mut emit).is_break() {
                        self.publish_undecided(&mut emit);
                        return (self.reader.statistics(), Ok(()));
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let _ = self.finish(&mut emit);
        self.publish_undecided(&mut emit);
        (self.reader.statistics(), outcome)
    }

    fn publish_undecided(&self, emit: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>) {
        let views = self.detector.pending_takeovers();
        let bindings = views.map(|view| {
            let interface = self.reader.interface(view.key.segment.interface);
            BindingRecord::new(&view, interface.to_owned(), Clock::Epoch)
        });
        // This is the last event, so a break has no effect.
        let _ = emit(PlaybackEvent::Undecided(
            bindings.collect(),
            self.processed_until,
        ));
    }

    fn process_item(
        &mut self,
        item: CaptureItem,
        emit: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.arrivals += 1;
        match item {
            CaptureItem::Other => {}
            CaptureItem::Host => self.host_changed = true,
            CaptureItem::End(at_ns) => self.end_ns = self.end_ns.max(at_ns),
            CaptureItem::Frame(captured) => {
                let arrival = self.arrivals;
                self.queue.push(Reverse(QueuedFrame { arrival, captured }));
                if self.queue.len() > REORDER_CAPACITY {
                    self.process_next(emit)?;
                }
            }
        }
        if self.arrivals.is_multiple_of(ITEMS_PER_PROGRESS) {
            emit(PlaybackEvent::BytesRead(self.reader.statistics()))?;
        }
        ControlFlow::Continue(())
    }

    fn finish(
        &mut self,
        emit: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while !self.queue.is_empty() {
            self.process_next(emit)?;
        }
        // A capture without an end time ends with its last frame.
        self.processed_until = self.processed_until.max(Timestamp(self.end_ns));
        self.detector.tick(self.processed_until, &mut self.findings);
        self.publish(emit)
    }

    fn process_next(
        &mut self,
        emit: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(Reverse(QueuedFrame { captured, .. })) = self.queue.pop() else {
            return ControlFlow::Continue(());
        };
        self.processed_until = self.processed_until.max(Timestamp(captured.at_ns));
        if mem::take(&mut self.host_changed) {
            let (facts, at) = (self.reader.host().facts(), Timestamp(captured.at_ns));
            self.detector.learn(facts, at, &mut self.findings);
        }
        let event = self.event(&captured);
        if self.claims
            && let Some(claim) = self.claim(&event)
        {
            emit(PlaybackEvent::Claim(claim))?;
        }
        if let Ok(observation) = Observation::try_from(&event) {
            self.detector.observe(&observation, &mut self.findings);
        }
        self.publish(emit)
    }

    fn event(&mut self, captured: &CapturedFrame) -> ArpEvent {
        let CapturedFrame {
            at_ns,
            interface,
            hook,
            frame,
            ..
        } = captured;
        let derived = self.replay.event(frame, *at_ns, *interface, *hook);
        captured.event().unwrap_or(derived)
    }

    fn claim(&self, event: &ArpEvent) -> Option<ClaimRecord> {
        let interface = self.reader.interface(event.ifindex).to_owned();
        ClaimRecord::new(
            event,
            interface,
            Clock::Epoch.to_wall_clock(Timestamp(event.ktime_ns)),
        )
    }

    fn publish(
        &mut self,
        emit: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for finding in mem::take(&mut self.findings) {
            let interface = self.reader.interface(finding.segment.interface).to_owned();
            emit(PlaybackEvent::Finding(FindingRecord::new(
                &finding,
                interface,
                Clock::Epoch,
            )))?;
        }
        ControlFlow::Continue(())
    }
}
