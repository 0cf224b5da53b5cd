//! The systemd unit: valid, restrictive, and sufficient for the daemon.
//!
//! systemd itself need not run here: the test reads the settings from the unit and applies them by other means.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use probe_tests::{Frame, INTERFACE, Lab, PublicCopy, Stream, binary, deploy, eventually};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The limit for the rating of `systemd-analyze security`, times ten: the daemon loads programs and monitors the
/// host's network.
const MAX_EXPOSURE: &str = "20";

/// An unused user and group ID, as `DynamicUser=` would assign.
const UNUSED_ID: &str = "61234";

fn unit() -> PathBuf {
    deploy().join("systemd/arp-monitor.service")
}

/// The values of a setting, in order.
fn settings(name: &str) -> Vec<String> {
    fs::read_to_string(unit())
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

/// The words of a setting that occurs once.
fn words(name: &str) -> Vec<String> {
    let settings = settings(name);
    assert_eq!(settings.len(), 1, "{name}");
    settings[0].split(' ').map(str::to_owned).collect()
}

fn analyze(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .env("SYSTEMD_COLORS", "0")
        .output()
        .unwrap();
    let messages = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(messages).unwrap(),
    )
}

#[test]
fn systemd_accepts_the_unit() {
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("arp-monitor.service");
    let text = fs::read_to_string(unit()).unwrap();
    // Files that are installed elsewhere; the manual exists after the installation.
    let installed = text
        .replace("/usr/local/bin/probe", binary().unwrap().to_str().unwrap())
        .replace("Documentation=man:probe-run(1)\n", "");
    assert_ne!(installed, text);
    fs::write(&copy, installed).unwrap();
    let (valid, messages) = analyze(&["verify", "--man=no", copy.to_str().unwrap()]);
    assert!(valid, "{messages}");
    assert_eq!(messages.trim(), "");
}

#[test]
fn the_exposure_of_the_unit_is_low() {
    let unit = unit();
    let threshold = format!("--threshold={MAX_EXPOSURE}");
    let words = [
        "security",
        "--offline=yes",
        &threshold,
        unit.to_str().unwrap(),
    ];
    let (tight, messages) = analyze(&words);
    assert!(tight, "{messages}");
    assert!(messages.contains("Overall exposure level"), "{messages}");
}

