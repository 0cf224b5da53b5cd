//! The check itself: sockets, clock and output, joined to the parts that decide.

use std::{collections::HashSet, io, time::Duration};

use anyhow::Context as _;
use lru::LruCache;
use nix::errno::Errno;
use probe_common::wire::{ArpFrame, Kind, MacAddr, Operation};
use probe_datapath::clock::{Timer, monotonic};
use probe_detect::DetectConfig;
use probe_model::{CheckRecord, CheckVerdict, Timestamp};
use probe_prober::{
    ArpProbe, ArpReceiver, ArpSocket, ReceivedFrame,
    check::{
        AddressResponses, CheckDetails, CheckEvaluator, CheckMode, CheckResult, CheckSchedule,
        EgressInterface, EgressNeighbours, HostNetwork, ResponseTable, ScheduleAction,
        ScheduleMode, TargetRange, TargetRanges, seed,
    },
};
use tokio::{
    io::unix::AsyncFd,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};

use super::{cluster_context::CheckContext, output::CheckOutput, summary::CheckSummary};
use crate::cli::{
    Exit,
    output::{is_closed, print_status},
    session::StopSignal,
};

/// Between two looks at the socket, the clock and the signals.
const FRAMES_PER_BATCH: u32 = 32;

/// How often the status line is drawn anew.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// What is known of the neighbour table is read again after this.
const NEIGHBOUR_REFRESH: Duration = Duration::from_secs(1);

/// MACs that are remembered to hold an address, so that their ARP probes are no booting host's.
const MAX_HOLDERS: usize = 65_536;

/// Times in a row that a question may find the queue full: two seconds.
const MAX_RETRIES: u32 = 400;

/// How it is asked.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Questions a second, where there are more than a handful of addresses.
    pub rate: u32,
    /// How long an answer is waited for after the last question.
    pub timeout: Duration,
    /// How long the addresses are watched; not at all, if it is left out.
    pub duration: Option<Duration>,
    /// The address of this host that is asked with, instead of none.
    pub source_ip: Option<std::net::Ipv4Addr>,
    /// Who is one machine.
    pub config: DetectConfig,
}

/// What came of it.
pub struct CheckRunResult {
    /// How the program ends, by that.
    pub exit: Exit,
    /// Who was told.
    pub output: CheckOutput,
    /// Whether somebody stopped it.
    pub interrupted: bool,
    /// What broke down, if something did.
    pub failure: Option<anyhow::Error>,
}

/// A check that is going on.
pub struct CheckRun {
    sender: ArpSocket,
    receiver: AsyncFd<ArpReceiver>,
    network: HostNetwork,
    own_macs: HashSet<MacAddr>,
    neighbours: (Timestamp, EgressNeighbours),
    holders: LruCache<MacAddr, ()>,
    ranges: TargetRanges,
    schedule: CheckSchedule,
    responses: ResponseTable,
    evaluator: CheckEvaluator,
    manner: CheckMode,
    context: CheckContext,
    source_ip: Option<std::net::Ipv4Addr>,
    output: CheckOutput,
    results: CheckSummary,
    mode: ScheduleMode,
    began: Timestamp,
    retries: u32,
    /// A prober was met, and that was said.
    deferral_reported: bool,
}

/// Why the asking ended early.
enum CheckRunEnd {
    Done,
    Interrupted,
    /// Nobody reads what is written.
    OutputClosed,
    Failed(anyhow::Error),
}

impl CheckRun {
    /// Opens what is missing. What is open works without any capability.
    pub async fn open(
        order: &CheckOptions,
        context: CheckContext,
        output: CheckOutput,
        sender: ArpSocket,
        network: HostNetwork,
        ranges: Vec<TargetRange>,
    ) -> anyhow::Result<Self> {
        let only = match network.ports() {
            [egress] => Some(egress.ifindex),
            _ => None,
        };
        let receiver = ArpReceiver::open(only)?
            .readable()
            .context("cannot wait for frames")?;
        let neighbours = network.neighbours().await?;
        let mut holders = LruCache::unbounded();
        for mac in neighbours.macs() {
            holders.put(mac, ());
        }
        let ranges = TargetRanges::new(ranges);
        let total = ranges.total();
        let now = monotonic();
        let (mode, manner) = match order.duration {
            Some(duration) => {
                let until = now + duration;
                (ScheduleMode::Watch { until }, CheckMode::Continuous)
            }
            None if total <= CheckSchedule::FEW_TARGETS => (ScheduleMode::Burst, CheckMode::Once),
            None => (ScheduleMode::Sweep, CheckMode::Once),
        };
        Ok(Self {
            own_macs: network.own_macs(),
            neighbours: (now, neighbours),
            holders,
            schedule: CheckSchedule::new(mode, total, order.rate, order.timeout, seed(), now),
            responses: ResponseTable::new(total, order.timeout),
            evaluator: CheckEvaluator::new(order.config.clone(), manner),
            manner,
            context,
            source_ip: order.source_ip,
            output,
            results: CheckSummary::default(),
            mode,
            began: now,
            retries: 0,
            deferral_reported: false,
            sender,
            receiver,
            network,
            ranges,
        })
    }

