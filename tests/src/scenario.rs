//! Scenarios: what happens on a network, and what must be found in it.
//!
//! A [`Scenario`] is a value. Running it creates hosts and sends frames while `probe` monitors one of the hosts.
//! [`ScenarioRun::expect_findings`] then compares the findings three times: live, from the recording of `probe`,
//! and from the capture of tcpdump.

use std::{collections::BTreeSet, fmt, path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use probe_common::wire::MacAddr;
use tempfile::TempDir;

use crate::{
    daemon::LISTEN,
    finding::Finding,
    frame::Frame,
    host::{Host, INTERFACE},
    lab::Lab,
    packet::Sender,
    process::{Finished, Process, Stream},
    socket::DaemonSocket,
    switch::Switch,
    wait::eventually,
};

/// Timeout for a finding that takes long, for example after an election or the 10 s of a move, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Timeout for a program that starts, exits or reads a file.
const PROCESS_DEADLINE: Duration = Duration::from_secs(20);

/// The address of the end marker (TEST-NET-2, RFC 5737); no scenario uses it.
const MARKER_ADDRESS: &str = "198.51.100.1";

/// The MAC addresses of the end marker; no scenario uses them.
const MARKER_MACS: [MacAddr; 2] = [
    MacAddr([2, 0, 0, 0, 0xfe, 1]),
    MacAddr([2, 0, 0, 0, 0xfe, 2]),
];

/// How the hosts of a scenario are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// By a switch: each host receives broadcasts and the frames that are addressed to it.
    Switch,
    /// By a hub: each host receives every frame.
    Hub,
}

/// A sequence of network events and the findings that are expected from them.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The name of the test.
    pub name: &'static str,
    /// How its hosts are connected.
    pub topology: Topology,
    /// Runs the scenario and ends with [`ScenarioRun::expect_findings`].
    pub run: fn(&mut ScenarioRun) -> anyhow::Result<()>,
}

/// A running scenario.
#[derive(Debug)]
pub struct ScenarioRun {
    // Declared before the switch, so that the observers end before the network.
    observers: Option<Observers>,
    probing: bool,
    checked: bool,
    switch: Switch,
}

/// The processes that monitor and record the network, and the host that sends the end marker.
#[derive(Debug)]
struct Observers {
    watch: Process,
    daemon: Option<ProbingDaemon>,
    tcpdump: Process,
    marker: Host,
    sender: Sender,
    /// Detection options, which also apply to the recording.
    options: Vec<String>,
    files: TempDir,
}

/// A daemon with active probing, whose findings are read through its socket.
#[derive(Debug)]
struct ProbingDaemon {
    process: Process,
    socket: DaemonSocket,
}

impl ProbingDaemon {
    fn start(host: &Host, attach: &str, options: &[&str]) -> anyhow::Result<Self> {
        let (socket, listen) = (DaemonSocket::new()?, LISTEN.to_string());
        let words = ["run", "--active-probing", "auto", "--listen", &listen];
        let attachment = [
            "--socket",
            socket.argument(),
            "-i",
            INTERFACE,
            "--attach",
            attach,
        ];
        let process = host.probe(&[&words[..], &attachment, options].concat())?;
        eventually(
            "a daemon with active probing to be ready",
            PROCESS_DEADLINE,
            || {
                let response = host.http_get(LISTEN, "/readyz");
                Ok(response
                    .is_ok_and(|response| response.status == 200)
                    .then_some(()))
            },
        )
        .with_context(|| process.written_output())?;
        Ok(Self { process, socket })
    }
}

/// The name of the recording of `probe`.
const RECORDING: &str = "recording.pcapng";

/// The name of the capture of tcpdump.
const CAPTURE: &str = "capture.pcap";

/// A finding that a scenario expects.
#[derive(Clone, Debug)]
pub struct ExpectedFinding {
    finding: &'static str,
    ip: String,
    vlan: String,
    severity: &'static str,
    evidence: Option<&'static str>,
    hint: Option<&'static str>,
    owners: ExpectedOwners,
    /// MAC addresses that the owners may have in addition.
    optional_macs: Vec<MacAddr>,
    optional: bool,
    captured_as: Option<Vec<Self>>,
}

