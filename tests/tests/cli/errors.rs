//! Errors name the cause and the next step, and the exit status is 4.

use std::{net::TcpListener, time::Duration};

use probe_tests::{Finished, INTERFACE, LISTEN, Lab, Process, PublicCopy};

/// The exit status of a refusal.
const REFUSED: i32 = 4;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until the process exits and checks what all refusals have in common.
fn refusal(process: Process) -> Finished {
    let finished = process.finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(REFUSED), "{finished:?}");
    assert_eq!(finished.stdout, "", "findings only");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    finished
}

#[test]
fn without_root_the_error_names_the_capabilities_and_the_next_step() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let copy = PublicCopy::new(&monitor).unwrap();
    let probe = copy.path();
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
        probe.to_str().unwrap(),
        "run",
        "-i",
        INTERFACE,
    ];
    let finished = refusal(monitor.spawn(words).unwrap());
    for hint in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "sudo"] {
        assert!(
            finished.stderr.contains(hint),
            "{hint}: {}",
            finished.stderr
        );
    }
}

#[test]
fn the_error_names_a_missing_interface() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let finished = refusal(monitor.probe(&["run", "-i", "eth7"]).unwrap());
    assert!(finished.stderr.contains("eth7"), "{}", finished.stderr);
    assert!(
        finished.stderr.contains(INTERFACE),
        "the error lists the interfaces: {}",
        finished.stderr
    );
}

#[test]
fn an_interface_without_ethernet_is_refused_by_name() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    monitor
        .ip(["tuntap", "add", "dev", "tun0", "mode", "tun"])
        .unwrap();
    for interface in ["lo", "tun0"] {
        let finished = refusal(monitor.probe(&["run", "-i", interface]).unwrap());
        let complaint = format!("{interface} is not an Ethernet interface");
        assert!(finished.stderr.contains(&complaint), "{}", finished.stderr);
    }
}

#[test]
fn without_a_matching_interface_the_error_suggests_the_option() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let finished = refusal(monitor.probe(&["run"]).unwrap());
    for word in ["select one with -i", INTERFACE] {
        assert!(finished.stderr.contains(word), "{}", finished.stderr);
    }
}

#[test]
fn another_xdp_program_stays_attached_and_is_named() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let first = monitor.ready_daemon(&[]).unwrap();
    let before = monitor.link().unwrap().xdp_programs();
    let second = [
        "run",
        "-i",
        INTERFACE,
        "--attach",
        "native",
        "--listen",
        "127.0.0.1:9791",
    ];
    let finished = refusal(monitor.probe(&second).unwrap());
    assert!(finished.stderr.contains("arp_xdp"), "{}", finished.stderr);
    assert_eq!(monitor.link().unwrap().xdp_programs(), before);
    assert_eq!(first.get("/readyz").unwrap().status, 200);
}

#[test]
fn a_port_in_use_is_named_and_no_program_stays_attached() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let _holder = monitor.enter(|| Ok(TcpListener::bind(LISTEN)?)).unwrap();
    let listen = LISTEN.to_string();
    let words = ["run", "-i", INTERFACE, "--listen", &listen];
    let finished = refusal(monitor.probe(&words).unwrap());
    assert!(finished.stderr.contains(&listen), "{}", finished.stderr);
    assert!(finished.stderr.contains("--listen"), "{}", finished.stderr);
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
}