    /// Asks, listens and reports, until everything is known or somebody stops it.
    pub async fn run(mut self, stop: &mut StopSignal) -> anyhow::Result<CheckRunResult> {
        let end = match self.send_probes(stop).await {
            Ok(end) => end,
            Err(error) => CheckRunEnd::Failed(error),
        };
        match &end {
            CheckRunEnd::Done => {}
            CheckRunEnd::Interrupted => self.results.interrupted = true,
            CheckRunEnd::OutputClosed => return Ok(self.outcome(Exit::Failed, None)),
            CheckRunEnd::Failed(_) => self.results.failed = true,
        }
        match self.report_unsettled().await {
            Err(error) if is_closed(&error) => return Ok(self.outcome(Exit::Failed, None)),
            result => result.context("cannot write to standard output")?,
        }
        self.output.clear_status();
        self.summarise();
        let exit = self.results.exit();
        let failure = match end {
            CheckRunEnd::Failed(error) => Some(error),
            CheckRunEnd::Done | CheckRunEnd::Interrupted | CheckRunEnd::OutputClosed => None,
        };
        Ok(self.outcome(exit, failure))
    }

    fn outcome(self, exit: Exit, failure: Option<anyhow::Error>) -> CheckRunResult {
        CheckRunResult {
            exit,
            interrupted: self.results.interrupted,
            output: self.output,
            failure,
        }
    }

    async fn send_probes(&mut self, stop: &mut StopSignal) -> anyhow::Result<CheckRunEnd> {
        let mut timer = Timer::new().context("cannot make a timer")?;
        let mut status = interval(STATUS_INTERVAL);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turns = 0;
        loop {
            self.receive_frames()?;
            let now = monotonic();
            match self.report_settled(now).await {
                Err(error) if is_closed(&error) => return Ok(CheckRunEnd::OutputClosed),
                result => result.context("cannot write to standard output")?,
            }
            // Before a question and before the end: silence means nothing where nothing can be heard.
            if let Some(fault) = self.network.changed_interface() {
                return Err(fault.into());
            }
            let until = match self.schedule.next(now) {
                ScheduleAction::Done => return Ok(CheckRunEnd::Done),
                ScheduleAction::Probe(number) => {
                    self.send(number, now)?;
                    turns += 1;
                    if turns % FRAMES_PER_BATCH != 0 {
                        continue;
                    }
                    // However much there is to be sent, a signal is heard.
                    tokio::select! {
                        biased;
                        () = stop.received() => return Ok(CheckRunEnd::Interrupted),
                        () = yield_now() => continue,
                    }
                }
                ScheduleAction::Wait(until) => until,
            };
            self.report_deferral();
            let settles = match self.mode {
                ScheduleMode::Sweep => self.responses.next_settled_at(),
                ScheduleMode::Burst | ScheduleMode::Watch { .. } => None,
            };
            timer.arm(Some(settles.map_or(until, |at| at.min(until))))?;
            tokio::select! {
                () = stop.received() => return Ok(CheckRunEnd::Interrupted),
                elapsed = timer.elapsed() => elapsed.context("cannot wait for a timer")?,
                ready = self.receiver.readable_mut() => {
                    ready.context("cannot wait for frames")?.clear_ready();
                }
                _ = status.tick(), if self.shows_progress() => {
                    let text = self.progress(monotonic());
                    self.output.show_status(&text);
                }
            }
        }
    }

