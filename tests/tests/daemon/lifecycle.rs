//! Coming and going: ready when it sees, and nothing left behind, however it ends.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use aya::programs::{SchedClassifier, TcAttachType};
use probe_tests::{Frame, Host, INTERFACE, Lab, Link, Stream, eventually};

/// How many programs see the frames of a host's network card.
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
fn it_is_ready_when_it_sees_frames() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    assert!(programs_on(&monitor) > 0);
    let frame = Frame::announcement(wire.mac(), [192, 0, 2, 1]);
    wire.sender().unwrap().send(&frame).unwrap();
    daemon.wait_until_digested(1).unwrap();
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    assert_eq!(daemon.get("/nothing/here").unwrap().status, 404);
}

#[test]
fn sigterm_ends_it_well_and_leaves_no_program() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let status = daemon.terminate().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(programs_on(&monitor), 0);
}

#[test]
fn ctrl_c_ends_it_well_and_leaves_no_program() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let status = daemon.interrupt().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(programs_on(&monitor), 0);
}

#[test]
fn sigkill_leaves_no_program() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.ready_daemon(&[]).unwrap();
    let status = daemon.kill().unwrap();
    assert_eq!(status.signal(), Some(9));
    // The kernel lets go of a dead process's descriptors before its parent hears of its end; the link's
    // own release may take a moment longer.
    monitor
        .wait_for_link("no XDP program", has_no_xdp_program)
        .unwrap();
    assert_eq!(programs_on(&monitor), 0);
}

#[test]
fn it_can_be_started_again_at_once() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let frame = Frame::announcement(wire.mac(), [192, 0, 2, 1]);
    for _ in 0..3 {
        let daemon = monitor.ready_daemon(&[]).unwrap();
        wire.sender().unwrap().send(&frame).unwrap();
        assert_eq!(daemon.wait_until_digested(1).unwrap().claims, 1);
        daemon.terminate().unwrap();
    }
}

/// Whether a signal would end or stop the process no more: bit `n - 1` of `SigCgt` (`proc_pid_status(5)`).
fn catches(mask: &str, signal: u32) -> bool {
    u64::from_str_radix(mask, 16).unwrap() & (1 << (signal - 1)) != 0
}

#[test]
fn signals_that_come_while_it_starts_are_obeyed_later() {
    const SOON: Duration = Duration::from_secs(10);
    const TERM: u32 = 15;
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let daemon = monitor.daemon(&[]).unwrap();
    let process = daemon.process();
    // From when it takes over the first of its signals, none does harm.
    eventually("a handler of SIGTERM", SOON, || {
        let caught = process.threads("SigCgt")?;
        Ok(caught.iter().any(|mask| catches(mask, TERM)).then_some(()))
    })
    .unwrap();
    process.hang_up().unwrap();
    process.user_signal().unwrap();

    daemon.wait_until_ready().unwrap();
    process
        .wait_for_line(Stream::Stderr, SOON, |line| {
            line.contains("the watch filter was read again")
        })
        .unwrap();
    let released = [("mode", "tc"), ("reason", "released")];
    daemon
        .wait_for_metrics("the XDP slot to be released", SOON, |metrics| {
            Ok(metrics.get("arp_monitor_interface_info", &released) == Some(1.0))
        })
        .unwrap();
}
