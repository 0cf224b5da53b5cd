//! Settings from a file, and changed settings while the daemon runs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    time::Duration,
};

use probe_common::wire::MacAddr;
use probe_tests::{Daemon, Finding, Frame, Host, Lab, PublicCopy, Stream};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(20);

const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OWNERS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 0xa]), MacAddr([2, 0, 0, 0, 0, 0xb])];
const OTHER_OWNERS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 0xc]), MacAddr([2, 0, 0, 0, 0, 0xd])];

/// The addresses of the conflicts.
const ONE: &str = "192.0.2.10";
const OTHER: &str = "192.0.2.20";
const THIRD: &str = "192.0.2.30";

const SUCCESSFUL: &str = "arp_monitor_config_last_reload_successful";
const SUCCESS: &str = "arp_monitor_config_last_reload_success_timestamp_seconds";

/// A directory with settings, readable for every user.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        let directory = TempDir::with_prefix("probe-test-").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Creates the directory with a settings file.
    fn with(text: &str) -> Self {
        let directory = Self::new();
        directory.rewrite(text);
        directory
    }

    fn config(&self) -> String {
        self.at("config.yaml").to_str().unwrap().to_owned()
    }

    fn rewrite(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn replace(&self, text: &str) {
        fs::write(self.at("config.yaml.new"), text).unwrap();
        fs::rename(self.at("config.yaml.new"), self.config()).unwrap();
    }

    /// Writes the files as a kubelet lays out a `ConfigMap`, also for updates.
    fn publish(&self, version: &str, text: &str) {
        let directory = self.at(version);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("config.yaml"), text).unwrap();
        symlink(version, self.at("..data_tmp")).unwrap();
        fs::rename(self.at("..data_tmp"), self.at("..data")).unwrap();
        if !self.at("config.yaml").exists() {
            symlink("..data/config.yaml", self.config()).unwrap();
        }
    }
}

fn daemon<'a>(host: &'a Host, directory: &Directory) -> Daemon<'a> {
    host.ready_daemon(&["--config", &directory.config()])
        .unwrap()
}

/// Sends a request for an address and the replies of both `OWNERS`.
fn send_two_replies(peer: &Host, address: &str) {
    send_replies(peer, address, OWNERS);
}

/// Sends a request for an address and the replies of both owners.
fn send_replies(peer: &Host, address: &str, owners: [MacAddr; 2]) {
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let client = [192, 0, 2, 1];
    let mut frames = vec![Frame::request(CLIENT, client, address)];
    frames.extend(owners.map(|owner| Frame::reply(owner, address, CLIENT, client)));
    peer.sender().unwrap().send_all(&frames).unwrap();
}

fn wait_for(daemon: &Daemon<'_>, finding: &str, ip: &str, severity: &str) -> Finding {
    let wanted = |found: &Finding| {
        (
            found.finding.as_str(),
            found.ip.as_str(),
            found.severity.as_str(),
        ) == (finding, ip, severity)
    };
    daemon.process().wait_for_finding(TIMEOUT, wanted).unwrap()
}

fn wait_for_line(daemon: &Daemon<'_>, text: &str) -> String {
    let text = |line: &str| line.contains(text);
    daemon
        .process()
        .wait_for_line(Stream::Stderr, TIMEOUT, text)
        .unwrap()
}

fn lines_containing(daemon: &Daemon<'_>, text: &str) -> usize {
    let lines = daemon.process().lines(Stream::Stderr);
    lines.iter().filter(|line| line.contains(text)).count()
}

fn wait_for_outcome(daemon: &Daemon<'_>, successful: f64) {
    let condition = format!("{SUCCESSFUL} to be {successful}");
    daemon
        .wait_for_metrics(&condition, TIMEOUT, |metrics| {
            Ok(metrics.get(SUCCESSFUL, &[]) == Some(successful))
        })
        .unwrap();
}

fn wait_for_open_conflicts(daemon: &Daemon<'_>, number: f64) {
    daemon
        .wait_for_metrics(&format!("{number} open conflicts"), TIMEOUT, |metrics| {
            Ok(metrics.get("arp_monitor_open_conflicts", &[]) == Some(number))
        })
        .unwrap();
}