/// The daemon with the restrictions of the unit: another user, ambient capabilities, no new privileges, and a
/// socket for readiness notifications. strace records its system calls.
#[test]
fn the_daemon_runs_with_the_restrictions_of_the_unit() {
    let lab = Lab::new().unwrap();
    let [host, peer] = lab.pair("host", "peer").unwrap();
    let copy = PublicCopy::new(&host).unwrap();
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let trace = path("trace");
    let manager = UnixDatagram::bind(path("notify")).unwrap();
    fs::set_permissions(path("notify"), fs::Permissions::from_mode(0o777)).unwrap();
    manager.set_read_timeout(Some(TIMEOUT)).unwrap();

    let bounding = words("CapabilityBoundingSet");
    assert_eq!(words("AmbientCapabilities"), bounding);
    let mut capabilities = "-all".to_owned();
    for name in &bounding {
        capabilities += ",+";
        capabilities += &name.strip_prefix("CAP_").unwrap().to_lowercase();
    }
    let identity = [
        format!("--reuid={UNUSED_ID}"),
        format!("--regid={UNUSED_ID}"),
        format!("--bounding-set={capabilities}"),
        format!("--inh-caps={capabilities}"),
        format!("--ambient-caps={capabilities}"),
    ];
    let notify = format!("NOTIFY_SOCKET={}", path("notify"));
    let socket = path("probe.sock");
    let mut command = vec![
        "strace",
        "--follow-forks",
        "--quiet=all",
        "-o",
        &trace,
        "setpriv",
    ];
    command.extend(identity.iter().map(String::as_str));
    command.extend(["--clear-groups", "--no-new-privs", "--", "env", &notify]);
    let daemon = copy.path().to_str().unwrap();
    command.extend([daemon, "run", "--interface", INTERFACE, "--socket", &socket]);
    let mut process = host.spawn(command).unwrap();

    assert_eq!(receive_state(&manager), "READY=1");
    let server = "127.0.0.1:10826".parse().unwrap();
    let get = |page: &str| host.http_get(server, page).unwrap();
    assert_eq!(get("/readyz").status, 200);
    peer.sender()
        .unwrap()
        .send(&Frame::announcement(peer.mac(), [192, 0, 2, 9]))
        .unwrap();
    eventually("the claim to be counted", TIMEOUT, || {
        let bindings = host.probe(&["bindings", "--socket", &socket])?;
        Ok(bindings
            .finish(TIMEOUT)?
            .stdout
            .contains("192.0.2.9")
            .then_some(()))
    })
    .unwrap();
    assert_eq!(get("/metrics").status, 200);
    let daemon = traced_process(&trace, daemon);
    let interrupted = Command::new("kill").args(["-TERM", &daemon]).status();
    assert!(interrupted.unwrap().success());
    assert_eq!(receive_state(&manager), "STOPPING=1");
    let status = process.exit_status(TIMEOUT).unwrap();
    assert!(status.success(), "{:?}", process.lines(Stream::Stderr));

    let trace = fs::read_to_string(&trace).unwrap();
    let (_, own) = trace
        .split_once(&format!("execve(\"{}\"", copy.path().display()))
        .unwrap();
    let made = calls(own);
    assert!(made.contains("bpf") && made.contains("capset"), "{made:?}");
    let forbidden: Vec<_> = made.difference(&allowed_calls()).cloned().collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
    let families = families(own);
    assert!(families.contains("AF_NETLINK"), "{families:?}");
    let allowed: BTreeSet<_> = words("RestrictAddressFamilies").into_iter().collect();
    assert!(families.is_subset(&allowed), "{families:?}");
}

fn receive_state(manager: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let length = manager.recv(&mut message).unwrap();
    let text = String::from_utf8(message[..length].to_vec()).unwrap();
    text.trim_end().to_owned()
}

/// The ID of the process that executed this program.
fn traced_process(trace: &str, program: &str) -> String {
    let trace = fs::read_to_string(trace).unwrap();
    let execution = format!("execve(\"{program}\"");
    let line = trace
        .lines()
        .find(|line| line.contains(&execution))
        .unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// The system calls in a trace: each line has a process ID, a name and a parenthesis.
fn calls(trace: &str) -> BTreeSet<String> {
    trace
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('('))
        .map(|(name, _)| name.to_owned())
        .filter(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
        .collect()
}

/// The address families of the sockets in a trace.
fn families(trace: &str) -> BTreeSet<String> {
    trace
        .split(" socket(")
        .skip(1)
        .filter_map(|rest| rest.split([',', ')']).next())
        .map(str::to_owned)
        .collect()
}

/// Evaluates the lines of `SystemCallFilter=` in order.
fn allowed_calls() -> BTreeSet<String> {
    let mut allowed = group("@default");
    for line in settings("SystemCallFilter") {
        let (takes, names) = line
            .strip_prefix('~')
            .map_or((false, &*line), |names| (true, names));
        for name in names.split(' ') {
            let calls = if name.starts_with('@') {
                group(name)
            } else {
                BTreeSet::from([name.to_owned()])
            };
            if takes {
                allowed = &allowed - &calls;
            } else {
                allowed.extend(calls);
            }
        }
    }
    assert!(allowed.len() > 100, "{allowed:?}");
    allowed
}

/// The system calls of one of systemd's groups.
fn group(name: &str) -> BTreeSet<String> {
    let (known, listing) = analyze(&["syscall-filter", "--no-pager", name]);
    assert!(known, "{listing}");
    let members = listing.lines().skip(1).map(str::trim);
    let mut calls = BTreeSet::new();
    for member in members.filter(|member| !member.starts_with('#') && !member.is_empty()) {
        if member.starts_with('@') {
            calls.extend(group(member));
        } else {
            calls.insert(member.to_owned());
        }
    }
    calls
}
