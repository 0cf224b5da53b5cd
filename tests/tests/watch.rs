//! `probe watch`: findings as they happen.

use std::time::Duration;

use probe_tests::{Finding, Frame, INTERFACE, Lab, SHARED_ADDRESS, Stream};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_conflict_appears_live_and_names_both_owners() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = hosts.client.watch(&[]).unwrap();
    hosts.ask().unwrap();
    let line = watch
        .wait_for_line(Stream::Stdout, SOON, |line| line.contains("conflict"))
        .unwrap();
    assert!(line.contains(SHARED_ADDRESS), "{line}");
    for owner in [&hosts.server, &hosts.rival] {
        let mac = owner.mac().to_string();
        watch
            .wait_for_line(Stream::Stdout, SOON, |line| {
                line.starts_with(' ') && line.contains(&mac)
            })
            .unwrap();
    }
}

#[test]
fn json_is_one_object_a_line() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = hosts.client.watch(&["-o", "json"]).unwrap();
    hosts.ask().unwrap();
    watch
        .wait_for_finding(SOON, |finding| finding.finding == "conflict")
        .unwrap();
    for line in watch.lines(Stream::Stdout) {
        Finding::parse(&line).unwrap();
    }
}

#[test]
fn what_arrives_while_it_starts_is_not_lost() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let watch = monitor
        .probe(&[
            "watch", "-i", INTERFACE, "--attach", "native", "-o", "json", "--count", "1",
        ])
        .unwrap();
    monitor
        .wait_for_link("an XDP program", |link| !link.xdp_programs().is_empty())
        .unwrap();
    // It sees from here on, however much it still has to set up.
    wire.sender()
        .unwrap()
        .send(&Frame::announcement(wire.mac(), [192, 0, 2, 1]))
        .unwrap();
    let finding = watch.wait_for_finding(SOON, |_| true).unwrap();
    assert_eq!(finding.finding, "new_binding");
}

#[test]
fn it_ends_after_the_number_of_findings_that_was_asked_for() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let watch = monitor.watch(&["-o", "json", "--count", "2"]).unwrap();
    let socket = wire.sender().unwrap();
    for number in 1..=5 {
        socket
            .send(&Frame::announcement(wire.mac(), [192, 0, 2, number]))
            .unwrap();
    }
    let finished = watch.finish(SOON).unwrap();
    assert_eq!(finished.success().unwrap().lines().count(), 2);
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
}

#[test]
fn it_ends_after_the_time_that_was_asked_for() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let watch = monitor.watch(&["--for", "1s"]).unwrap();
    watch.finish(SOON).unwrap().success().unwrap();
}

#[test]
fn ctrl_c_ends_it_and_leaves_no_program() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let watch = monitor.watch(&[]).unwrap();
    watch.interrupt().unwrap();
    watch.finish(SOON).unwrap().success().unwrap();
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
}
