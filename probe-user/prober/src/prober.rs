//! The prober of the daemon: connects the detector, the scheduler and the socket.

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

/// The interval at which the tracked addresses are updated.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// The status of active probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProberStatus {
    /// Whether this process sends ARP probes.
    pub state: ProberState,
    /// The numbers of ARP probes sent and not sent.
    pub counts: ProbeCounts,
}

impl ProberStatus {
    /// The status of a process that sends no ARP probes.
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

/// Sends the ARP probes that the detector requests, and periodic ones.
#[derive(Debug)]
pub struct Prober {
    probe_scheduler: ProbeScheduler,
    socket: ArpSocket,
    source_interfaces: SourceInterfaces,
    last_refresh: Option<Timestamp>,
    /// [`Detector::tracked_generation`] at the last update.
    tracked_generation: Option<u64>,
    is_leader: watch::Receiver<bool>,
}

struct PlannedView<'a> {
    detector: &'a Detector,
    source_interfaces: &'a SourceInterfaces,
}

impl DetectorView for PlannedView<'_> {
    fn is_wanted(&self, request: &ProbeRequest) -> bool {
        self.detector.is_wanted(request)
    }

    fn quiet_until(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp> {
        self.detector.quiet_until(key, now)
    }

    fn source_interface(&self, key: &BindingKey) -> Result<SourceInterface, NotSentReason> {
        self.source_interfaces.find(key)
    }
}

impl Prober {
    /// Creates a prober that sends through this socket.
    pub fn new(socket: ArpSocket, config: &ProbeSchedulerConfig) -> Self {
        Self {
            probe_scheduler: ProbeScheduler::new(config, fastrand::u64(..)),
            socket,
            source_interfaces: SourceInterfaces::default(),
            last_refresh: None,
            tracked_generation: None,
            is_leader: watch::Sender::new(false).subscribe(),
        }
    }

    /// Sets the receiver of the leadership: the leader probes every address of the cluster itself.
    #[must_use]
    pub fn with_leadership(self, is_leader: watch::Receiver<bool>) -> Self {
        Self { is_leader, ..self }
    }

    /// Updates the interfaces of this host.
    pub fn update_interfaces(&mut self, links: &Links, watched: &WatchedInterfaces) {
        let attached = |ifindex| {
            let watched = watched.get(ifindex);
            watched.is_some_and(|watched| matches!(watched.state, WatchState::Attached { .. }))
        };
        self.source_interfaces = SourceInterfaces::new(links, attached);
        (self.last_refresh, self.tracked_generation) = (None, None);
    }

    /// Probes an address once, as soon as the scheduler permits it. Replies are observed like other claims.
    pub fn probe_once(&mut self, key: BindingKey, now: Timestamp) {
        self.probe_scheduler.probe_once(key, now);
    }

    /// Records an observed frame; to be called before the detector observes it.
    pub fn observe(&mut self, observation: &Observation) {
        self.probe_scheduler.observe(observation);
    }

    /// Reports the outcomes of probes to the detector, schedules its requests, and sends the probes that are due.
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
            for request in detector.take_probe_requests() {
                self.probe_scheduler.schedule(request, now);
            }
            let next = self.probe_scheduler.next(
                now,
                &PlannedView {
                    detector,
                    source_interfaces: &self.source_interfaces,
                },
            );
            match next {
                Some(scheduled) => {
                    let ifindex = scheduled.key.segment.interface;
                    if let Err(error) = self.socket.send(ifindex, &scheduled.probe) {
                        tracing::debug!(%error, address = %scheduled.key.ip, "cannot send an ARP probe");
                        self.probe_scheduler.send_failed(&scheduled, now);
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
            ProbeOutcome::Completed { request, replied } => {
                detector.record_replies(&request, now, &replied, findings);
                if replied.is_empty() && !detector.is_silent(&request.key) {
                    self.probe_scheduler.restart_silence_check(&request.key);
                }
            }
            ProbeOutcome::NotProbed(request) => {
                detector.record_not_probed(&request, now, findings);
            }
            ProbeOutcome::SilenceWithdrawn(key) => detector.withdraw_silence(&key),
            ProbeOutcome::NoFramesReceived(request) => {
                // Probe a host that replied before, to check whether this host is connected.
                if let Some(reference) =
                    detector.reference_address(request.key.segment, request.key.ip)
                {
                    self.probe_scheduler.probe_once(reference, now);
                } else {
                    self.probe_scheduler.accept_silence(&request, now);
                    detector.record_replies(&request, now, &[], findings);
                }
            }
        }
    }

    /// Updates the tracked addresses.
    fn refresh(&mut self, detector: &mut Detector, now: Timestamp) {
        self.probe_scheduler.set_leading(*self.is_leader.borrow());
        // With ten thousand addresses, each update would delay the processing of frames.
        if self.tracked_generation == Some(detector.tracked_generation()) {
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
        // Addresses that are not on-link cannot be probed.
        let source_interfaces = &self.source_interfaces;
        let keys = detector.tracked_keys();
        let on_link = keys.filter(|key| source_interfaces.find(key) != Err(NotSentReason::OffLink));
        let targets = on_link.map(|key| TrackedTarget {
            key,
            from_cluster: detector.is_expected(&key),
        });
        self.probe_scheduler.set_tracked(targets, now);
        self.tracked_generation = Some(detector.tracked_generation());
    }

    /// The time at which [`Self::run_due`] is to be called, unless a frame is observed before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let refresh = self
            .last_refresh
            .map(|last_refresh| last_refresh + REFRESH_INTERVAL);
        [self.probe_scheduler.next_deadline(), refresh]
            .into_iter()
            .flatten()
            .min()
    }

    /// The current status.
    pub fn view(&self) -> ProberStatus {
        ProberStatus {
            state: ProberState::On,
            counts: *self.probe_scheduler.counts(),
        }
    }
}
