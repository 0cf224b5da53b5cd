//! `probe doctor`: a full report for remote support.

use std::{fs, time::Duration};

use probe_tests::{Host, INTERFACE, Lab, PublicCopy};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);

fn json(host: &Host, wrapper: &[&str], status: i32) -> Value {
    let process = host
        .probe_under(wrapper, &["doctor", "-o", "json"])
        .unwrap();
    let finished = process.finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(status), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap()
}

fn interface<'a>(report: &'a Value, name: &str) -> &'a Value {
    let interfaces = report["interfaces"].as_array().unwrap();
    interfaces
        .iter()
        .find(|interface| interface["name"] == name)
        .unwrap()
}

#[test]
fn with_root_all_checks_pass_and_doctor_exits_0() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    monitor.add_address("192.0.2.1/24").unwrap();
    monitor
        .ip(["route", "add", "default", "via", "192.0.2.254"])
        .unwrap();
    let text = monitor
        .probe(&["doctor"])
        .unwrap()
        .finish(TIMEOUT)
        .unwrap()
        .success()
        .unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    for word in [
        release.trim(),
        "CapEff",
        "seccomp",
        "lockdown",
        "memlock",
        "BTF",
        "TCX",
        "tc (disables_offload), watched by default",
        "rx-vlan-offload",
        "All requirements are met.",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("MISSING"), "{text}");
}

#[test]
fn doctor_attaches_no_program_and_lists_attached_ones() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let before = json(&monitor, &[], 0);
    assert_eq!(interface(&before, INTERFACE)["xdp_program"], Value::Null);
    assert_eq!(interface(&before, INTERFACE)["kind"], "veth");
    assert_eq!(interface(&before, "lo")["mode"], Value::Null);
    assert!(monitor.link().unwrap().xdp_programs().is_empty());

    let _daemon = monitor.ready_daemon(&[]).unwrap();
    let attached = monitor.link().unwrap().xdp_programs();
    let after = json(&monitor, &[], 0);
    assert_eq!(interface(&after, INTERFACE)["xdp_program"], attached[0]);
    assert_eq!(interface(&after, INTERFACE)["mode"], "tc");
}

#[test]
fn without_root_doctor_names_missing_capabilities_and_exits_4() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let copy = PublicCopy::new(&monitor).unwrap();
    let unprivileged = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let words = unprivileged.into_iter().map(std::ffi::OsStr::new);
    let verb = ["doctor"].map(std::ffi::OsStr::new);
    let process = monitor
        .spawn(words.chain([copy.path().as_os_str()]).chain(verb))
        .unwrap();
    let finished = process.finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    for word in [
        "MISSING",
        "user 65534",
        "lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON",
        "sudo",
        INTERFACE,
        "tc (disables_offload)",
    ] {
        assert!(
            finished.stdout.contains(word),
            "{word}: {}",
            finished.stdout
        );
    }
}

#[test]
fn a_missing_capability_is_named_in_json_too() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let report = json(
        &monitor,
        &["setpriv", "--bounding-set=-all,+bpf,+net_admin", "--"],
        4,
    );
    assert_eq!(report["fit"], false);
    assert_eq!(
        report["missing_capabilities"],
        serde_json::json!(["CAP_PERFMON"])
    );
    assert_eq!(check(&report, "capabilities")["status"], "missing");
    assert_eq!(check(&report, "kernel")["status"], "ok");
}

#[test]
fn in_a_user_namespace_doctor_reports_capabilities_as_insufficient() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let report = json(&monitor, &["unshare", "--user", "--map-root-user", "--"], 4);
    assert_eq!(check(&report, "user ns")["status"], "missing");
}
