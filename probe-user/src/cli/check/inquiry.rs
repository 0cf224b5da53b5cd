//! The check itself: sockets, clock and output, joined to the parts that decide.

use std::{collections::HashSet, io, time::Duration};

use anyhow::Context as _;
use lru::LruCache;
use nix::errno::Errno;
use probe_common::wire::{ArpFrame, Kind, MacAddr, Operation};
use probe_datapath::{
    clock::{Timer, monotonic},
    poll,
};
use probe_detect::DetectConfig;
use probe_model::{CheckRecord, Timestamp, Verdict};
use probe_prober::{
    ArpReceiver, ArpSocket, Heard, Question,
    check::{
        Checked, Course, Judge, Judgement, Ledger, Lot, Lots, Manner, Neighbours, Next, Port,
        Schedule, Sighting, Surroundings, seed,
    },
};
use tokio::{
    io::unix::AsyncFd,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};

use super::{audience::Audience, results::Results, terms::Terms};
use crate::cli::{
    Exit,
    output::{is_closed, say},
    session::StopSignal,
};

/// Between two looks at the socket, the clock and the signals.
const AT_ONCE: u32 = 32;

/// How often the status line is drawn anew.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// What is known of the neighbour table is read again after this.
const NEIGHBOURS_FRESH: Duration = Duration::from_secs(1);

/// MACs that are remembered to hold an address, so that their ARP probes are no booting host's.
const HOLDERS: usize = 65_536;

/// Times in a row that a question may find the queue full: two seconds.
const MOST_RETRIES: u32 = 400;

/// How it is asked.
#[derive(Clone, Debug)]
pub struct Order {
    /// Questions a second, where there are more than a handful of addresses.
    pub rate: u32,
    /// How long an answer is waited for after the last question.
    pub wait: Duration,
    /// How long the addresses are watched; not at all, if it is left out.
    pub duration: Option<Duration>,
    /// The address of this host that is asked with, instead of none.
    pub from: Option<std::net::Ipv4Addr>,
    /// Who is one machine.
    pub config: DetectConfig,
}

/// What came of it.
pub struct Outcome {
    /// How the program ends, by that.
    pub exit: Exit,
    /// Who was told.
    pub audience: Audience,
    /// Whether somebody stopped it.
    pub interrupted: bool,
    /// What broke down, if something did.
    pub broken: Option<anyhow::Error>,
}

/// A check that is going on.
pub struct Inquiry {
    sender: ArpSocket,
    receiver: AsyncFd<ArpReceiver>,
    surroundings: Surroundings,
    own_macs: HashSet<MacAddr>,
    neighbours: (Timestamp, Neighbours),
    holders: LruCache<MacAddr, ()>,
    lots: Lots,
    schedule: Schedule,
    ledger: Ledger,
    judge: Judge,
    manner: Manner,
    terms: Terms,
    from: Option<std::net::Ipv4Addr>,
    audience: Audience,
    results: Results,
    course: Course,
    began: Timestamp,
    retries: u32,
    /// A prober was met, and that was said.
    said_to_wait: bool,
}

/// Why the asking ended early.
enum End {
    Done,
    Interrupted,
    /// Nobody reads what is written.
    Unread,
    Broken(anyhow::Error),
}

impl Inquiry {
    /// Opens what is missing. What is open works without any capability.
    pub async fn open(
        order: &Order,
        terms: Terms,
        audience: Audience,
        sender: ArpSocket,
        surroundings: Surroundings,
        lots: Vec<Lot>,
    ) -> anyhow::Result<Self> {
        let only = match surroundings.ports() {
            [port] => Some(port.ifindex),
            _ => None,
        };
        let receiver =
            poll::readable(ArpReceiver::open(only)?).context("cannot wait for frames")?;
        let neighbours = surroundings.neighbours().await?;
        let mut holders = LruCache::unbounded();
        for mac in neighbours.macs() {
            holders.put(mac, ());
        }
        let lots = Lots::new(lots);
        let total = lots.total();
        let now = monotonic();
        let (course, manner) = match order.duration {
            Some(duration) => {
                let until = now + duration;
                (Course::Watch { until }, Manner::Watched)
            }
            None if total <= Schedule::HANDFUL => (Course::Burst, Manner::Once),
            None => (Course::Sweep, Manner::Once),
        };
        Ok(Self {
            own_macs: surroundings.own_macs(),
            neighbours: (now, neighbours),
            holders,
            schedule: Schedule::new(course, total, order.rate, order.wait, seed(), now),
            ledger: Ledger::new(total, order.wait),
            judge: Judge::new(order.config.clone(), manner),
            manner,
            terms,
            from: order.from,
            audience,
            results: Results::default(),
            course,
            began: now,
            retries: 0,
            said_to_wait: false,
            sender,
            receiver,
            surroundings,
            lots,
        })
    }