#[derive(Clone, Debug)]
enum ExpectedOwners {
    /// Any owners.
    Any,
    /// One of these MAC addresses.
    OneOf(Vec<MacAddr>),
    /// Exactly these MAC addresses, in any order.
    All(Vec<MacAddr>),
    /// The current owner and the previous owner.
    CurrentAndPrevious(MacAddr, MacAddr),
}

impl Scenario {
    /// Runs the scenario with passive detection and compares the findings.
    pub fn run_passively(&self) -> anyhow::Result<()> {
        self.run(false)
    }

    /// Runs the scenario with a daemon that sends ARP probes. Captures do not contain the conclusions from its
    /// probes, so only the live findings are compared exactly; recording and capture must contain no additional
    /// conflict.
    pub fn run_with_probing(&self) -> anyhow::Result<()> {
        self.run(true)
    }

    fn run(&self, probing: bool) -> anyhow::Result<()> {
        let mut run = ScenarioRun::new(self.topology, probing)?;
        (self.run)(&mut run).with_context(|| run.written_output())?;
        ensure!(run.checked, "the scenario did not call `expect_findings`");
        Ok(())
    }
}

impl ScenarioRun {
    fn new(topology: Topology, probing: bool) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        Ok(Self {
            observers: None,
            probing,
            checked: false,
            switch: match topology {
                Topology::Switch => lab.bridge()?,
                Topology::Hub => lab.hub()?,
            },
        })
    }

    /// The switch or hub of the scenario.
    pub const fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Adds a host, with an address (and prefix length) if one is given.
    pub fn host(&self, name: &str, address: Option<&str>) -> anyhow::Result<Host> {
        let host = self.switch.host(name)?;
        if let Some(address) = address {
            host.add_address(address)?;
        }
        Ok(host)
    }

    /// Starts to monitor the interface of a host with this `--attach` mode and these detection options. Frames
    /// count from here on.
    pub fn watch(&mut self, host: &Host, attach: &str, options: &[&str]) -> anyhow::Result<()> {
        let marker = self.switch.host("marker")?;
        let daemon = self
            .probing
            .then(|| ProbingDaemon::start(host, attach, options));
        let observers = Observers::start(host, marker, attach, options, daemon.transpose()?)?;
        let observers = self.observers.insert(observers);
        // The marker's finding proves that monitoring has started.
        observers.send_marker(MARKER_MACS[0])?;
        observers
            .wait_for("new_binding", MARKER_ADDRESS, 1)
            .map(drop)
    }

    /// Waits for the first finding of this name about this address.
    pub fn wait_for(&self, finding: &str, ip: &str) -> anyhow::Result<Finding> {
        self.observers()?.wait_for(finding, ip, 1)
    }

    /// Waits until this many findings of this name about this address were reported, and returns the last.
    pub fn wait_for_more(&self, finding: &str, ip: &str, times: usize) -> anyhow::Result<Finding> {
        self.observers()?.wait_for(finding, ip, times)
    }

    /// Compares the findings with the expected ones. There must be no other findings about these addresses, and
    /// only `new_binding` about others. All hosts must still be connected.
    ///
    /// It waits until all pending conclusions are drawn: the marker address moves, which takes as long as any of
    /// them.
    pub fn expect_findings(&mut self, expected: &[ExpectedFinding]) -> anyhow::Result<()> {
        self.checked = true;
        let observers = self.observers()?;
        observers.send_marker(MARKER_MACS[1])?;
        observers.wait_for("moved", MARKER_ADDRESS, 1)?;
        // tcpdump writes a frame only after the next one, so send one more after the move:
        observers.send_marker(MARKER_MACS[1])?;
        let captured = observers.read_capture()?;

        let observers = self.observers.take().context("`watch` was not called")?;
        let (live, read_again) = observers.end()?;
        compare(expected, &live).context("live")?;
        if self.probing {
            no_more_conflicts(&live, &read_again).context("over its own recording")?;
            return no_more_conflicts(&live, &captured).context("over tcpdump's capture");
        }
        ensure_equal(&live, &read_again).context("over its own recording")?;
        let captured_expected: Vec<_> = expected
            .iter()
            .flat_map(ExpectedFinding::in_a_capture)
            .collect();
        compare(&captured_expected, &captured).context("over tcpdump's capture")
    }

    fn observers(&self) -> anyhow::Result<&Observers> {
        self.observers.as_ref().context("`watch` was not called")
    }

    /// The output of `probe watch`, for error messages.
    fn written_output(&self) -> String {
        match &self.observers {
            Some(observers) => format!(
                "output of `probe watch`:\n{}",
                observers.watch.written_output()
            ),
            None => "before `watch` was called".to_owned(),
        }
    }
}

