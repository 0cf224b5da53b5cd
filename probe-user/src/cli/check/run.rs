//! Runs a check: connects sockets, clock and output with the pure parts.

use std::{collections::HashSet, io, net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use lru::LruCache;
use nix::errno::Errno;
use probe_common::wire::{ArpFrame, FrameKind, MacAddr, Operation};
use probe_datapath::clock::{Timer, monotonic};
use probe_detect::DetectConfig;
use probe_model::{CheckRecord, CheckStatus, Timestamp};
use probe_prober::{
    ArpProbe, ArpReceiver, ArpSocket, ReceivedFrame,
    check::{
        AddressResponses, CheckDetails, CheckEvaluator, CheckMode, CheckResult, CheckSchedule,
        EgressInterface, EgressNeighbours, HostNetwork, LocalOwnership, ProbeForm, ResponseTable,
        ScheduleAction, ScheduleMode, SentProbe, SharedReplies, TargetRange, TargetRanges, seed,
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

/// Frames sent or received between two polls of the socket, the clock and the signals.
const FRAMES_PER_BATCH: u32 = 32;

/// The interval at which the status line is redrawn.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// The age at which the neighbour table is read again.
const NEIGHBOUR_REFRESH: Duration = Duration::from_secs(1);

/// Maximum number of remembered MACs with an address: their ARP probes are not those of a booting host.
const MAX_HOLDERS: usize = 65_536;

/// Maximum number of consecutive retries while the queue is full: two seconds.
const MAX_RETRIES: u32 = 400;

/// Except in a sweep, every third probe for an address is an ordinary ARP request: `proxy_arp` and some stacks reply to
/// those only.
const REQUEST_EVERY: u32 = 3;

/// Options of a check.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Probes a second, for more than [`CheckSchedule::FEW_TARGETS`] addresses.
    pub rate: u32,
    /// Time to wait for replies after the last probe.
    pub timeout: Duration,
    /// How long to watch the addresses; `None` checks once.
    pub duration: Option<Duration>,
    /// The address of this host to send ARP requests with, instead of ARP probes.
    pub source_ip: Option<Ipv4Addr>,
    /// The rules on which MACs are one host.
    pub config: DetectConfig,
}

/// The result of a check.
pub struct CheckRunResult {
    /// The exit status.
    pub exit: Exit,
    /// The output with its records.
    pub output: CheckOutput,
    /// Whether a signal stopped it.
    pub interrupted: bool,
    /// The error that ended it.
    pub failure: Option<anyhow::Error>,
}

/// A running check.
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
    check_mode: CheckMode,
    shared: SharedReplies,
    context: CheckContext,
    source_ip: Option<Ipv4Addr>,
    output: CheckOutput,
    results: CheckSummary,
    mode: ScheduleMode,
    start: Timestamp,
    retries: u32,
    /// Addresses that no ordinary ARP request was sent for.
    requests_missing: u32,
    /// The wait for a booting host was printed.
    deferral_reported: bool,
}

/// How a check ended.
enum CheckRunEnd {
    Done,
    Interrupted,
    /// The reader of the output has disconnected.
    OutputClosed,
    Failed(anyhow::Error),
}

impl CheckRun {
    /// Opens the receiving socket and reads the neighbour table. Nothing needs a capability afterwards.
    pub async fn open(
        order: &CheckOptions,
        context: CheckContext,
        output: CheckOutput,
        sender: ArpSocket,
        network: HostNetwork,
        ranges: Vec<TargetRange>,
    ) -> anyhow::Result<Self> {
        let only = match network.egress_interfaces() {
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
        let (mode, check_mode) = match order.duration {
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
            evaluator: CheckEvaluator::new(order.config.clone(), check_mode),
            check_mode,
            shared: SharedReplies::default(),
            context,
            source_ip: order.source_ip,
            output,
            results: CheckSummary::default(),
            mode,
            start: now,
            retries: 0,
            requests_missing: 0,
            deferral_reported: false,
            sender,
            receiver,
            network,
            ranges,
        })
    }

    /// Sends, receives and reports until the check is complete or a signal stops it.
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
        let mut timer = Timer::new().context("cannot create a timer")?;
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
            // Checked before each probe and before the end: no reply proves nothing while the interface receives
            // nothing.
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
                    // Signals are handled between batches of frames.
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

    /// Records the received frames; a flood does not prevent probes.
    fn receive_frames(&mut self) -> anyhow::Result<()> {
        for _ in 0..FRAMES_PER_BATCH {
            match self.receiver.get_ref().receive() {
                Ok(Some(received)) => self.record_frame(&received, monotonic()),
                Ok(None) => return Ok(()),
                Err(error) => {
                    // The interface is known by name; the socket only knows that it is down.
                    let fault = self.network.changed_interface().map(anyhow::Error::new);
                    return Err(fault.unwrap_or_else(|| {
                        anyhow::Error::new(error).context("cannot receive replies")
                    }));
                }
            }
        }
        Ok(())
    }

    fn record_frame(&mut self, received: &ReceivedFrame, now: Timestamp) {
        let frame = &received.frame;
        let mut ports = self.network.egress_interfaces().iter().enumerate();
        let is_here = |egress: &EgressInterface| {
            egress.ifindex == received.ifindex && egress.vlan == frame.vlan()
        };
        let Some((place, egress)) = ports.find(|(_, egress)| is_here(egress)) else {
            return;
        };
        self.output.record_frame(received, now);
        let number = self.ranges.number(frame.subject().into(), place);
        match frame.kind() {
            FrameKind::Claim if received.is_outgoing && self.is_own_request(frame, egress) => {}
            FrameKind::Claim => {
                self.holders.put(frame.sha, ());
                if self.holders.len() > MAX_HOLDERS {
                    self.holders.pop_lru();
                }
                if let Some(number) = number
                    && self.responses.record_frame(number, frame, egress.mac, now)
                {
                    self.schedule.record_reply(number);
                    self.shared.record(frame.sha, frame.subject().into());
                }
            }
            // A switch that tracks its devices probes by unicast; a booting host by broadcast.
            FrameKind::Probe if frame.is_unicast() => {}
            FrameKind::Probe => {
                let is_known =
                    self.own_macs.contains(&frame.sha) || self.holders.contains(&frame.sha);
                if let (Some(number), false) = (number, received.is_outgoing || is_known) {
                    self.schedule.record_foreign_probe(number, frame.sha, now);
                }
            }
            // A probe claims no address.
            FrameKind::Bogus => {}
        }
    }

    /// Whether a frame that this host sent is a request as this program sends them.
    fn is_own_request(&self, frame: &ArpFrame, egress: &EgressInterface) -> bool {
        let source = self
            .source_ip
            .or_else(|| egress.source_for(frame.tpa.into()));
        frame.operation() == Operation::Request
            && source.is_some_and(|source| source.octets() == frame.spa)
    }

    /// The address to send the next probe for a target with: `None` for an ARP probe.
    fn source(&self, number: u32, target: Ipv4Addr, egress: &EgressInterface) -> Option<Ipv4Addr> {
        let is_request = self.mode != ScheduleMode::Sweep
            && self
                .schedule
                .probes_sent(number)
                .is_multiple_of(REQUEST_EVERY);
        let own = || egress.source_for(target).filter(|_| is_request);
        self.source_ip.or_else(own)
    }

    fn send(&mut self, number: u32, now: Timestamp) -> anyhow::Result<()> {
        let Some((target, place)) = self.ranges.address(number) else {
            return Ok(());
        };
        let Some(egress) = self.network.egress_interfaces().get(place) else {
            return Ok(());
        };
        let source = self.source(number, target, egress);
        let probe = ArpProbe {
            target,
            sender_mac: egress.mac,
            sender_ip: source,
            destination: None,
            vlan: egress.vlan,
        };
        match self.sender.send(egress.ifindex, &probe) {
            Ok(()) => {
                self.retries = 0;
                let form = match source {
                    Some(_) => ProbeForm::Request,
                    None => ProbeForm::ArpProbe,
                };
                let attempt = self.schedule.probes_sent(number);
                let sent = SentProbe {
                    attempt,
                    form,
                    at: now,
                };
                self.responses.record_probe(number, sent);
                Ok(())
            }
            Err(error) if is_full(&error) && self.retries < MAX_RETRIES => {
                self.retries += 1;
                self.schedule.not_sent(number, now);
                Ok(())
            }
            Err(error) => {
                self.schedule.not_sent(number, now);
                Err(error).with_context(|| format!("cannot send through {}", egress.name))
            }
        }
    }

    /// Prints why probing is deferred.
    fn report_deferral(&mut self) {
        if self.schedule.waiting() > 0 && !self.deferral_reported {
            self.deferral_reported = true;
            self.output.clear_status();
            print_status(
                "waiting: another host sends ARP probes for one of these addresses, as a booting host does, and would \
                 take a probe from this host for a rival's; after some 20 s it counts as no booting host",
            );
        }
    }

    /// In a sweep: reports the addresses for which no more replies are expected.
    async fn report_settled(&mut self, now: Timestamp) -> io::Result<()> {
        if self.mode != ScheduleMode::Sweep {
            self.responses.expire_probes(now);
            return Ok(());
        }
        let mut reported = false;
        while let Some((number, responses)) = self.responses.pop_settled(now) {
            self.refresh_neighbours(now).await;
            self.report(number, Some(&responses), now)?;
            reported = true;
        }
        if reported {
            self.output.flush()
        } else {
            Ok(())
        }
    }

    /// Reports the addresses that are not yet reported.
    async fn report_unsettled(&mut self) -> io::Result<()> {
        let now = monotonic();
        self.refresh_neighbours(now).await;
        for number in 0..self.ranges.total() {
            if !self.responses.is_reported(number) {
                let responses = self.responses.take(number);
                self.report(number, responses.as_ref(), now)?;
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
            // The table changed while it was read; the previous one is used.
            Err(error) => tracing::debug!(%error, "neighbours not read"),
        }
    }

    fn report(
        &mut self,
        number: u32,
        responses: Option<&AddressResponses>,
        now: Timestamp,
    ) -> io::Result<()> {
        let Some((ip, place)) = self.ranges.address(number) else {
            return Ok(());
        };
        let Some(egress) = self.network.egress_interfaces().get(place) else {
            return Ok(());
        };
        let none = AddressResponses::default();
        let responses = responses.unwrap_or(&none);
        let held = egress
            .local_addresses
            .get(&ip)
            .copied()
            .map(LocalOwnership::Configured);
        let announced = || {
            self.context
                .locally_announced(ip)
                .map(LocalOwnership::Announced)
        };
        let held = held.or_else(announced);
        let probes_sent = self.schedule.probes_sent(number);
        let mut result = self
            .evaluator
            .evaluate(responses, held, &self.own_macs, &self.shared);
        if result.status != CheckStatus::Conflict
            && (probes_sent == 0 || self.is_stopped() && result.status == CheckStatus::NoReply)
        {
            result.status = CheckStatus::NotProbed;
            if probes_sent > 0 && self.has_many_targets() {
                self.results.unfinished += 1;
                return Ok(());
            }
        }
        let checked = CheckDetails {
            ip,
            interface: &egress.name,
            vlan: egress.vlan,
            probes_sent,
            requests_sent: self.requests_sent(probes_sent, ip, egress),
            probed_by: self.schedule.foreign_prober(number),
            frames_dropped: responses.more,
            neighbour: self.neighbours.1.get(place, ip).filter(|_| held.is_none()),
        };
        let mut record = probe_prober::check::check_record(
            checked,
            &result,
            now,
            probe_datapath::clock::MONOTONIC,
        );
        self.context.annotate(&mut record);
        record.expected = self.expected(&record, &result);
        self.results.count(&record);
        self.requests_missing += u32::from(record.requests_sent == 0 && probes_sent > 0);
        if self.output.is_human_output() && self.is_omitted(&record) {
            return Ok(());
        }
        let expected = self.context.describe(&record, self.check_mode);
        self.output
            .check(record, &expected, self.has_many_targets())
    }

    /// The number of probes for an address that were ordinary ARP requests.
    fn requests_sent(&self, probes: u32, target: Ipv4Addr, egress: &EgressInterface) -> u32 {
        if self.source_ip.is_some() {
            probes
        } else if self.mode == ScheduleMode::Sweep || egress.source_for(target).is_none() {
            0
        } else {
            probes / REQUEST_EVERY
        }
    }

    fn expected(&self, record: &CheckRecord, result: &CheckResult) -> Option<bool> {
        let met = self.context.is_met(record, result, self.check_mode)?;
        // There is no result for an address that was not probed completely.
        let is_known = !self.is_stopped() && result.status != CheckStatus::NotProbed;
        is_known.then_some(met)
    }

    fn is_stopped(&self) -> bool {
        self.results.interrupted || self.results.failed
    }

    fn has_many_targets(&self) -> bool {
        self.ranges.total() > CheckSchedule::FEW_TARGETS
    }

    /// One of many addresses without a reply is only counted, unless a reply was expected.
    fn is_omitted(&self, record: &CheckRecord) -> bool {
        let is_silence = matches!(record.status, CheckStatus::NoReply | CheckStatus::NotProbed);
        is_silence && self.has_many_targets() && record.expected != Some(false)
    }

    fn shows_progress(&self) -> bool {
        self.output.shows_status()
            && (self.has_many_targets() || matches!(self.mode, ScheduleMode::Watch { .. }))
    }

    fn progress(&self, now: Timestamp) -> String {
        let conflicts = match self.results.count_of(CheckStatus::Conflict) {
            0 => String::new(),
            number => format!(", {number} in conflict"),
        };
        format!(
            "{} of {} probed, {} with one owner{conflicts}; {} s left",
            self.schedule.addresses_probed(),
            self.ranges.total(),
            self.results.count_of(CheckStatus::OneOwner),
            self.schedule.remaining(now).as_secs()
        )
    }

    /// Prints which kind of probe was not sent: hosts that reply to no other kind are missing from the result.
    fn report_missing_requests(&self) {
        let Some(source) = self.missing_request_source() else {
            return;
        };
        print_status(&format!(
            "sent ARP probes only: hosts that reply to ARP requests alone (proxy_arp, some stacks) are not shown; to \
             send ARP requests: --source-ip {source}"
        ));
    }

    /// The address to send ARP requests from, or a placeholder, if an address was probed without ARP requests.
    fn missing_request_source(&self) -> Option<String> {
        if self.source_ip.is_some() || !self.output.is_printed() || self.requests_missing == 0 {
            return None;
        }
        let sources = self
            .network
            .egress_interfaces()
            .iter()
            .flat_map(|egress| &egress.sources);
        let source = sources.map(|source| source.addr().to_string()).next();
        Some(source.unwrap_or_else(|| "IP".to_owned()))
    }

    fn summarise(&self) {
        self.report_missing_requests();
        let total = self.ranges.total();
        if self.output.is_human_output() && (total > 1 || self.is_stopped()) {
            let took = monotonic().since(self.start);
            print_status(&self.results.summary(total, self.schedule.sent(), took));
        }
        if self.responses.late() > 0 {
            print_status(&format!(
                "{} replies came after their address was reported: raise --timeout, or check those addresses alone",
                self.responses.late()
            ));
        }
    }
}

/// Whether the queue of the interface is full, which is temporary.
fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOBUFS | Errno::EAGAIN))
}
