//! Records the frames behind new findings.

use std::{io, mem, sync::Arc};

use probe_capture::{CaptureRecorder, CapturedHost};
use probe_common::event::ArpEvent;
use probe_datapath::clock::{monotonic, wall_clock_offset_ns};
use probe_model::{FindingRecord, Links, watched::WatchedInterfaces};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc, watch,
};

use crate::{daemon::monitor::MonitorHandle, filter::RecordFilter};

/// A recording, which starts when this is created.
#[derive(Debug)]
pub struct Recording {
    findings: broadcast::Receiver<Arc<FindingRecord>>,
    events: broadcast::Receiver<ArpEvent>,
    links: watch::Receiver<Arc<Links>>,
    watched: watch::Receiver<Arc<WatchedInterfaces>>,
    filter: RecordFilter,
    /// The earlier findings.
    known: Vec<FindingRecord>,
}

/// The summary of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordingSummary {
    /// Frames written.
    pub frames: u64,
    /// Frames and findings that arrived faster than they could be written.
    pub missed: u64,
}

impl Recording {
    /// Records the frames of matching findings. `known` are earlier findings, such as open conflicts: frames about
    /// their addresses are recorded too.
    pub fn new(
        monitor: &MonitorHandle,
        links: watch::Receiver<Arc<Links>>,
        watched: watch::Receiver<Arc<WatchedInterfaces>>,
        filter: RecordFilter,
        known: Vec<FindingRecord>,
    ) -> Self {
        Self {
            findings: monitor.findings(),
            events: monitor.events(),
            links,
            watched,
            filter,
            known,
        }
    }

    /// Records until the monitor ends or the receiver is dropped. Each chunk consists of whole blocks of pcapng.
    pub async fn run(mut self, out: mpsc::Sender<Vec<u8>>) -> io::Result<RecordingSummary> {
        let mut recorder = CaptureRecorder::new(Vec::new(), self.host(), wall_clock_offset_ns())?;
        for finding in mem::take(&mut self.known) {
            self.finding(&mut recorder, &finding)?;
        }
        loop {
            let piece = mem::take(recorder.get_mut());
            if !piece.is_empty() && out.send(piece).await.is_err() {
                break;
            }
            tokio::select! {
                // Events first: a finding is about earlier events.
                biased;
                () = out.closed() => break,
                event = self.events.recv() => match event {
                    Ok(event) => recorder.event(&event)?,
                    Err(RecvError::Lagged(missed)) => recorder.record_missed(missed)?,
                    // The monitor publishes its last findings before it ends.
                    Err(RecvError::Closed) => {
                        while let Ok(finding) = self.findings.try_recv() {
                            self.finding(&mut recorder, &finding)?;
                        }
                        break;
                    }
                },
                finding = self.findings.recv() => match finding {
                    Ok(finding) => self.finding(&mut recorder, &finding)?,
                    Err(RecvError::Lagged(missed)) => recorder.record_missed(missed)?,
                    // The same for events, which the loop reads to their end.
                    Err(RecvError::Closed) => {}
                },
                Ok(()) = self.watched.changed() => recorder.set_host(self.host())?,
                Ok(()) = self.links.changed() => recorder.set_host(self.host())?,
            }
        }
        let (frames, missed) = (recorder.frames(), recorder.missed());
        let rest = recorder.finish(monotonic().0)?;
        // If the receiver was dropped, the rest is not needed.
        let _ = out.send(rest).await;
        Ok(RecordingSummary { frames, missed })
    }

    fn finding(
        &self,
        recorder: &mut CaptureRecorder<Vec<u8>>,
        finding: &FindingRecord,
    ) -> io::Result<()> {
        if self.filter.matches_finding(finding) {
            recorder.finding(finding)
        } else {
            Ok(())
        }
    }

    fn host(&mut self) -> CapturedHost {
        let links = self.links.borrow_and_update().clone();
        let watched = self.watched.borrow_and_update().clone();
        CapturedHost::new(&links, &watched)
    }
}