impl Observers {
    fn start(
        host: &Host,
        marker: Host,
        attach: &str,
        options: &[&str],
        daemon: Option<ProbingDaemon>,
    ) -> anyhow::Result<Self> {
        let files = TempDir::with_prefix("probe-test-").context("cannot create a directory")?;
        let [recording, capture] = [RECORDING, CAPTURE].map(|name| files.path().join(name));
        let write = ["-o", "json", "--write", path_argument(&recording)?];
        let watch = if let Some(daemon) = &daemon {
            let socket = ["--socket", daemon.socket.argument()];
            host.bare_watch(&[&write[..], &socket].concat())?
        } else {
            let how = ["-i", INTERFACE, "--attach", attach];
            host.bare_watch(&[&how[..], &write, options].concat())?
        };
        let tcpdump = host.spawn([
            "tcpdump",
            "--immediate-mode",
            "-U",
            "-n",
            "-i",
            INTERFACE,
            "-Z",
            "root",
            "-w",
            path_argument(&capture)?,
            "arp or (vlan and arp)",
        ])?;
        tcpdump.wait_for_line(Stream::Stderr, PROCESS_DEADLINE, |line| {
            line.contains("listening on")
        })?;
        Ok(Self {
            watch,
            daemon,
            tcpdump,
            sender: marker.sender()?,
            marker,
            options: options.iter().map(ToString::to_string).collect(),
            files,
        })
    }

    /// Announces the marker address with one of its MAC addresses.
    fn send_marker(&self, mac: MacAddr) -> anyhow::Result<()> {
        let address: std::net::Ipv4Addr = MARKER_ADDRESS.parse()?;
        self.sender.send(&Frame::announcement(mac, address))
    }

    fn wait_for(&self, finding: &str, ip: &str, times: usize) -> anyhow::Result<Finding> {
        let mut seen = 0;
        self.watch.wait_for_finding(TIMEOUT, |found| {
            seen += usize::from(found.finding == finding && found.ip == ip);
            seen >= times
        })
    }

    /// Reads tcpdump's capture with `probe`, once it is complete.
    fn read_capture(&self) -> anyhow::Result<Vec<Finding>> {
        // tcpdump does not report what it has written.
        eventually("tcpdump to write the end marker", PROCESS_DEADLINE, || {
            // Until then, the file may end within a frame.
            let finished = self.read(CAPTURE)?;
            let found = findings(&finished.stdout)?;
            let complete = found
                .iter()
                .any(|found| found.ip == MARKER_ADDRESS && found.finding == "moved");
            Ok((complete && finished.status.success()).then_some(found))
        })
        .with_context(|| format!("output of tcpdump:\n{}", self.tcpdump.written_output()))
    }