    /// Takes in what has come; a flood does not keep it from asking.
    fn receive_frames(&mut self) -> anyhow::Result<()> {
        for _ in 0..FRAMES_PER_BATCH {
            match self.receiver.get_ref().receive() {
                Ok(Some(heard)) => self.record_frame(&heard, monotonic()),
                Ok(None) => return Ok(()),
                Err(error) => {
                    // The interface is known by name; the socket only knows that it is down.
                    let fault = self.network.changed_interface().map(anyhow::Error::new);
                    return Err(fault.unwrap_or_else(|| {
                        anyhow::Error::new(error).context("cannot hear the answers")
                    }));
                }
            }
        }
        Ok(())
    }

    fn record_frame(&mut self, heard: &ReceivedFrame, now: Timestamp) {
        let frame = &heard.frame;
        let mut ports = self.network.ports().iter().enumerate();
        let is_here = |egress: &EgressInterface| {
            egress.ifindex == heard.ifindex && egress.vlan == frame.vlan()
        };
        let Some((place, egress)) = ports.find(|(_, egress)| is_here(egress)) else {
            return;
        };
        self.output.record_frame(heard, now);
        let number = self.ranges.number(frame.subject().into(), place);
        match frame.kind() {
            Kind::Claim if heard.is_outgoing && self.is_own_probe(frame) => {}
            Kind::Claim => {
                self.holders.put(frame.sha, ());
                if self.holders.len() > MAX_HOLDERS {
                    self.holders.pop_lru();
                }
                if let Some(number) = number
                    && self.responses.record_frame(number, frame, egress.mac, now)
                {
                    self.schedule.answered(number);
                }
            }
            // A switch that tracks its devices asks each by itself; a booting host asks everybody.
            Kind::Probe if frame.is_unicast() => {}
            Kind::Probe => {
                let is_known =
                    self.own_macs.contains(&frame.sha) || self.holders.contains(&frame.sha);
                if let (Some(number), false) = (number, heard.is_outgoing || is_known) {
                    self.schedule.record_foreign_probe(number, now);
                }
            }
            // Nobody can own an address by such a frame.
            Kind::Bogus => {}
        }
    }

    /// Whether a frame that this host sent is a question of this program's.
    fn is_own_probe(&self, frame: &ArpFrame) -> bool {
        frame.operation() == Operation::Request
            && self
                .source_ip
                .is_some_and(|from| from.octets() == frame.spa)
    }

    fn send(&mut self, number: u32, now: Timestamp) -> anyhow::Result<()> {
        let Some((target, place)) = self.ranges.address(number) else {
            return Ok(());
        };
        let Some(egress) = self.network.ports().get(place) else {
            return Ok(());
        };
        let question = ArpProbe {
            target,
            asker: egress.mac,
            from: self.source_ip,
            to: None,
            vlan: egress.vlan,
        };
        match self.sender.send(egress.ifindex, &question) {
            Ok(()) => {
                self.retries = 0;
                let question = self.schedule.asked(number);
                self.responses.asked(number, question, now);
                Ok(())
            }
            Err(error) if is_full(&error) && self.retries < MAX_RETRIES => {
                self.retries += 1;
                self.schedule.not_sent(number, now);
                Ok(())
            }
            Err(error) => {
                self.schedule.not_sent(number, now);
                Err(error).with_context(|| format!("cannot ask through {}", egress.name))
            }
        }
    }

    /// Silence must not look broken.
    fn report_deferral(&mut self) {
        if self.schedule.waiting() > 0 && !self.deferral_reported {
            self.deferral_reported = true;
            self.output.clear_status();
            print_status(
                "waiting 10 s: somebody asks whether an address of these is free, as a booting machine does, and \
                 would take the same question for a rival's",
            );
        }
    }

    /// While sweeping: reports the addresses about which nothing more is expected.
    async fn report_settled(&mut self, now: Timestamp) -> io::Result<()> {
        if self.mode != ScheduleMode::Sweep {
            self.responses.expire_probes(now);
            return Ok(());
        }
        let mut reported = false;
        while let Some((number, sighting)) = self.responses.pop_settled(now) {
            self.refresh_neighbours(now).await;
            self.report(number, Some(&sighting), now)?;
            reported = true;
        }
        if reported {
            self.output.flush()
        } else {
            Ok(())
        }
    }

    /// Reports all that was not.
    async fn report_unsettled(&mut self) -> io::Result<()> {
        let now = monotonic();
        self.refresh_neighbours(now).await;
        for number in 0..self.ranges.total() {
            if !self.responses.is_reported(number) {
                let sighting = self.responses.take(number);
                self.report(number, sighting.as_ref(), now)?;
            }
        }
        self.output.flush()
    }

