//! Scenarios: what happens on a network, and what must be found in it.
//!
//! A [`Scenario`] is a value. Playing it sets up hosts, lets them act while the binary watches one of them,
//! and says which findings that makes. [`Stage::conclude`] holds the binary to it three times: live, over what
//! it has recorded itself, and over what tcpdump has captured beside it.

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
    socket::SocketPlace,
    switch::Switch,
    wait::eventually,
};

/// For a finding that takes its time: an election, a move's 10 s, and a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(40);

/// For a program that starts, ends or reads a file.
const PROMPTLY: Duration = Duration::from_secs(20);

/// An address that no scenario uses (TEST-NET-2, RFC 5737), for the mark at the end.
const MARK: &str = "198.51.100.1";

/// Two stations that no scenario has, for the same.
const MARKING: [MacAddr; 2] = [
    MacAddr([2, 0, 0, 0, 0xfe, 1]),
    MacAddr([2, 0, 0, 0, 0xfe, 2]),
];

/// How the hosts of a scenario are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wires {
    /// By a switch: each sees broadcasts and what is meant for it.
    Switch,
    /// By a hub: each sees everything.
    Hub,
}

/// What happens on a network, and what must be found in it.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it holds, like the name of a test.
    pub name: &'static str,
    /// How its hosts are connected.
    pub wires: Wires,
    /// Plays it, with [`Stage::conclude`] at the end.
    pub play: fn(&mut Stage) -> anyhow::Result<()>,
}

/// Where a scenario is played.
#[derive(Debug)]
pub struct Stage {
    // Before the switch and what is plugged in, so that they end before what they watch.
    observers: Option<Observers>,
    asking: bool,
    concluded: bool,
    switch: Switch,
}

/// Who watches and records what happens, and who makes the mark at the end.
#[derive(Debug)]
struct Observers {
    watch: Process,
    daemon: Option<AskingDaemon>,
    tcpdump: Process,
    marker: Host,
    sender: Sender,
    /// Options of detection, which hold for what was recorded too.
    options: Vec<String>,
    files: TempDir,
}

/// A daemon that asks, to be watched through its socket.
#[derive(Debug)]
struct AskingDaemon {
    process: Process,
    place: SocketPlace,
}

impl AskingDaemon {
    fn start(host: &Host, attach: &str, options: &[&str]) -> anyhow::Result<Self> {
        let (place, listen) = (SocketPlace::new()?, LISTEN.to_string());
        let words = ["run", "--active-probing", "auto", "--listen", &listen];
        let where_and_how = [
            "--socket",
            place.word(),
            "-i",
            INTERFACE,
            "--attach",
            attach,
        ];
        let process = host.probe(&[&words[..], &where_and_how, options].concat())?;
        eventually("a daemon that asks to be ready", PROMPTLY, || {
            let answer = host.http_get(LISTEN, "/readyz");
            Ok(answer
                .is_ok_and(|answer| answer.status == 200)
                .then_some(()))
        })
        .with_context(|| process.said())?;
        Ok(Self { process, place })
    }
}

/// The file that the binary writes.
const RECORDING: &str = "recording.pcapng";

/// The file that tcpdump writes.
const CAPTURE: &str = "capture.pcap";

/// A finding that a scenario makes.
#[derive(Clone, Debug)]
pub struct Expected {
    finding: &'static str,
    ip: String,
    vlan: String,
    severity: &'static str,
    evidence: Option<&'static str>,
    hint: Option<&'static str>,
    owners: Owners,
    /// MACs that may be among the owners' beside those.
    perhaps: Vec<MacAddr>,
    optional: bool,
    captured_as: Option<Vec<Self>>,
}

#[derive(Clone, Debug)]
enum Owners {
    /// Whoever.
    Any,
    /// One of these.
    OneOf(Vec<MacAddr>),
    /// These, in any order.
    All(Vec<MacAddr>),
    /// The owner now and the one before.
    NowAndBefore(MacAddr, MacAddr),
}

impl Scenario {
    /// Plays it, and holds the binary to what it says.
    pub fn hold(&self) -> anyhow::Result<()> {
        self.play(false)
    }

    /// The same, watched by a daemon that asks. What it makes of the answers is not in any capture, so it is held
    /// to what it says live; and reading what was recorded must find no conflict where there was none.
    pub fn hold_asking(&self) -> anyhow::Result<()> {
        self.play(true)
    }

    fn play(&self, asking: bool) -> anyhow::Result<()> {
        let mut stage = Stage::new(self.wires, asking)?;
        (self.play)(&mut stage).with_context(|| stage.said())?;
        ensure!(stage.concluded, "a scenario that concludes nothing");
        Ok(())
    }
}