    /// Asks, listens and reports, until everything is known or somebody stops it.
    pub async fn run(mut self, stop: &mut StopSignal) -> anyhow::Result<Outcome> {
        let end = match self.ask(stop).await {
            Ok(end) => end,
            Err(error) => End::Broken(error),
        };
        match &end {
            End::Done => {}
            End::Interrupted => self.results.interrupted = true,
            End::Unread => return Ok(self.outcome(Exit::Failed, None)),
            End::Broken(_) => self.results.failed = true,
        }
        match self.report_the_rest().await {
            Err(error) if is_closed(&error) => return Ok(self.outcome(Exit::Failed, None)),
            result => result.context("cannot write to standard output")?,
        }
        self.audience.clear_status();
        self.summarise();
        let exit = self.results.exit();
        let broken = match end {
            End::Broken(error) => Some(error),
            End::Done | End::Interrupted | End::Unread => None,
        };
        Ok(self.outcome(exit, broken))
    }

    fn outcome(self, exit: Exit, broken: Option<anyhow::Error>) -> Outcome {
        Outcome {
            exit,
            interrupted: self.results.interrupted,
            audience: self.audience,
            broken,
        }
    }

    async fn ask(&mut self, stop: &mut StopSignal) -> anyhow::Result<End> {
        let mut timer = Timer::new().context("cannot make a timer")?;
        let mut status = interval(STATUS_INTERVAL);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turns = 0;
        loop {
            self.listen()?;
            let now = monotonic();
            match self.report_settled(now).await {
                Err(error) if is_closed(&error) => return Ok(End::Unread),
                result => result.context("cannot write to standard output")?,
            }
            // Before a question and before the end: silence means nothing where nothing can be heard.
            if let Some(fault) = self.surroundings.fault() {
                return Err(fault.into());
            }
            let until = match self.schedule.next(now) {
                Next::Done => return Ok(End::Done),
                Next::Ask(number) => {
                    self.send(number, now)?;
                    turns += 1;
                    if turns % AT_ONCE != 0 {
                        continue;
                    }
                    // However much there is to be sent, a signal is heard.
                    tokio::select! {
                        biased;
                        () = stop.received() => return Ok(End::Interrupted),
                        () = yield_now() => continue,
                    }
                }
                Next::Wait(until) => until,
            };
            self.say_why_it_waits();
            let settles = match self.course {
                Course::Sweep => self.ledger.settles_at(),
                Course::Burst | Course::Watch { .. } => None,
            };
            timer.arm(Some(settles.map_or(until, |at| at.min(until))))?;
            tokio::select! {
                () = stop.received() => return Ok(End::Interrupted),
                elapsed = timer.elapsed() => elapsed.context("cannot wait for a timer")?,
                ready = self.receiver.readable_mut() => {
                    ready.context("cannot wait for frames")?.clear_ready();
                }
                _ = status.tick(), if self.shows_progress() => {
                    let text = self.progress(monotonic());
                    self.audience.show_status(&text);
                }
            }
        }
    }

    /// Takes in what has come; a flood does not keep it from asking.
    fn listen(&mut self) -> anyhow::Result<()> {
        for _ in 0..AT_ONCE {
            match self.receiver.get_ref().receive() {
                Ok(Some(heard)) => self.heard(&heard, monotonic()),
                Ok(None) => return Ok(()),
                Err(error) => {
                    // The interface is known by name; the socket only knows that it is down.
                    let fault = self.surroundings.fault().map(anyhow::Error::new);
                    return Err(fault.unwrap_or_else(|| {
                        anyhow::Error::new(error).context("cannot hear the answers")
                    }));
                }
            }
        }
        Ok(())
    }

