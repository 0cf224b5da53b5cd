//! Detection, the scheduler and the socket, joined.

use std::time::Duration;

use ipnet::IpNet;
use probe_detect::{Detector, Observation, ProbeRequest};
use probe_model::{
    BindingKey, Finding, Links, Timestamp,
    watched::{WatchState, WatchedInterfaces},
};
use tokio::sync::watch;

use super::{
    ArpSocket, DetectorView, NotSentReason, ProbeCounts, ProbeOutcome, ProbeScheduler,
    ProbeSchedulerConfig, ProberState, SourceInterface, SourceInterfaces, TrackedTarget,
};

/// How often is looked which addresses matter by now.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// What there is to know about asking at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProberStatus {
    /// Whether this process asks.
    pub state: ProberState,
    /// What was asked, and what was not.
    pub counts: ProbeCounts,
}

impl ProberStatus {
    /// Of a process that does not ask, and why.
    pub fn inactive(state: ProberState) -> Self {
        Self {
            state,
            counts: ProbeCounts::default(),
        }
    }
}

impl Default for ProberStatus {
    fn default() -> Self {
        Self::inactive(ProberState::Off)
    }
}

/// The daemon's asking.
#[derive(Debug)]
pub struct Prober {
    probe_scheduler: ProbeScheduler,
    socket: ArpSocket,
    source_interfaces: SourceInterfaces,
    last_refresh: Option<Timestamp>,
    /// [`Detector::tracked_generation`] when it was looked.
    seen: Option<u64>,
    is_leader: watch::Receiver<bool>,
}

struct PlannedView<'a> {
    detector: &'a Detector,
    source_interfaces: &'a SourceInterfaces,
}

impl DetectorView for PlannedView<'_> {
    fn is_wanted(&self, ask: &ProbeRequest) -> bool {
        self.detector.is_wanted(ask)
    }

    fn quiet_until(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp> {
        self.detector.quiet_until(key, now)
    }

    fn source_interface(&self, key: &BindingKey) -> Result<SourceInterface, NotSentReason> {
        self.source_interfaces.find(key)
    }
}

impl Prober {
    /// Asks through this socket.
    pub fn new(socket: ArpSocket, config: &ProbeSchedulerConfig) -> Self {
        Self {
            probe_scheduler: ProbeScheduler::new(config, fastrand::u64(..)),
            socket,
            source_interfaces: SourceInterfaces::default(),
            last_refresh: None,
            seen: None,
            is_leader: watch::Sender::new(false).subscribe(),
        }
    }

    /// While this says so, this node asks about every address of the cluster itself.
    #[must_use]
    pub fn with_leadership(self, is_leader: watch::Receiver<bool>) -> Self {
        Self { is_leader, ..self }
    }

    /// The interfaces have changed.
    pub fn learn(&mut self, links: &Links, watched: &WatchedInterfaces) {
        let attached = |ifindex| {
            let watched = watched.get(ifindex);
            watched.is_some_and(|watched| matches!(watched.state, WatchState::Attached { .. }))
        };
        self.source_interfaces = SourceInterfaces::new(links, attached);
        (self.last_refresh, self.seen) = (None, None);
    }

    /// Asks once about an address, as soon as the rules of asking let it: who answers is heard.
    pub fn probe_once(&mut self, key: BindingKey, now: Timestamp) {
        self.probe_scheduler.probe_once(key, now);
    }

    /// Takes a frame, before detection does.
    pub fn observe(&mut self, observation: &Observation) {
        self.probe_scheduler.observe(observation);
    }

    /// Does what is due: hands answers to detection, takes its wishes, sends.
    pub fn run_due(
        &mut self,
        detector: &mut Detector,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        if self
            .last_refresh
            .is_none_or(|last_refresh| now.since(last_refresh) >= REFRESH_INTERVAL)
        {
            self.last_refresh = Some(now);
            self.refresh(detector, now);
        }
        loop {
            let outcomes = self.probe_scheduler.take_outcomes(now);
            let is_done = outcomes.is_empty();
            for outcome in outcomes {
                self.apply_outcome(outcome, detector, now, findings);
            }
            for ask in detector.take_probe_requests() {
                self.probe_scheduler.schedule(ask, now);
            }
            let shot = self.probe_scheduler.next(
                now,
                &PlannedView {
                    detector,
                    source_interfaces: &self.source_interfaces,
                },
            );
            match shot {
                Some(shot) => {
                    let ifindex = shot.key.segment.interface;
                    if let Err(error) = self.socket.send(ifindex, &shot.question) {
                        tracing::debug!(%error, address = %shot.key.ip, "a question was not sent");
                        self.probe_scheduler.send_failed(&shot, now);
                    }
                }
                None if is_done => return,
                None => {}
            }
        }
    }

    fn apply_outcome(
        &mut self,
        outcome: ProbeOutcome,
        detector: &mut Detector,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        match outcome {
            ProbeOutcome::Answered { ask, by } => {
                detector.record_replies(&ask, now, &by, findings);
                if by.is_empty() && !detector.is_silent(&ask.key) {
                    self.probe_scheduler.restart_silence_check(&ask.key);
                }
            }
            ProbeOutcome::NotProbed(ask) => detector.record_not_probed(&ask, now, findings),
            ProbeOutcome::SilenceWithdrawn(key) => detector.withdraw_silence(&key),
            ProbeOutcome::NoFramesReceived(ask) => {
                // Is there anybody at all?
                if let Some(witness) = detector.reference_address(ask.key.segment, ask.key.ip) {
                    self.probe_scheduler.probe_once(witness, now);
                } else {
                    self.probe_scheduler.accept_silence(&ask, now);
                    detector.record_replies(&ask, now, &[], findings);
                }
            }
        }
    }

    /// Looks which addresses matter.
    fn refresh(&mut self, detector: &mut Detector, now: Timestamp) {
        self.probe_scheduler.set_leading(*self.is_leader.borrow());
        // Of ten thousand addresses each look would keep frames waiting.
        if self.seen == Some(detector.tracked_generation()) {
            return;
        }
        let single = |network: &IpNet| match network {
            IpNet::V4(network) if network.prefix_len() == 32 => Some(network.addr()),
            IpNet::V4(_) | IpNet::V6(_) => None,
        };
        for ip in detector
            .tracked_networks()
            .filter_map(single)
            .collect::<Vec<_>>()
        {
            for segment in self.source_interfaces.segments_of(ip) {
                let ip = ip.into();
                detector.expect(BindingKey { segment, ip }, now);
            }
        }
        // What is elsewhere would only be turned away each time.
        let source_interfaces = &self.source_interfaces;
        let keys = detector.tracked_keys();
        let here = keys.filter(|key| source_interfaces.find(key) != Err(NotSentReason::OffLink));
        let wanted = here.map(|key| TrackedTarget {
            key,
            from_cluster: detector.is_expected(&key),
        });
        self.probe_scheduler.set_tracked(wanted, now);
        self.seen = Some(detector.tracked_generation());
    }

    /// When the next turn is due, if nothing is heard before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let look = self
            .last_refresh
            .map(|last_refresh| last_refresh + REFRESH_INTERVAL);
        [self.probe_scheduler.next_deadline(), look]
            .into_iter()
            .flatten()
            .min()
    }

    /// What there is to know.
    pub fn view(&self) -> ProberStatus {
        ProberStatus {
            state: ProberState::On,
            counts: *self.probe_scheduler.counts(),
        }
    }
}