    /// Stops the observers and returns the live findings and those of the recording.
    fn end(mut self) -> anyhow::Result<(Vec<Finding>, Vec<Finding>)> {
        self.watch.interrupt()?;
        self.watch.exit_status(PROCESS_DEADLINE)?;
        let live = findings(&self.watch.lines(Stream::Stdout).join("\n"))?;
        let again = findings(&self.read(RECORDING)?.success()?)?;
        if let Some(daemon) = &mut self.daemon {
            daemon.process.terminate()?;
            daemon.process.exit_status(PROCESS_DEADLINE)?;
        }
        Ok((live, again))
    }

    fn read(&self, file: &str) -> anyhow::Result<Finished> {
        let file = self.files.path().join(file);
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        let words = ["watch", "-o", "json", "--read", path_argument(&file)?];
        self.marker
            .probe(&[&words[..], &options].concat())?
            .finish(PROCESS_DEADLINE)
    }
}

/// A path as a command line argument.
fn path_argument(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

/// The findings in these lines, without their times. Takeovers that are undecided at the end are no findings.
fn findings(lines: &str) -> anyhow::Result<Vec<Finding>> {
    lines
        .lines()
        .filter(|line| !line.contains("\"undecided\":"))
        .map(|line| Finding::parse(line).map(Finding::without_time))
        .collect()
}

impl ExpectedFinding {
    fn new(
        finding: &'static str,
        ip: &str,
        severity: &'static str,
        owners: ExpectedOwners,
    ) -> Self {
        Self {
            finding,
            ip: ip.to_owned(),
            vlan: "0".to_owned(),
            severity,
            evidence: None,
            hint: None,
            owners,
            optional_macs: Vec::new(),
            optional: false,
            captured_as: None,
        }
    }

    /// The first claim for the address, by one of these MACs.
    pub fn new_binding(ip: &str, one_of: &[MacAddr]) -> Self {
        Self::new(
            "new_binding",
            ip,
            "info",
            ExpectedOwners::OneOf(one_of.to_vec()),
        )
    }

    /// The address has moved to another owner.
    pub fn moved(ip: &str, from: MacAddr, to: MacAddr) -> Self {
        Self::new(
            "moved",
            ip,
            "notice",
            ExpectedOwners::CurrentAndPrevious(to, from),
        )
    }

    /// Ownership is flapping between these MACs, but less than a conflict requires.
    pub fn contested(ip: &str, owners: &[MacAddr]) -> Self {
        Self::new(
            "contested",
            ip,
            "warning",
            ExpectedOwners::All(owners.to_vec()),
        )
    }

    /// All these MACs own the address.
    pub fn conflict(ip: &str, evidence: &'static str, owners: &[MacAddr]) -> Self {
        Self {
            evidence: Some(evidence),
            ..Self::new(
                "conflict",
                ip,
                "warning",
                ExpectedOwners::All(owners.to_vec()),
            )
        }
    }

    /// A conflict that was opened by this evidence shows no more activity.
    pub fn conflict_quiet(ip: &str, evidence: &'static str) -> Self {
        Self {
            evidence: Some(evidence),
            ..Self::new("conflict_quiet", ip, "notice", ExpectedOwners::Any)
        }
    }

    /// A conflict that was opened by this evidence has expired without a second owner.
    pub fn conflict_expired(ip: &str, evidence: &'static str) -> Self {
        Self {
            evidence: Some(evidence),
            ..Self::new("conflict_expired", ip, "notice", ExpectedOwners::Any)
        }
    }

    /// A conflict that was opened by this evidence is resolved: one owner is left.
    pub fn conflict_resolved(ip: &str, evidence: &'static str) -> Self {
        Self {
            evidence: Some(evidence),
            ..Self::new("conflict_resolved", ip, "notice", ExpectedOwners::Any)
        }
    }

    /// A probing host learns that the address is used.
    pub fn probe_denied(ip: &str, owner: MacAddr, prober: MacAddr) -> Self {
        Self::new(
            "probe_denied",
            ip,
            "info",
            ExpectedOwners::All(vec![owner, prober]),
        )
    }

    /// The address is tracked.
    #[must_use]
    pub fn critical(self) -> Self {
        Self {
            severity: "critical",
            ..self
        }
    }

    /// The owners may have these MACs in addition.
    #[must_use]
    pub fn allowing_macs(self, optional_macs: &[MacAddr]) -> Self {
        Self {
            optional_macs: optional_macs.to_vec(),
            ..self
        }
    }

    /// The finding has this hint about the likely cause.
    #[must_use]
    pub fn with_hint(self, hint: &'static str) -> Self {
        Self {
            hint: Some(hint),
            ..self
        }
    }

    /// The finding may be missing: it depends on the order of two frames.
    #[must_use]
    pub fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }

    /// The finding is in this VLAN.
    #[must_use]
    pub fn in_vlan(self, vlan: u16) -> Self {
        Self {
            vlan: vlan.to_string(),
            ..self
        }
    }

    /// In a capture, these findings are expected instead: it does not contain the addresses of the host.
    #[must_use]
    pub fn captured_as(self, instead: &[Self]) -> Self {
        Self {
            captured_as: Some(instead.to_vec()),
            ..self
        }
    }

    /// The findings that are expected from a capture, which contains neither the addresses of the host nor the
    /// tracked addresses.
    fn in_a_capture(&self) -> Vec<Self> {
        let mut captured = self
            .captured_as
            .clone()
            .unwrap_or_else(|| vec![self.clone()]);
        for expected in &mut captured {
            if expected.severity == "critical" {
                expected.severity = "warning";
            }
        }
        captured
    }

    fn address(&self) -> (&str, &str) {
        (&self.ip, &self.vlan)
    }

    fn is_matched_by(&self, found: &Finding) -> anyhow::Result<bool> {
        let mut macs = found.macs()?;
        macs.retain(|mac| !self.optional_macs.contains(mac));
        let owners_fit = match &self.owners {
            ExpectedOwners::Any => true,
            ExpectedOwners::OneOf(owners) => matches!(macs[..], [mac] if owners.contains(&mac)),
            ExpectedOwners::All(owners) => {
                let mut owners = owners.clone();
                owners.sort_unstable();
                macs == owners
            }
            ExpectedOwners::CurrentAndPrevious(now, before) => {
                let current = found.owners.first().map(|owner| owner.macs.clone());
                macs.retain(|mac| mac != now);
                current == Some(vec![now.to_string()]) && macs == [*before]
            }
        };
        Ok(owners_fit
            && found.finding == self.finding
            && found.severity == self.severity
            && found.evidence.as_str() == self.evidence
            && found.hint.as_str() == self.hint)
    }
}