    fn heard(&mut self, heard: &Heard, now: Timestamp) {
        let frame = &heard.frame;
        let mut ports = self.surroundings.ports().iter().enumerate();
        let is_here = |port: &Port| port.ifindex == heard.ifindex && port.vlan == frame.vlan();
        let Some((place, port)) = ports.find(|(_, port)| is_here(port)) else {
            return;
        };
        self.audience.heard(heard, now);
        let number = self.lots.number(frame.subject().into(), place);
        match frame.kind() {
            Kind::Claim if heard.sent && self.is_own_question(frame) => {}
            Kind::Claim => {
                self.holders.put(frame.sha, ());
                if self.holders.len() > HOLDERS {
                    self.holders.pop_lru();
                }
                if let Some(number) = number
                    && self.ledger.heard(number, frame, port.mac, now)
                {
                    self.schedule.answered(number);
                }
            }
            // A switch that tracks its devices asks each by itself; a booting host asks everybody.
            Kind::Probe if frame.is_unicast() => {}
            Kind::Probe => {
                let is_known =
                    self.own_macs.contains(&frame.sha) || self.holders.contains(&frame.sha);
                if let (Some(number), false) = (number, heard.sent || is_known) {
                    self.schedule.disturbed(number, now);
                }
            }
            // Nobody can own an address by such a frame.
            Kind::Bogus => {}
        }
    }

    /// Whether a frame that this host sent is a question of this program's.
    fn is_own_question(&self, frame: &ArpFrame) -> bool {
        frame.operation() == Operation::Request
            && self.from.is_some_and(|from| from.octets() == frame.spa)
    }

    fn send(&mut self, number: u32, now: Timestamp) -> anyhow::Result<()> {
        let Some((target, place)) = self.lots.address(number) else {
            return Ok(());
        };
        let Some(port) = self.surroundings.ports().get(place) else {
            return Ok(());
        };
        let question = Question {
            target,
            asker: port.mac,
            from: self.from,
            to: None,
            vlan: port.vlan,
        };
        match self.sender.send(port.ifindex, &question) {
            Ok(()) => {
                self.retries = 0;
                let question = self.schedule.asked(number);
                self.ledger.asked(number, question, now);
                Ok(())
            }
            Err(error) if is_full(&error) && self.retries < MOST_RETRIES => {
                self.retries += 1;
                self.schedule.not_sent(number, now);
                Ok(())
            }
            Err(error) => {
                self.schedule.not_sent(number, now);
                Err(error).with_context(|| format!("cannot ask through {}", port.name))
            }
        }
    }

    /// Silence must not look broken.
    fn say_why_it_waits(&mut self) {
        if self.schedule.waiting() > 0 && !self.said_to_wait {
            self.said_to_wait = true;
            self.audience.clear_status();
            say(
                "waiting 10 s: somebody asks whether an address of these is free, as a booting machine does, and \
                 would take the same question for a rival's",
            );
        }
    }

    /// While sweeping: reports the addresses about which nothing more is expected.
    async fn report_settled(&mut self, now: Timestamp) -> io::Result<()> {
        if self.course != Course::Sweep {
            self.ledger.forget_questions(now);
            return Ok(());
        }
        let mut reported = false;
        while let Some((number, sighting)) = self.ledger.settled(now) {
            self.refresh_neighbours(now).await;
            self.report(number, Some(&sighting), now)?;
            reported = true;
        }
        if reported {
            self.audience.flush()
        } else {
            Ok(())
        }
    }

    /// Reports all that was not.
    async fn report_the_rest(&mut self) -> io::Result<()> {
        let now = monotonic();
        self.refresh_neighbours(now).await;
        for number in 0..self.lots.total() {
            if !self.ledger.is_reported(number) {
                let sighting = self.ledger.take(number);
                self.report(number, sighting.as_ref(), now)?;
            }
        }
        self.audience.flush()
    }