impl Stage {
    fn new(wires: Wires, asking: bool) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        Ok(Self {
            observers: None,
            asking,
            concluded: false,
            switch: match wires {
                Wires::Switch => lab.bridge()?,
                Wires::Hub => lab.hub()?,
            },
        })
    }

    /// What the hosts are plugged into.
    pub const fn switch(&self) -> &Switch {
        &self.switch
    }

    /// A host on the network, with its address (and prefix length), if it has one.
    pub fn host(&self, name: &str, address: Option<&str>) -> anyhow::Result<Host> {
        let host = self.switch.host(name)?;
        if let Some(address) = address {
            host.add_address(address)?;
        }
        Ok(host)
    }

    /// Starts to watch a host's network card, attached as `--attach` has it, with these options of detection.
    /// From here on every frame counts.
    pub fn watch(&mut self, host: &Host, attach: &str, options: &[&str]) -> anyhow::Result<()> {
        let marker = self.switch.host("marker")?;
        let daemon = self
            .asking
            .then(|| AskingDaemon::start(host, attach, options));
        let observers = Observers::start(host, marker, attach, options, daemon.transpose()?)?;
        let observers = self.observers.insert(observers);
        // Seen at the start: so what is not seen later did not happen.
        observers.mark(MARKING[0])?;
        observers.wait_for("new_binding", MARK, 1).map(drop)
    }

    /// Waits for the first finding of this name about this address.
    pub fn wait_for(&self, finding: &str, ip: &str) -> anyhow::Result<Finding> {
        self.observers()?.wait_for(finding, ip, 1)
    }

    /// Waits until there have been so many findings of this name about this address, and returns the last.
    pub fn wait_for_more(&self, finding: &str, ip: &str, times: usize) -> anyhow::Result<Finding> {
        self.observers()?.wait_for(finding, ip, times)
    }

    /// Holds the binary to these findings, and to no others about these addresses, nor to any about others than
    /// that they are there. To be called while everybody is still in their places.
    ///
    /// It waits for all that is to come: another address moves, which takes as long as any conclusion from
    /// what happened before.
    pub fn conclude(&mut self, expected: &[Expected]) -> anyhow::Result<()> {
        self.concluded = true;
        let observers = self.observers()?;
        observers.mark(MARKING[1])?;
        observers.wait_for("moved", MARK, 1)?;
        // A capture ends with its last frame. So that there is one after the move:
        observers.mark(MARKING[1])?;
        let captured = observers.read_capture()?;

        let observers = self.observers.take().context("nobody watches")?;
        let (live, read_again) = observers.end()?;
        compare(expected, &live).context("live")?;
        if self.asking {
            no_more_conflicts(&live, &read_again).context("over its own recording")?;
            return no_more_conflicts(&live, &captured).context("over tcpdump's capture");
        }
        agree(&live, &read_again).context("over its own recording")?;
        let shown: Vec<_> = expected.iter().flat_map(Expected::in_a_capture).collect();
        compare(&shown, &captured).context("over tcpdump's capture")
    }

    fn observers(&self) -> anyhow::Result<&Observers> {
        self.observers.as_ref().context("nobody watches")
    }

    /// For a message.
    fn said(&self) -> String {
        match &self.observers {
            Some(observers) => format!("`probe watch` said:\n{}", observers.watch.said()),
            None => "when nobody watched".to_owned(),
        }
    }
}