impl fmt::Display for ExpectedFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            finding, severity, ..
        } = self;
        write!(f, "{finding} ({severity}")?;
        if let Some(evidence) = self.evidence {
            write!(f, ", {evidence}")?;
        }
        if let Some(hint) = self.hint {
            write!(f, ", hint {hint}")?;
        }
        write!(f, ") of {:?}", self.owners)?;
        if self.optional {
            f.write_str(", optional")?;
        }
        Ok(())
    }
}

/// The recording must give exactly the live findings.
fn ensure_equal(live: &[Finding], read: &[Finding]) -> anyhow::Result<()> {
    for number in 0..live.len().max(read.len()) {
        let (live, read) = (live.get(number), read.get(number));
        ensure!(
            live == read,
            "finding {number} differs:\n    live: {live:?}\n    read: {read:?}"
        );
    }
    Ok(())
}

/// Captures must give no conflict that was not found live.
fn no_more_conflicts(live: &[Finding], read: &[Finding]) -> anyhow::Result<()> {
    let is_conflict = |found: &&Finding| found.finding == "conflict";
    let conflicts: BTreeSet<_> = live
        .iter()
        .filter(is_conflict)
        .map(Finding::address)
        .collect();
    let mut read = read.iter().filter(is_conflict);
    match read.find(|found| !conflicts.contains(&found.address())) {
        Some(found) => bail!("an unexpected conflict: {found:?}"),
        None => Ok(()),
    }
}