    async fn refresh_neighbours(&mut self, now: Timestamp) {
        if now.since(self.neighbours.0) < NEIGHBOURS_FRESH {
            return;
        }
        match self.surroundings.neighbours().await {
            Ok(neighbours) => self.neighbours = (now, neighbours),
            // A table that changes while it is read; the one before is good enough.
            Err(error) => tracing::debug!(%error, "neighbours not read"),
        }
    }

    fn report(
        &mut self,
        number: u32,
        sighting: Option<&Sighting>,
        now: Timestamp,
    ) -> io::Result<()> {
        let Some((ip, place)) = self.lots.address(number) else {
            return Ok(());
        };
        let Some(port) = self.surroundings.ports().get(place) else {
            return Ok(());
        };
        let none = Sighting::default();
        let sighting = sighting.unwrap_or(&none);
        let held = port.held.get(&ip).copied();
        let held = held.or_else(|| self.terms.announced_here(ip));
        let asked = self.schedule.asked(number);
        let mut judgement = self.judge.judge(sighting, held, &self.own_macs);
        if judgement.verdict != Verdict::Conflict
            && (asked == 0 || self.is_stopped() && judgement.verdict == Verdict::Nobody)
        {
            judgement.verdict = Verdict::NotAsked;
            if asked > 0 && self.is_many() {
                self.results.unfinished += 1;
                return Ok(());
            }
        }
        let checked = Checked {
            ip,
            interface: &port.name,
            vlan: port.vlan,
            asked,
            probed: asked == 0 && self.schedule.is_avoided(number),
            more: sighting.more,
            neighbour: self.neighbours.1.get(place, ip).filter(|_| held.is_none()),
        };
        let mut record = probe_prober::check::check_record(
            checked,
            &judgement,
            now,
            probe_datapath::clock::MONOTONIC,
        );
        self.terms.annotate(&mut record);
        record.expected = self.expected(&record, &judgement);
        self.results.count(&record);
        if self.audience.is_for_people() && self.is_of_no_interest(&record) {
            return Ok(());
        }
        let expected = self.terms.words(&record, self.manner);
        self.audience.check(record, &expected, self.is_many())
    }

    fn expected(&self, record: &CheckRecord, judgement: &Judgement) -> Option<bool> {
        let met = self.terms.is_met(record, judgement, self.manner)?;
        // Of what was not asked to the end, nothing is known.
        let is_known = !self.is_stopped() && judgement.verdict != Verdict::NotAsked;
        is_known.then_some(met)
    }

    fn is_stopped(&self) -> bool {
        self.results.interrupted || self.results.failed
    }

    fn is_many(&self) -> bool {
        self.lots.total() > Schedule::HANDFUL
    }

    /// The silence of one among many is only counted, unless it was to be otherwise.
    fn is_of_no_interest(&self, record: &CheckRecord) -> bool {
        let is_silence = matches!(record.verdict, Verdict::Nobody | Verdict::NotAsked);
        is_silence && self.is_many() && record.expected != Some(false)
    }

    fn shows_progress(&self) -> bool {
        self.audience.shows_status()
            && (self.is_many() || matches!(self.course, Course::Watch { .. }))
    }

    fn progress(&self, now: Timestamp) -> String {
        let conflicts = match self.results.of(Verdict::Conflict) {
            0 => String::new(),
            number => format!(", {number} in conflict"),
        };
        format!(
            "{} of {} asked, {} with one owner{conflicts}; {} s left",
            self.schedule.ever_asked(),
            self.lots.total(),
            self.results.of(Verdict::OneOwner),
            self.schedule.left(now).as_secs()
        )
    }

    fn summarise(&self) {
        let total = self.lots.total();
        if self.audience.is_for_people() && (total > 1 || self.is_stopped()) {
            let took = monotonic().since(self.began);
            say(&self.results.summary(total, self.schedule.sent(), took));
        }
        if self.ledger.late() > 0 {
            say(&format!(
                "{} answers came after their address was reported: raise --wait, or check those addresses alone",
                self.ledger.late()
            ));
        }
    }
}

/// Whether the interface's queue is full: a matter of a moment.
fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOBUFS | Errno::EAGAIN))
}
