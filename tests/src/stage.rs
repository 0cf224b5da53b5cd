//! Scenarios: what happens on a network, and what must be found in it.
//!
//! A [`Scenario`] is a value. Playing it sets up hosts, lets them act while the binary watches one of them,
//! and says which findings that makes; [`Stage::conclude`] holds the binary to it. What was found once can
//! so be asked for again, of whatever has recorded the same frames.

use std::{cell::Cell, collections::BTreeSet, fmt, time::Duration};

use anyhow::{Context, bail, ensure};
use probe_common::wire::MacAddr;

use crate::{
    finding::Finding,
    frame::Frame,
    host::{Host, INTERFACE},
    lab::Lab,
    packet::Sender,
    process::Process,
    process::Stream,
    switch::Switch,
};

/// For a finding that takes its time: an election, a move's 10 s, and a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(40);

/// An address that no scenario uses (TEST-NET-2, RFC 5737), for the mark at the end.
const MARK: [u8; 4] = [198, 51, 100, 1];

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
    // Before the hosts, so that it ends before what it watches.
    watch: Option<Process>,
    marker: Option<(Host, Sender)>,
    concluded: Cell<bool>,
    switch: Switch,
    lab: Lab,
}

/// A finding that a scenario makes.
#[derive(Clone, Debug)]
pub struct Expected {
    finding: &'static str,
    ip: String,
    vlan: String,
    severity: &'static str,
    evidence: Option<&'static str>,
    owners: Owners,
    optional: bool,
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
        let mut stage = Stage::new(self.wires)?;
        (self.play)(&mut stage).with_context(|| stage.said())?;
        ensure!(stage.concluded.get(), "a scenario that concludes nothing");
        Ok(())
    }
}

impl Stage {
    fn new(wires: Wires) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let switch = match wires {
            Wires::Switch => lab.bridge()?,
            Wires::Hub => lab.hub()?,
        };
        Ok(Self {
            watch: None,
            marker: None,
            concluded: Cell::new(false),
            switch,
            lab,
        })
    }

    /// What the hosts are plugged into.
    pub const fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The lab around it, for more than one network.
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A host on the network, with its address (and prefix length), if it has one.
    pub fn host(&self, name: &str, address: Option<&str>) -> anyhow::Result<Host> {
        let host = self.switch.host(name)?;
        if let Some(address) = address {
            host.add_address(address)?;
        }
        Ok(host)
    }

    /// Starts to watch a host's network card, attached as `--attach` has it. From here on every frame counts.
    pub fn watch(&mut self, host: &Host, attach: &str, options: &[&str]) -> anyhow::Result<()> {
        let card = ["-i", INTERFACE, "--attach", attach, "-o", "json"];
        self.watch = Some(host.bare_watch(&[&card, options].concat())?);
        let marker = self.switch.host("marker")?;
        let sender = marker.sender()?;
        // Seen at the start: so what is not seen later did not happen.
        sender.send(&Frame::announcement(MARKING[0], MARK))?;
        self.marker = Some((marker, sender));
        self.wait_for_mark("new_binding")
    }

    /// Waits for the first finding of this name about this address.
    pub fn wait_for(&self, finding: &str, ip: &str) -> anyhow::Result<Finding> {
        self.wait_for_more(finding, ip, 1)
    }

    /// Waits until there have been so many findings of this name about this address, and returns the last.
    pub fn wait_for_more(&self, finding: &str, ip: &str, times: usize) -> anyhow::Result<Finding> {
        let mut seen = 0;
        self.watching()?.wait_for_finding(PATIENCE, |found| {
            seen += usize::from(found.finding == finding && found.ip == ip);
            seen >= times
        })
    }

    /// Holds the binary to these findings, and to no others about these addresses, nor to any about others than
    /// that they are there. To be called while everybody is still in their places.
    ///
    /// It waits for all that is to come: another address moves, which takes as long as any conclusion from
    /// what happened before.
    pub fn conclude(&self, expected: &[Expected]) -> anyhow::Result<()> {
        self.concluded.set(true);
        let (_, sender) = self.marker.as_ref().context("nobody watches")?;
        sender.send(&Frame::announcement(MARKING[1], MARK))?;
        self.wait_for_mark("moved")?;
        compare(expected, &self.findings()?)
    }

    fn wait_for_mark(&self, finding: &str) -> anyhow::Result<()> {
        let [a, b, c, d] = MARK;
        self.wait_for(finding, &format!("{a}.{b}.{c}.{d}"))
            .map(drop)
    }

    fn watch_lines(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.watching()?.lines(Stream::Stdout))
    }

    /// What was found so far, but for the mark.
    fn findings(&self) -> anyhow::Result<Vec<Finding>> {
        let [a, b, c, d] = MARK;
        let mark = format!("{a}.{b}.{c}.{d}");
        let mut findings = self
            .watch_lines()?
            .iter()
            .map(|line| Finding::parse(line))
            .collect::<anyhow::Result<Vec<_>>>()?;
        findings.retain(|finding| finding.ip != mark);
        Ok(findings)
    }

    fn watching(&self) -> anyhow::Result<&Process> {
        self.watch.as_ref().context("nobody watches")
    }

    /// For a message.
    fn said(&self) -> String {
        match &self.watch {
            Some(watch) => format!("`probe watch` said:\n{}", watch.said()),
            None => "before `probe watch` was started".to_owned(),
        }
    }
}

impl Expected {
    fn new(finding: &'static str, ip: &str, severity: &'static str, owners: Owners) -> Self {
        Self {
            finding,
            ip: ip.to_owned(),
            vlan: "0".to_owned(),
            severity,
            evidence: None,
            owners,
            optional: false,
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

    fn address(&self) -> (&str, &str) {
        (&self.ip, &self.vlan)
    }

    fn is_met_by(&self, found: &Finding) -> anyhow::Result<bool> {
        let mut macs = found.macs()?;
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
            && found.evidence.as_str() == self.evidence)
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
        write!(f, ") of {:?}", self.owners)?;
        if self.optional {
            f.write_str(", perhaps")?;
        }
        Ok(())
    }
}

/// Holds the findings about each address against what was expected of it, in order. Of addresses that
/// nothing was expected of, only the first claim may be reported.
fn compare(expected: &[Expected], found: &[Finding]) -> anyhow::Result<()> {
    let addresses: BTreeSet<_> = expected.iter().map(Expected::address).collect();
    let stray = found
        .iter()
        .find(|found| !addresses.contains(&found.address()) && found.finding != "new_binding");
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
