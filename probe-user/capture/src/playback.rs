//! Runs detection over a capture: in the order of time, with what the kernel side would have added.

use std::{cmp::Reverse, collections::BinaryHeap, mem, ops::ControlFlow};

use probe_common::event::ArpEvent;
use probe_detect::{DetectConfig, Detector, Observation};
use probe_model::{BindingRecord, ClaimRecord, Clock, Finding, FindingRecord, Timestamp};

use super::{
    decode::{CaptureItem, CaptureStatistics, CapturedFrame},
    reader::{CaptureError, CaptureReader},
    replay::KernelReplay,
};

/// Frames that may be out of order: those of several interfaces or queues, and those that this program
/// wrote when a finding came. Bounds the memory that a capture takes.
const REORDER_CAPACITY: usize = 1 << 19;
/// Things in the capture between two words on the progress.
const ITEMS_PER_PROGRESS: u64 = 1 << 14;

/// What a playback has to tell.
#[derive(Debug)]
pub enum PlaybackEvent {
    /// A claim; only if claims are wanted.
    Claim(ClaimRecord),
    /// A finding.
    Finding(FindingRecord),
    /// At the end: the bindings whose takeover is not decided, and the time of the last judged frame.
    Undecided(Vec<BindingRecord>, Timestamp),
    /// So much has been read.
    BytesRead(CaptureStatistics),
}

/// Detection over a capture.
pub struct Playback<'a> {
    reader: CaptureReader<'a>,
    detector: Detector,
    replay: KernelReplay,
    waiting: BinaryHeap<Reverse<QueuedFrame>>,
    claims: bool,
    arrivals: u64,
    /// The host is described anew: detection has to learn of it.
    host_dirty: bool,
    end_ns: u64,
    judged_until: Timestamp,
    findings: Vec<Finding>,
}

/// A frame with its place. Equal times keep their order in the file.
struct QueuedFrame {
    arrival: u64,
    sighted: CapturedFrame,
}

impl QueuedFrame {
    fn place(&self) -> (u64, u64) {
        (self.sighted.at_ns, self.arrival)
    }
}

impl PartialEq for QueuedFrame {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
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
        self.place().cmp(&other.place())
    }
}

impl<'a> Playback<'a> {
    /// Judges what the reader gives by this configuration.
    pub fn new(reader: CaptureReader<'a>, config: DetectConfig, claims: bool) -> Self {
        Self {
            reader,
            detector: Detector::new(config),
            replay: KernelReplay::default(),
            waiting: BinaryHeap::new(),
            claims,
            arrivals: 0,
            host_dirty: false,
            end_ns: 0,
            judged_until: Timestamp::ZERO,
            findings: Vec::new(),
        }
    }

    /// Runs to the end of the capture, to the end of what can be read of it, or until `tell` breaks. Returns how much
    /// was read, and why no more.
    pub fn run(
        mut self,
        mut tell: impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> (CaptureStatistics, Result<(), CaptureError>) {
        let outcome = loop {
            match self.reader.next_entry() {
                Ok(Some(item)) => {
                    if self.take(item, &mut tell).is_break() {
                        self.publish_undecided(&mut tell);
                        return (self.reader.tally(), Ok(()));
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let _ = self.finish(&mut tell);
        self.publish_undecided(&mut tell);
        (self.reader.tally(), outcome)
    }

    fn publish_undecided(&self, tell: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>) {
        let views = self.detector.pending_takeovers();
        let bindings = views.map(|view| {
            let interface = self.reader.interface(view.key.segment.interface);
            BindingRecord::new(&view, interface.to_owned(), Clock::Epoch)
        });
        // Nothing comes after it that could be stopped.
        let _ = tell(PlaybackEvent::Undecided(
            bindings.collect(),
            self.judged_until,
        ));
    }

    fn take(
        &mut self,
        item: CaptureItem,
        tell: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.arrivals += 1;
        match item {
            CaptureItem::Other => {}
            CaptureItem::Host => self.host_dirty = true,
            CaptureItem::End(at_ns) => self.end_ns = self.end_ns.max(at_ns),
            CaptureItem::Frame(sighted) => {
                let arrival = self.arrivals;
                self.waiting.push(Reverse(QueuedFrame { arrival, sighted }));
                if self.waiting.len() > REORDER_CAPACITY {
                    self.process_next(tell)?;
                }
            }
        }
        if self.arrivals.is_multiple_of(ITEMS_PER_PROGRESS) {
            tell(PlaybackEvent::BytesRead(self.reader.tally()))?;
        }
        ControlFlow::Continue(())
    }

    fn finish(
        &mut self,
        tell: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while !self.waiting.is_empty() {
            self.process_next(tell)?;
        }
        // A capture that does not say when it ended ends with its last frame.
        self.judged_until = self.judged_until.max(Timestamp(self.end_ns));
        self.detector.tick(self.judged_until, &mut self.findings);
        self.publish(tell)
    }

    fn process_next(
        &mut self,
        tell: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(Reverse(QueuedFrame { sighted, .. })) = self.waiting.pop() else {
            return ControlFlow::Continue(());
        };
        self.judged_until = self.judged_until.max(Timestamp(sighted.at_ns));
        if mem::take(&mut self.host_dirty) {
            let (facts, at) = (self.reader.host().facts(), Timestamp(sighted.at_ns));
            self.detector.learn(facts, at, &mut self.findings);
        }
        let event = self.event(&sighted);
        if self.claims
            && let Some(claim) = self.claim(&event)
        {
            tell(PlaybackEvent::Claim(claim))?;
        }
        if let Ok(observation) = Observation::try_from(&event) {
            self.detector.observe(&observation, &mut self.findings);
        }
        self.publish(tell)
    }

    fn event(&mut self, sighted: &CapturedFrame) -> ArpEvent {
        let CapturedFrame {
            at_ns,
            interface,
            hook,
            frame,
            ..
        } = sighted;
        let derived = self.replay.event(frame, *at_ns, *interface, *hook);
        sighted.event().unwrap_or(derived)
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
        tell: &mut impl FnMut(PlaybackEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for finding in mem::take(&mut self.findings) {
            let interface = self.reader.interface(finding.segment.interface).to_owned();
            tell(PlaybackEvent::Finding(FindingRecord::new(
                &finding,
                interface,
                Clock::Epoch,
            )))?;
        }
        ControlFlow::Continue(())
    }
}
