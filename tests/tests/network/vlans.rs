//! A claim belongs to its own VLAN, also where the kernel has moved the tag from the frame into the socket buffer
//! before the hook, as it does with every received tagged frame.

use std::time::Duration;

use probe_common::wire::{MacAddr, ethertype};
use probe_tests::{Frame, Host, Lab, SHARED_ADDRESS};

const TIMEOUT: Duration = Duration::from_secs(10);
const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xbb]);

/// The ways to tag a frame, each with the resulting VLAN.
fn tagged(frame: &Frame) -> [(Frame, &'static str); 9] {
    let with = |tags: &[(u16, u16)]| {
        tags.iter().fold(frame.clone(), |frame, &(tpid, tci)| {
            frame.tagged_as(tpid, tci)
        })
    };
    let (customer, service) = (ethertype::VLAN, ethertype::QINQ);
    [
        (with(&[]), "0"),
        (with(&[(customer, 100)]), "100"),
        // The highest priority and the drop-eligible bit are no part of the VLAN.
        (with(&[(customer, 0xf065)]), "101"),
        (with(&[(customer, 0xe000)]), "0"),
        (with(&[(service, 300)]), "300"),
        (with(&[(customer, 100), (customer, 200)]), "100.200"),
        (with(&[(service, 300), (customer, 200)]), "300.200"),
        (with(&[(customer, 0xa000), (customer, 102)]), "102"),
        (with(&[(customer, 4094)]), "4094"),
    ]
}

fn assert_each_frame_is_observed_in_its_vlan(attach: &str, from: impl Fn(&[Host; 2]) -> &Host) {
    let lab = Lab::new().unwrap();
    let hosts = lab.pair("monitor", "peer").unwrap();
    let [monitor, _] = &hosts;
    let watch = monitor
        .bare_watch(&["-i", "eth0", "--attach", attach, "-o", "json"])
        .unwrap();
    let socket = from(&hosts).sender().unwrap();
    for number in 1..=9_u8 {
        // Each has its own address, so that each is a new binding.
        let ways = tagged(&Frame::announcement(A, [192, 0, 2, number]));
        let (frame, vlan) = &ways[usize::from(number) - 1];
        socket.send(frame).unwrap();
        let ip = format!("192.0.2.{number}");
        let finding = watch
            .wait_for_finding(TIMEOUT, |finding| finding.ip == ip)
            .unwrap();
        assert_eq!(finding.vlan, *vlan, "{finding:?}");
    }
}

fn peer([_, peer]: &[Host; 2]) -> &Host {
    peer
}

fn monitor_of([monitor, _]: &[Host; 2]) -> &Host {
    monitor
}

#[test]
fn tc_observes_each_frame_in_its_vlan() {
    assert_each_frame_is_observed_in_its_vlan("tc", peer);
}

#[test]
fn auto_observes_each_frame_in_its_vlan() {
    assert_each_frame_is_observed_in_its_vlan("auto", peer);
}

#[test]
fn sent_frames_are_observed_in_their_vlan() {
    assert_each_frame_is_observed_in_its_vlan("tc", monitor_of);
}

#[test]
fn one_address_in_two_vlans_is_no_conflict_and_two_owners_in_one_are() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor
        .ready_bare_daemon(&["-i", "eth0", "--attach", "auto"])
        .unwrap();
    let socket = peer.sender().unwrap();
    let client = peer.mac();
    let address: std::net::Ipv4Addr = SHARED_ADDRESS.parse().unwrap();
    let request = |tci| Frame::request(client, [192, 0, 2, 1], address).tagged(tci);
    let reply = |by, tci| Frame::reply(by, address, client, [192, 0, 2, 1]).tagged(tci);
    // Each VLAN has its owner, and both reply at the same time.
    socket
        .send_all(&[request(100), request(200), reply(A, 100), reply(B, 200)])
        .unwrap();
    daemon.wait_until_processed(4).unwrap();
    assert!(daemon.findings().unwrap().is_empty());

    socket
        .send_all(&[request(100), reply(A, 100), reply(B, 100)])
        .unwrap();
    let conflict = daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    assert_eq!(
        (conflict.vlan.as_str(), conflict.ip.as_str()),
        ("100", SHARED_ADDRESS)
    );
}

#[test]
fn native_xdp_on_an_interface_that_strips_tags_is_logged_and_in_the_metrics() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let visible = |attach: &str| {
        let daemon = monitor
            .ready_bare_daemon(&["-i", "eth0", "--attach", attach])
            .unwrap();
        let metrics = daemon.metrics().unwrap();
        let mode = [("mode", attach)];
        let info = metrics.select("arp_monitor_interface_info", &mode);
        let labels: Vec<_> = info
            .map(|sample| sample.labels["vlan_visible"].clone())
            .collect();
        let finished = daemon.finish().unwrap();
        let warned = finished
            .stderr
            .lines()
            .any(|line| line.contains("strips VLAN tags") && line.contains("--attach tc"));
        (labels, warned)
    };
    assert_eq!(visible("native"), (vec!["0".to_owned()], true));
    assert_eq!(visible("tc"), (vec!["1".to_owned()], false));
}