#[test]
fn a_conflict_becomes_critical_when_a_rewritten_file_tracks_its_address() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let directory = Directory::with("settle: 9s\n");
    let daemon = daemon(&monitor, &directory);
    send_two_replies(&peer, ONE);
    wait_for(&daemon, "conflict", ONE, "warning");
    directory.rewrite("settle: 9s\ntrack: [192.0.2.0/28]\n");
    let conflict = wait_for(&daemon, "conflict", ONE, "critical");
    assert_eq!(conflict.macs().unwrap(), OWNERS);
    let line = wait_for_line(&daemon, "settings reloaded");
    assert!(line.contains("changed=\"track\""), "{line}");
}

#[test]
fn an_address_ignored_by_a_replaced_file_is_no_longer_reported() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let directory = Directory::with("{}");
    let daemon = daemon(&monitor, &directory);
    directory.replace(
        "ignore:\n- cidr: 192.0.2.10\n  reason: two sites, one address\n  expires: 2999-01-31\n",
    );
    wait_for_line(&daemon, "settings reloaded");
    send_two_replies(&peer, ONE);
    send_two_replies(&peer, OTHER);
    wait_for(&daemon, "conflict", OTHER, "warning");
    assert_eq!(daemon.findings().unwrap().len(), 1);
    // The link is followed nevertheless.
    wait_for_open_conflicts(&daemon, 2.0);

    directory.replace("{}");
    wait_for(&daemon, "conflict", ONE, "warning");
}

#[test]
fn a_conflict_is_resolved_when_a_config_map_declares_its_owners_as_one_host() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let directory = Directory::new();
    directory.publish("..2027_01_01", "{}");
    let daemon = daemon(&monitor, &directory);
    send_two_replies(&peer, ONE);
    wait_for(&daemon, "conflict", ONE, "warning");
    let [first, second] = OWNERS;
    directory.publish(
        "..2027_01_02",
        &format!("same-owner:\n- [{first}, {second}]\n"),
    );
    let resolved = wait_for(&daemon, "conflict_resolved", ONE, "notice");
    assert_eq!(resolved.owners.len(), 1);
    assert_eq!(resolved.macs().unwrap(), OWNERS);
    wait_for_open_conflicts(&daemon, 0.0);

    send_two_replies(&peer, ONE);
    send_two_replies(&peer, ONE);
    // This conflict shows that the frames before it were processed.
    send_replies(&peer, OTHER, OTHER_OWNERS);
    wait_for(&daemon, "conflict", OTHER, "warning");
    let findings = daemon.findings().unwrap();
    let of_one = findings
        .iter()
        .filter(|found| found.finding == "conflict" && found.ip == ONE);
    assert_eq!(of_one.count(), 1, "{findings:#?}");

    directory.publish("..2027_01_03", "settle: 5s\n");
    wait_for_line(&daemon, "settle");
    send_two_replies(&peer, THIRD);
    wait_for(&daemon, "conflict", THIRD, "warning");
}

#[test]
fn an_invalid_file_keeps_the_settings_and_is_reported_until_fixed() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let good = "ignore: {192.0.2.10: known}\nfilter: [192.0.2.0/24]\n";
    let directory = Directory::with(good);
    let daemon = daemon(&monitor, &directory);
    wait_for_outcome(&daemon, 1.0);
    let at_start = daemon.metrics().unwrap().count(SUCCESS, &[]).unwrap();
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    assert!((now - 60..=now).contains(&at_start), "{at_start}");
    let bad = [
        ("trak: [192.0.2.0/24]\n", "config.yaml:1: unknown setting"),
        ("filter: []\nsettle: -1s\n", "config.yaml:2: settle"),
        ("", "the file is empty"),
        ("a: &a [1]\nb: [*a, *a]\n", "anchors"),
        ("filter-file: /nowhere\n", "cannot read the filter /nowhere"),
    ];
    for (text, complaint) in bad {
        directory.rewrite(text);
        wait_for_line(&daemon, complaint);
        wait_for_outcome(&daemon, 0.0);
    }
    fs::remove_file(directory.config()).unwrap();
    wait_for_line(&daemon, "cannot read the settings");
    assert_eq!(
        lines_containing(&daemon, "keeping the previous ones"),
        bad.len() + 1
    );
    send_two_replies(&peer, "198.51.100.10");
    send_two_replies(&peer, ONE);
    send_two_replies(&peer, OTHER);
    wait_for(&daemon, "conflict", OTHER, "warning");
    assert_eq!(daemon.findings().unwrap().len(), 1);

    directory.rewrite("filter: [192.0.2.0/24]\n");
    wait_for_outcome(&daemon, 1.0);
    wait_for(&daemon, "conflict", ONE, "warning");
}