    async fn refresh_neighbours(&mut self, now: Timestamp) {
        if now.since(self.neighbours.0) < NEIGHBOUR_REFRESH {
            return;
        }
        match self.network.neighbours().await {
            Ok(neighbours) => self.neighbours = (now, neighbours),
            // A table that changes while it is read; the one before is good enough.
            Err(error) => tracing::debug!(%error, "neighbours not read"),
        }
    }

    fn report(
        &mut self,
        number: u32,
        sighting: Option<&AddressResponses>,
        now: Timestamp,
    ) -> io::Result<()> {
        let Some((ip, place)) = self.ranges.address(number) else {
            return Ok(());
        };
        let Some(egress) = self.network.ports().get(place) else {
            return Ok(());
        };
        let none = AddressResponses::default();
        let sighting = sighting.unwrap_or(&none);
        let held = egress.held.get(&ip).copied();
        let held = held.or_else(|| self.context.locally_announced(ip));
        let asked = self.schedule.asked(number);
        let mut judgement = self.evaluator.evaluate(sighting, held, &self.own_macs);
        if judgement.verdict != CheckVerdict::Conflict
            && (asked == 0 || self.is_stopped() && judgement.verdict == CheckVerdict::NoReply)
        {
            judgement.verdict = CheckVerdict::NotProbed;
            if asked > 0 && self.has_many_targets() {
                self.results.unfinished += 1;
                return Ok(());
            }
        }
        let checked = CheckDetails {
            ip,
            interface: &egress.name,
            vlan: egress.vlan,
            asked,
            probed: asked == 0 && self.schedule.is_deferred(number),
            more: sighting.more,
            neighbour: self.neighbours.1.get(place, ip).filter(|_| held.is_none()),
        };
        let mut record = probe_prober::check::check_record(
            checked,
            &judgement,
            now,
            probe_datapath::clock::MONOTONIC,
        );
        self.context.annotate(&mut record);
        record.expected = self.expected(&record, &judgement);
        self.results.count(&record);
        if self.output.is_human_output() && self.is_omitted(&record) {
            return Ok(());
        }
        let expected = self.context.describe(&record, self.manner);
        self.output
            .check(record, &expected, self.has_many_targets())
    }

    fn expected(&self, record: &CheckRecord, judgement: &CheckResult) -> Option<bool> {
        let met = self.context.is_met(record, judgement, self.manner)?;
        // Of what was not asked to the end, nothing is known.
        let is_known = !self.is_stopped() && judgement.verdict != CheckVerdict::NotProbed;
        is_known.then_some(met)
    }

    fn is_stopped(&self) -> bool {
        self.results.interrupted || self.results.failed
    }

    fn has_many_targets(&self) -> bool {
        self.ranges.total() > CheckSchedule::FEW_TARGETS
    }

    /// The silence of one among many is only counted, unless it was to be otherwise.
    fn is_omitted(&self, record: &CheckRecord) -> bool {
        let is_silence = matches!(
            record.verdict,
            CheckVerdict::NoReply | CheckVerdict::NotProbed
        );
        is_silence && self.has_many_targets() && record.expected != Some(false)
    }

    fn shows_progress(&self) -> bool {
        self.output.shows_status()
            && (self.has_many_targets() || matches!(self.mode, ScheduleMode::Watch { .. }))
    }

    fn progress(&self, now: Timestamp) -> String {
        let conflicts = match self.results.for_cluster(CheckVerdict::Conflict) {
            0 => String::new(),
            number => format!(", {number} in conflict"),
        };
        format!(
            "{} of {} asked, {} with one owner{conflicts}; {} s left",
            self.schedule.addresses_probed(),
            self.ranges.total(),
            self.results.for_cluster(CheckVerdict::OneOwner),
            self.schedule.remaining(now).as_secs()
        )
    }

    fn summarise(&self) {
        let total = self.ranges.total();
        if self.output.is_human_output() && (total > 1 || self.is_stopped()) {
            let took = monotonic().since(self.began);
            print_status(&self.results.summary(total, self.schedule.sent(), took));
        }
        if self.responses.late() > 0 {
            print_status(&format!(
                "{} answers came after their address was reported: raise --timeout, or check those addresses alone",
                self.responses.late()
            ));
        }
    }
}

/// Whether the interface's queue is full: a matter of a moment.
fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOBUFS | Errno::EAGAIN))
}
