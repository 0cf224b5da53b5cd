//! Start and shutdown: ready when it receives frames, and no program left behind, however it ends.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use aya::programs::{SchedClassifier, TcAttachType};
use probe_tests::{Frame, Host, INTERFACE, Lab, Link, Stream, eventually};

/// The number of programs on the interface of a host.
fn programs_on(host: &Host) -> usize {
    let classifiers = host
        .enter(|| {
            let mut number = 0;
            for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
                number += SchedClassifier::query_tcx(INTERFACE, hook)?.1.len();
            }
            Ok(number)
        })
        .unwrap();
    classifiers + host.link().unwrap().xdp_programs().len()
}

fn has_no_xdp_program(link: &Link) -> bool {
    link.xdp_programs().is_empty()
}

#[test]
fn the_daemon_is_ready_when_it_receives_frames() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    assert!(programs_on(&monitor) > 0);
    let frame = Frame::announcement(peer.mac(), [192, 0, 2, 1]);
    peer.sender().unwrap().send(&frame).unwrap();
    daemon.wait_until_processed(1).unwrap();
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    assert_eq!(daemon.get("/nothing/here").unwrap().status, 404);
}

#[test]
fn sigterm_exits_0_and_detaches_the_programs() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let status = daemon.terminate().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(programs_on(&monitor), 0);
}

#[test]
fn ctrl_c_exits_0_and_detaches_the_programs() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let status = daemon.interrupt().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(programs_on(&monitor), 0);
}

#[test]
fn sigkill_leaves_no_program() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let status = daemon.kill().unwrap();
    assert_eq!(status.signal(), Some(9));
    // The kernel closes the descriptors of a dead process before its parent is notified; the release of the link
    // may take a moment longer.
    monitor
        .wait_for_link("no XDP program", has_no_xdp_program)
        .unwrap();
    assert_eq!(programs_on(&monitor), 0);
}

#[test]
fn the_daemon_can_be_restarted_at_once() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let frame = Frame::announcement(peer.mac(), [192, 0, 2, 1]);
    for _ in 0..3 {
        let daemon = monitor.ready_daemon(&[]).unwrap();
        peer.sender().unwrap().send(&frame).unwrap();
        assert_eq!(daemon.wait_until_processed(1).unwrap().claims, 1);
        daemon.terminate().unwrap();
    }
}

/// Whether the process has a handler for a signal: bit `n - 1` of `SigCgt` (`proc_pid_status(5)`).
fn catches(mask: &str, signal: u32) -> bool {
    u64::from_str_radix(mask, 16).unwrap() & (1 << (signal - 1)) != 0
}

#[test]
fn signals_during_the_start_are_handled_later() {
    const TIMEOUT: Duration = Duration::from_secs(10);
    const TERM: u32 = 15;
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.daemon(&[]).unwrap();
    let process = daemon.process();
    // From the first handler on, no signal of the daemon is fatal.
    eventually("a handler of SIGTERM", TIMEOUT, || {
        let caught = process.threads("SigCgt")?;
        Ok(caught.iter().any(|mask| catches(mask, TERM)).then_some(()))
    })
    .unwrap();
    process.hang_up().unwrap();
    process.user_signal().unwrap();

    daemon.wait_until_ready().unwrap();
    process
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
            line.contains("watch filter reloaded")
        })
        .unwrap();
    let released = [("mode", "tc"), ("reason", "released")];
    daemon
        .wait_for_metrics("the XDP slot to be released", TIMEOUT, |metrics| {
            Ok(metrics.get("arp_monitor_interface_info", &released) == Some(1.0))
        })
        .unwrap();
}
