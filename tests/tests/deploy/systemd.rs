//! The systemd unit: valid, tight, and with everything that the daemon needs.
//!
//! systemd itself need not run here: what it would give the process is read from the unit and given by others.

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

const SOON: Duration = Duration::from_secs(30);

/// As `systemd-analyze security` rates it, times ten: what loads programs and watches the host's network.
const MAX_EXPOSURE: &str = "20";

/// A user and a group that nobody has, as `DynamicUser=` takes one.
const NOBODY_ELSE: &str = "61234";

fn unit() -> PathBuf {
    deploy().join("systemd/arp-monitor.service")
}

/// The values of a setting, in their order.
fn settings(name: &str) -> Vec<String> {
    fs::read_to_string(unit())
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

/// The words of a setting that is there once.
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
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let place = TempDir::new().unwrap();
    let copy = place.path().join("arp-monitor.service");
    let text = fs::read_to_string(unit()).unwrap();
    // What is installed elsewhere; the manual is there when it is.
    let installed = text
        .replace("/usr/local/bin/probe", binary().unwrap().to_str().unwrap())
        .replace("Documentation=man:probe-run(1)\n", "");
    assert_ne!(installed, text);
    fs::write(&copy, installed).unwrap();
    let (valid, said) = analyze(&["verify", "--man=no", copy.to_str().unwrap()]);
    assert!(valid, "{said}");
    assert_eq!(said.trim(), "");
}

#[test]
fn what_the_unit_leaves_exposed_is_little() {
    let unit = unit();
    let threshold = format!("--threshold={MAX_EXPOSURE}");
    let words = [
        "security",
        "--offline=yes",
        &threshold,
        unit.to_str().unwrap(),
    ];
    let (tight, said) = analyze(&words);
    assert!(tight, "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

/// The daemon, given by others what the unit says: another user, ambient capabilities, no new privileges, and
/// somebody who waits for word that it is ready. strace writes down which system calls it makes.
#[test]
fn the_daemon_gets_along_with_what_the_unit_gives_it() {
    let lab = Lab::new().unwrap();
    let [host, wire] = lab.pair("host", "wire").unwrap();
    let copy = PublicCopy::new(&host).unwrap();
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let trace = path("trace");
    let manager = UnixDatagram::bind(path("notify")).unwrap();
    fs::set_permissions(path("notify"), fs::Permissions::from_mode(0o777)).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();

    let bounding = words("CapabilityBoundingSet");
    assert_eq!(words("AmbientCapabilities"), bounding);
    let mut capabilities = "-all".to_owned();
    for name in &bounding {
        capabilities += ",+";
        capabilities += &name.strip_prefix("CAP_").unwrap().to_lowercase();
    }
    let identity = [
        format!("--reuid={NOBODY_ELSE}"),
        format!("--regid={NOBODY_ELSE}"),
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

    assert_eq!(heard(&manager), "READY=1");
    let server = "127.0.0.1:10826".parse().unwrap();
    let get = |page: &str| host.http_get(server, page).unwrap();
    assert_eq!(get("/readyz").status, 200);
    wire.sender()
        .unwrap()
        .send(&Frame::announcement(wire.mac(), [192, 0, 2, 9]))
        .unwrap();
    eventually("the claim to be known", SOON, || {
        let bindings = host.probe(&["bindings", "--socket", &socket])?;
        Ok(bindings
            .finish(SOON)?
            .stdout
            .contains("192.0.2.9")
            .then_some(()))
    })
    .unwrap();
    assert_eq!(get("/metrics").status, 200);
    let daemon = traced_process(&trace, daemon);
    let interrupted = Command::new("kill").args(["-TERM", &daemon]).status();
    assert!(interrupted.unwrap().success());
    assert_eq!(heard(&manager), "STOPPING=1");
    let status = process.exit_status(SOON).unwrap();
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

fn heard(manager: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let length = manager.recv(&mut message).unwrap();
    let text = String::from_utf8(message[..length].to_vec()).unwrap();
    text.trim_end().to_owned()
}

/// The number of the process that became this program.
fn traced_process(trace: &str, program: &str) -> String {
    let trace = fs::read_to_string(trace).unwrap();
    let execution = format!("execve(\"{program}\"");
    let line = trace
        .lines()
        .find(|line| line.contains(&execution))
        .unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// The system calls in a trace: a process number, a name and a parenthesis each.
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

/// The families of the sockets in a trace.
fn families(trace: &str) -> BTreeSet<String> {
    trace
        .split(" socket(")
        .skip(1)
        .filter_map(|rest| rest.split([',', ')']).next())
        .map(str::to_owned)
        .collect()
}

/// What the lines of `SystemCallFilter=` come to, one after the other.
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
