//! Detection, the scheduler and the socket, joined.

use std::time::Duration;

use ipnet::IpNet;
use probe_detect::{Ask, Detector, Observation};
use probe_model::{
    BindingKey, Finding, Links, Timestamp,
    watched::{WatchState, WatchedInterfaces},
};
use tokio::sync::watch;

use super::{
    ArpSocket, AskCounts, Asker, AskerConfig, AskingState, NotSent, Outcome, Place, Places, View,
    Wanted,
};

/// How often is looked which addresses matter by now.
const LOOK: Duration = Duration::from_secs(5);

/// What there is to know about asking at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskingView {
    /// Whether this process asks.
    pub state: AskingState,
    /// What was asked, and what was not.
    pub counts: AskCounts,
}

impl AskingView {
    /// Of a process that does not ask, and why.
    pub fn not(state: AskingState) -> Self {
        Self {
            state,
            counts: AskCounts::default(),
        }
    }
}

impl Default for AskingView {
    fn default() -> Self {
        Self::not(AskingState::Off)
    }
}

/// The daemon's asking.
#[derive(Debug)]
pub struct Asking {
    asker: Asker,
    socket: ArpSocket,
    places: Places,
    looked: Option<Timestamp>,
    /// [`Detector::cares`] when it was looked.
    seen: Option<u64>,
    leads: watch::Receiver<bool>,
}

struct Here<'a> {
    detector: &'a Detector,
    places: &'a Places,
}

impl View for Here<'_> {
    fn wants(&self, ask: &Ask) -> bool {
        self.detector.wants(ask)
    }

    fn last_probed(&self, key: &BindingKey, now: Timestamp) -> Option<Timestamp> {
        self.detector.last_probed(key, now)
    }

    fn place(&self, key: &BindingKey) -> Result<Place, NotSent> {
        self.places.find(key)
    }
}

impl Asking {
    /// Asks through this socket.
    pub fn new(socket: ArpSocket, config: &AskerConfig) -> Self {
        Self {
            asker: Asker::new(config, fastrand::u64(..)),
            socket,
            places: Places::default(),
            looked: None,
            seen: None,
            leads: watch::Sender::new(false).subscribe(),
        }
    }

    /// While this says so, this node asks about every address of the cluster itself.
    #[must_use]
    pub fn leading_while(self, leads: watch::Receiver<bool>) -> Self {
        Self { leads, ..self }
    }

    /// The interfaces have changed.
    pub fn learn(&mut self, links: &Links, watched: &WatchedInterfaces) {
        let attached = |ifindex| {
            let watched = watched.get(ifindex);
            watched.is_some_and(|watched| matches!(watched.state, WatchState::Attached { .. }))
        };
        self.places = Places::new(links, attached);
        (self.looked, self.seen) = (None, None);
    }

    /// Asks once about an address, as soon as the rules of asking let it: who answers is heard.
    pub fn ask_once(&mut self, key: BindingKey, now: Timestamp) {
        self.asker.ask_once(key, now);
    }

    /// Takes a frame, before detection does.
    pub fn hear(&mut self, observation: &Observation) {
        self.asker.hear(observation);
    }

    /// Does what is due: hands answers to detection, takes its wishes, sends.
    pub fn turn(&mut self, detector: &mut Detector, now: Timestamp, findings: &mut Vec<Finding>) {
        if self.looked.is_none_or(|looked| now.since(looked) >= LOOK) {
            self.looked = Some(now);
            self.look(detector, now);
        }
        loop {
            let outcomes = self.asker.conclude(now);
            let is_done = outcomes.is_empty();
            for outcome in outcomes {
                self.report(outcome, detector, now, findings);
            }
            for ask in detector.take_asks() {
                self.asker.plan(ask, now);
            }
            let shot = self.asker.next(
                now,
                &Here {
                    detector,
                    places: &self.places,
                },
            );
            match shot {
                Some(shot) => {
                    let ifindex = shot.key.segment.interface;
                    if let Err(error) = self.socket.send(ifindex, &shot.question) {
                        tracing::debug!(%error, address = %shot.key.ip, "a question was not sent");
                        self.asker.failed(&shot, now);
                    }
                }
                None if is_done => return,
                None => {}
            }
        }
    }

    fn report(
        &mut self,
        outcome: Outcome,
        detector: &mut Detector,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        match outcome {
            Outcome::Answered { ask, by } => {
                detector.answered(&ask, now, &by, findings);
                if by.is_empty() && !detector.is_silent(&ask.key) {
                    self.asker.doubt(&ask.key);
                }
            }
            Outcome::Unasked(ask) => detector.unasked(&ask, now, findings),
            Outcome::SilenceForgotten(key) => detector.forget_silence(&key),
            Outcome::Mute(ask) => {
                // Is there anybody at all?
                if let Some(witness) = detector.witness(ask.key.segment, ask.key.ip) {
                    self.asker.ask_once(witness, now);
                } else {
                    self.asker.believe(&ask, now);
                    detector.answered(&ask, now, &[], findings);
                }
            }
        }
    }

    /// Looks which addresses matter.
    fn look(&mut self, detector: &mut Detector, now: Timestamp) {
        self.asker.lead(*self.leads.borrow());
        // Of ten thousand addresses each look would keep frames waiting.
        if self.seen == Some(detector.cares()) {
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
            for segment in self.places.segments_of(ip) {
                let ip = ip.into();
                detector.expect(BindingKey { segment, ip }, now);
            }
        }
        // What is elsewhere would only be turned away each time.
        let places = &self.places;
        let keys = detector.cared_for();
        let here = keys.filter(|key| places.find(key) != Err(NotSent::OffLink));
        let wanted = here.map(|key| Wanted {
            key,
            of_cluster: detector.is_expected(&key),
        });
        self.asker.care_for(wanted, now);
        self.seen = Some(detector.cares());
    }

    /// When the next turn is due, if nothing is heard before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let look = self.looked.map(|looked| looked + LOOK);
        [self.asker.next_deadline(), look]
            .into_iter()
            .flatten()
            .min()
    }

    /// What there is to know.
    pub fn view(&self) -> AskingView {
        AskingView {
            state: AskingState::On,
            counts: *self.asker.counts(),
        }
    }
}