/// Compares the findings about each address with the expected ones, in order. About other addresses, only
/// `new_binding` is allowed.
fn compare(expected: &[ExpectedFinding], found: &[Finding]) -> anyhow::Result<()> {
    let addresses: BTreeSet<_> = expected.iter().map(ExpectedFinding::address).collect();
    let stray = found.iter().find(|found| {
        let is_expected = addresses.contains(&found.address()) || found.ip == MARKER_ADDRESS;
        !is_expected && found.finding != "new_binding"
    });
    if let Some(stray) = stray {
        bail!("a finding about an unexpected address: {stray:?}");
    }
    for (ip, vlan) in addresses {
        let is_same = |address| address == (ip, vlan);
        let expected: Vec<_> = expected.iter().filter(|it| is_same(it.address())).collect();
        let found: Vec<_> = found.iter().filter(|it| is_same(it.address())).collect();
        if !matches_in_order(&expected, &found)? {
            let lines = |items: &mut dyn Iterator<Item = String>| {
                items.fold(String::new(), |text, item| text + "\n    " + &item)
            };
            bail!(
                "about {ip} in VLAN {vlan}, expected:{}\nfound:{}",
                lines(&mut expected.iter().map(ToString::to_string)),
                lines(&mut found.iter().map(|found| format!("{found:?}"))),
            );
        }
    }
    Ok(())
}

/// Whether these are the expected findings, in order.
fn matches_in_order(expected: &[&ExpectedFinding], found: &[&Finding]) -> anyhow::Result<bool> {
    let mut found = found.iter().peekable();
    for expected in expected {
        let is_next = match found.peek() {
            Some(next) => expected.is_matched_by(next)?,
            None => false,
        };
        if is_next {
            found.next();
        } else if !expected.optional {
            return Ok(false);
        }
    }
    Ok(found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: &str = "192.0.2.10";
    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn finding(kind: &str, severity: &str, ip: &str, macs: &[MacAddr]) -> Finding {
        let owners: Vec<_> = macs
            .iter()
            .map(|mac| serde_json::json!({"macs": [mac.to_string()]}))
            .collect();
        let line = serde_json::json!({
            "time": "2026-11-01T00:00:00Z", "finding": kind, "severity": severity,
            "interface": "eth0", "vlan": "0", "ip": ip, "owners": owners,
        });
        Finding::parse(&line.to_string()).unwrap()
    }

    fn expected_findings() -> [ExpectedFinding; 3] {
        [
            ExpectedFinding::new_binding(IP, &[A, B]),
            ExpectedFinding::contested(IP, &[A, B]).optional(),
            ExpectedFinding::moved(IP, A, B),
        ]
    }

    #[test]
    fn expected_findings_match_with_and_without_optional_ones() {
        let first = finding("new_binding", "info", IP, &[A]);
        let contested = finding("contested", "warning", IP, &[B, A]);
        let moved = finding("moved", "notice", IP, &[B, A]);
        compare(&expected_findings(), &[first.clone(), moved.clone()]).unwrap();
        compare(&expected_findings(), &[first, contested, moved]).unwrap();
    }

    #[test]
    fn missing_wrong_and_additional_findings_do_not_match() {
        let first = finding("new_binding", "info", IP, &[A]);
        let moved = finding("moved", "notice", IP, &[B, A]);
        for wrong in [
            vec![first.clone()],
            vec![moved.clone(), first.clone()],
            vec![first.clone(), moved.clone(), moved.clone()],
            vec![first.clone(), finding("moved", "notice", IP, &[A, B])],
            vec![first.clone(), finding("moved", "warning", IP, &[B, A])],
            vec![
                first,
                moved,
                finding("contested", "warning", "192.0.2.1", &[A, B]),
            ],
        ] {
            assert!(compare(&expected_findings(), &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn new_bindings_of_other_addresses_are_allowed() {
        let other = finding("new_binding", "info", "192.0.2.1", &[A]);
        compare(&[], &[other]).unwrap();
    }
}