#[test]
fn a_setting_that_needs_a_restart_is_logged_once_and_not_applied() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let directory = Directory::with("refresh: 1s\n");
    let daemon = daemon(&monitor, &directory);
    // A flag overrides the key, so a change of the key has no effect.
    directory.rewrite("refresh: 2s\nring-memory: 8\nattach: tc\nlisten: 127.0.0.1:9999\n");
    let text = "take effect after a restart";
    let line = wait_for_line(&daemon, text);
    assert!(line.contains("changed=\"refresh, ring-memory\""), "{line}");
    daemon.process().hang_up().unwrap();
    directory.rewrite("refresh: 2s\nring-memory: 8\nsettle: 9s\n");
    let line = wait_for_line(&daemon, "settings reloaded");
    assert!(line.contains("changed=\"settle\""), "{line}");
    assert_eq!(lines_containing(&daemon, text), 1);
    let native = [("mode", "native")];
    let metrics = daemon.metrics().unwrap();
    assert_eq!(
        metrics.get("arp_monitor_interface_info", &native),
        Some(1.0)
    );
}

#[test]
fn sighup_reloads_an_unchanged_file() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let directory = Directory::with("settle: 9s\n");
    let daemon = daemon(&monitor, &directory);
    daemon.process().hang_up().unwrap();
    wait_for_line(&daemon, "watch filter reloaded");
    assert_eq!(lines_containing(&daemon, "settings reloaded"), 0);
}

#[test]
fn settings_are_validated_and_printed_without_privileges() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let copy = PublicCopy::new(&monitor).unwrap();
    let directory = Directory::with("attach: tc\nsettle: 9s\nexpire-after: 8m\n");
    let config = directory.config();
    let check = |words: &[&str]| {
        let user = [
            "env",
            "ARP_MONITOR_EXPIRE_AFTER=7m",
            "ARP_MONITOR_SETTLE=8s",
            "setpriv",
        ];
        let unprivileged = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        let probe = [copy.path().to_str().unwrap(), "run", "--check-config"];
        let words = [&user[..], &unprivileged, &probe, words].concat();
        monitor.spawn(words).unwrap().finish(TIMEOUT).unwrap()
    };
    let finished = check(&["--config", &config, "--settle", "7s"]);
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    for line in [
        &*format!("attach: tc  # {config}:1"),
        "settle: 7s  # --settle",
        "expire-after: 7m  # ARP_MONITOR_EXPIRE_AFTER",
        "takeover-grace: 1s  # default",
    ] {
        assert!(
            finished.stdout.lines().any(|shown| shown == line),
            "{line}\n{finished:?}"
        );
    }
    for (text, words, complaint) in [
        (
            "attach: tcc\n",
            &[][..],
            "\"tcc\" is not one of auto, native, tc, generic (is tc meant?)",
        ),
        ("{}", &["--settle", "x"], "--settle"),
        (
            "{}",
            &["--filter-file", "/nowhere"],
            "cannot read the filter /nowhere",
        ),
    ] {
        directory.rewrite(text);
        let finished = check(&[&["--config", &config], words].concat());
        assert_eq!(finished.status.code(), Some(2), "{finished:?}");
        assert!(
            finished.stderr.contains(complaint),
            "{complaint}\n{finished:?}"
        );
        assert_eq!(finished.stdout, "");
    }
}