impl Observers {
    fn start(
        host: &Host,
        marker: Host,
        attach: &str,
        options: &[&str],
        daemon: Option<AskingDaemon>,
    ) -> anyhow::Result<Self> {
        let files = TempDir::with_prefix("probe-test-").context("cannot make a directory")?;
        let [recording, capture] = [RECORDING, CAPTURE].map(|name| files.path().join(name));
        let write = ["-o", "json", "--write", word(&recording)?];
        let watch = if let Some(daemon) = &daemon {
            let socket = ["--socket", daemon.place.word()];
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
            word(&capture)?,
            "arp or (vlan and arp)",
        ])?;
        tcpdump.wait_for_line(Stream::Stderr, PROMPTLY, |line| {
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

    /// Says on the network that the mark's address is at one of its stations.
    fn mark(&self, mac: MacAddr) -> anyhow::Result<()> {
        let address: std::net::Ipv4Addr = MARK.parse()?;
        self.sender.send(&Frame::announcement(mac, address))
    }

    fn wait_for(&self, finding: &str, ip: &str, times: usize) -> anyhow::Result<Finding> {
        let mut seen = 0;
        self.watch.wait_for_finding(PATIENCE, |found| {
            seen += usize::from(found.finding == finding && found.ip == ip);
            seen >= times
        })
    }

    /// What the binary finds in tcpdump's capture, once that is complete.
    fn read_capture(&self) -> anyhow::Result<Vec<Finding>> {
        // tcpdump says nothing of what it has written.
        eventually("tcpdump to write the mark", PROMPTLY, || {
            // Until then the file may end in the middle of a frame.
            let finished = self.read(CAPTURE)?;
            let found = findings(&finished.stdout)?;
            let complete = found
                .iter()
                .any(|found| found.ip == MARK && found.finding == "moved");
            Ok((complete && finished.status.success()).then_some(found))
        })
        .with_context(|| format!("tcpdump said:\n{}", self.tcpdump.said()))
    }

    /// What was found live, and what is found in what was recorded.
    fn end(mut self) -> anyhow::Result<(Vec<Finding>, Vec<Finding>)> {
        self.watch.interrupt()?;
        self.watch.exit_status(PROMPTLY)?;
        let live = findings(&self.watch.lines(Stream::Stdout).join("\n"))?;
        let again = findings(&self.read(RECORDING)?.success()?)?;
        if let Some(daemon) = &mut self.daemon {
            daemon.process.terminate()?;
            daemon.process.exit_status(PROMPTLY)?;
        }
        Ok((live, again))
    }

    fn read(&self, file: &str) -> anyhow::Result<Finished> {
        let file = self.files.path().join(file);
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        let words = ["watch", "-o", "json", "--read", word(&file)?];
        self.marker
            .probe(&[&words[..], &options].concat())?
            .finish(PROMPTLY)
    }
}

/// A path as a word of a command line.
fn word(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}

/// The findings of these lines, without their times. Takeovers that are undecided at the end are no findings.
fn findings(lines: &str) -> anyhow::Result<Vec<Finding>> {
    lines
        .lines()
        .filter(|line| !line.contains("\"undecided\":"))
        .map(|line| Finding::parse(line).map(Finding::without_time))
        .collect()
}

impl Expected {
    fn new(finding: &'static str, ip: &str, severity: &'static str, owners: Owners) -> Self {
        Self {
            finding,
            ip: ip.to_owned(),
            vlan: "0".to_owned(),
            severity,
            evidence: None,
            hint: None,
            owners,
            perhaps: Vec::new(),
            optional: false,
            captured_as: None,
        }
    }

    /// The address is seen for the first time, claimed by one of these.
    pub fn new_binding(ip: &str, one_of: &[MacAddr]) -> Self {
        Self::new("new_binding", ip, "info", Owners::OneOf(one_of.to_vec()))
    }

    /// The address has moved.
    pub fn moved(ip: &str, from: MacAddr, to: MacAddr) -> Self {
        Self::new("moved", ip, "notice", Owners::NowAndBefore(to, from))
    }

    /// These took turns, but less than for a conflict.
    pub fn contested(ip: &str, owners: &[MacAddr]) -> Self {
        Self::new("contested", ip, "warning", Owners::All(owners.to_vec()))
    }

    /// These all have the address.
    pub fn conflict(ip: &str, evidence: &'static str, owners: &[MacAddr]) -> Self {
        Self {
            evidence: Some(evidence),
            ..Self::new("conflict", ip, "warning", Owners::All(owners.to_vec()))
        }
    }

    /// A conflict, opened by this evidence, shows no more.
    pub fn conflict_quiet(ip: &str, evidence: &'static str) -> Self {
        Self {
            evidence: Some(evidence),
            ..Self::new("conflict_quiet", ip, "notice", Owners::Any)
        }
    }

    /// A conflict, opened by this evidence, ends for want of a second owner.
    pub fn conflict_expired(ip: &str, evidence: &'static str) -> Self {
        Self {
            evidence: Some(evidence),
            ..Self::new("conflict_expired", ip, "notice", Owners::Any)
        }
    }

    /// A conflict, opened by this evidence, is over: one owner is left.
    pub fn conflict_resolved(ip: &str, evidence: &'static str) -> Self {
        Self {
            evidence: Some(evidence),
            ..Self::new("conflict_resolved", ip, "notice", Owners::Any)
        }
    }

    /// A newcomer learns that an address is used.
    pub fn probe_denied(ip: &str, owner: MacAddr, newcomer: MacAddr) -> Self {
        Self::new(
            "probe_denied",
            ip,
            "info",
            Owners::All(vec![owner, newcomer]),
        )
    }

    /// The address matters.
    #[must_use]
    pub fn critical(self) -> Self {
        Self {
            severity: "critical",
            ..self
        }
    }

    /// Beside its owners' MACs, some of these may be named.
    #[must_use]
    pub fn perhaps_with(self, perhaps: &[MacAddr]) -> Self {
        Self {
            perhaps: perhaps.to_vec(),
            ..self
        }
    }

    /// What it says may be the cause.
    #[must_use]
    pub fn hinting(self, hint: &'static str) -> Self {
        Self {
            hint: Some(hint),
            ..self
        }
    }

    /// It may be missing: it depends on which of two frames is first.
    #[must_use]
    pub fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }

    /// In a VLAN.
    #[must_use]
    pub fn in_vlan(self, vlan: u16) -> Self {
        Self {
            vlan: vlan.to_string(),
            ..self
        }
    }

    /// In a mere capture these are found instead: it does not tell which addresses the host holds.
    #[must_use]
    pub fn captured_as(self, instead: &[Self]) -> Self {
        Self {
            captured_as: Some(instead.to_vec()),
            ..self
        }
    }

    /// What is to be found in a mere capture, which tells neither what the host holds nor what matters to it.
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

    fn is_met_by(&self, found: &Finding) -> anyhow::Result<bool> {
        let mut macs = found.macs()?;
        macs.retain(|mac| !self.perhaps.contains(mac));
        let owners_fit = match &self.owners {
            Owners::Any => true,
            Owners::OneOf(owners) => matches!(macs[..], [mac] if owners.contains(&mac)),
            Owners::All(owners) => {
                let mut owners = owners.clone();
                owners.sort_unstable();
                macs == owners
            }
            Owners::NowAndBefore(now, before) => {
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

impl fmt::Display for Expected {
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
            f.write_str(", perhaps")?;
        }
        Ok(())
    }
}

/// What was recorded must give the very same findings.
fn agree(live: &[Finding], read: &[Finding]) -> anyhow::Result<()> {
    for place in 0..live.len().max(read.len()) {
        let (live, read) = (live.get(place), read.get(place));
        ensure!(
            live == read,
            "finding {place} differs:\n    live: {live:?}\n    read: {read:?}"
        );
    }
    Ok(())
}

/// Reading must find no conflict where there was none live.
fn no_more_conflicts(live: &[Finding], read: &[Finding]) -> anyhow::Result<()> {
    let is_conflict = |found: &&Finding| found.finding == "conflict";
    let conflicts: BTreeSet<_> = live
        .iter()
        .filter(is_conflict)
        .map(Finding::address)
        .collect();
    let mut read = read.iter().filter(is_conflict);
    match read.find(|found| !conflicts.contains(&found.address())) {
        Some(found) => bail!("a conflict that was none: {found:?}"),
        None => Ok(()),
    }
}

/// Holds the findings about each address against what was expected of it, in order. Of addresses that
/// nothing was expected of, only the first claim may be reported.
fn compare(expected: &[Expected], found: &[Finding]) -> anyhow::Result<()> {
    let addresses: BTreeSet<_> = expected.iter().map(Expected::address).collect();
    let stray = found.iter().find(|found| {
        let is_expected = addresses.contains(&found.address()) || found.ip == MARK;
        !is_expected && found.finding != "new_binding"
    });
    if let Some(stray) = stray {
        bail!("a finding about an address that has nothing to do with it: {stray:?}");
    }
    for (ip, vlan) in addresses {
        let is_here = |address| address == (ip, vlan);
        let expected: Vec<_> = expected.iter().filter(|it| is_here(it.address())).collect();
        let found: Vec<_> = found.iter().filter(|it| is_here(it.address())).collect();
        if !meets(&expected, &found)? {
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

/// Whether these are the findings that were expected, in this order.
fn meets(expected: &[&Expected], found: &[&Finding]) -> anyhow::Result<bool> {
    let mut found = found.iter().peekable();
    for expected in expected {
        let is_next = match found.peek() {
            Some(next) => expected.is_met_by(next)?,
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

    fn story() -> [Expected; 3] {
        [
            Expected::new_binding(IP, &[A, B]),
            Expected::contested(IP, &[A, B]).optional(),
            Expected::moved(IP, A, B),
        ]
    }

    #[test]
    fn what_was_expected_is_accepted_with_and_without_what_is_optional() {
        let first = finding("new_binding", "info", IP, &[A]);
        let contested = finding("contested", "warning", IP, &[B, A]);
        let moved = finding("moved", "notice", IP, &[B, A]);
        compare(&story(), &[first.clone(), moved.clone()]).unwrap();
        compare(&story(), &[first, contested, moved]).unwrap();
    }

    #[test]
    fn what_is_missing_wrong_or_too_much_is_not() {
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
            assert!(compare(&story(), &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn other_addresses_may_be_there() {
        let other = finding("new_binding", "info", "192.0.2.1", &[A]);
        compare(&[], &[other]).unwrap();
    }
}
