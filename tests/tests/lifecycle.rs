//! Coming and going: ready when it sees, and nothing left behind, however it ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

use std::os::unix::process::ExitStatusExt;

use aya::programs::{SchedClassifier, TcAttachType};
use probe_tests::{Frame, Host, INTERFACE, Lab, Link};

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
