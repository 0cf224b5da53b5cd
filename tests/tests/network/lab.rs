//! The lab itself: the properties that the other tests rely on.

use std::time::Duration;

use probe_common::wire::MacAddr;
use probe_tests::{Frame, Lab};

const TIMEOUT: Duration = Duration::from_secs(5);
const ADDRESS: [u8; 4] = [192, 0, 2, 1];
const OTHER_ADDRESS: [u8; 4] = [192, 0, 2, 2];

#[test]
fn hosts_on_a_switch_reach_each_other() {
    let lab = Lab::new().unwrap();
    let switch = lab.bridge().unwrap();
    let [left, right] = ["left", "right"].map(|name| switch.host(name).unwrap());
    left.add_address("192.0.2.1/24").unwrap();
    right.add_address("192.0.2.2/24").unwrap();
    left.exec(["ping", "-c1", "-W5", "192.0.2.2"]).unwrap();
}

#[test]
fn an_unplugged_host_does_not_reply() {
    let lab = Lab::new().unwrap();
    let switch = lab.bridge().unwrap();
    let [left, right] = ["left", "right"].map(|name| switch.host(name).unwrap());
    left.add_address("192.0.2.1/24").unwrap();
    right.add_address("192.0.2.2/24").unwrap();
    switch.unplug(&right).unwrap();
    let arping = left
        .run(["arping", "-c1", "-w1", "-I", "eth0", "192.0.2.2"])
        .unwrap();
    assert!(arping.stdout.contains("Received 0 response"), "{arping:?}");
}

#[test]
fn two_hosts_with_one_address_both_reply() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let capture = hosts.client.capture().unwrap();
    hosts.resolve().unwrap();
    let mut replying = [(); 2].map(|()| {
        let reply = capture.wait_for_arp(TIMEOUT, |arp| arp.oper == 2).unwrap();
        reply.sha
    });
    replying.sort_unstable();
    assert_eq!(replying, [hosts.server.mac(), hosts.duplicate.mac()]);
}

#[test]
fn a_host_on_a_hub_receives_replies_to_others() {
    let lab = Lab::new().unwrap();
    let hub = lab.hub().unwrap();
    let [requester, owner, observer] =
        ["requester", "owner", "observer"].map(|name| hub.host(name).unwrap());
    requester.add_address("192.0.2.1/24").unwrap();
    owner.add_address("192.0.2.2/24").unwrap();
    let capture = observer.capture().unwrap();
    requester.exec(["ping", "-c1", "-W5", "192.0.2.2"]).unwrap();
    let reply = capture.wait_for_arp(TIMEOUT, |arp| arp.oper == 2).unwrap();
    assert_eq!((reply.sha, reply.tha), (owner.mac(), requester.mac()));
}

#[test]
fn a_host_on_a_learning_switch_receives_no_replies_to_others() {
    let lab = Lab::new().unwrap();
    let switch = lab.bridge().unwrap();
    let [requester, owner, observer] =
        ["requester", "owner", "observer"].map(|name| switch.host(name).unwrap());
    requester.add_address("192.0.2.1/24").unwrap();
    owner.add_address("192.0.2.2/24").unwrap();
    let capture = observer.capture().unwrap();
    requester.exec(["ping", "-c1", "-W5", "192.0.2.2"]).unwrap();
    // A later frame shows that the reply would have been received.
    owner
        .sender()
        .unwrap()
        .send(&Frame::announcement(owner.mac(), [192, 0, 2, 3]))
        .unwrap();
    let mut seen = Vec::new();
    capture
        .wait_for_arp(TIMEOUT, |arp| {
            seen.push((arp.oper, arp.sha));
            arp.is_announcement()
        })
        .unwrap();
    assert_eq!(seen, [(1, requester.mac()), (1, owner.mac())]);
}

#[test]
fn a_veth_pair_transmits_frames_unchanged() {
    let lab = Lab::new().unwrap();
    let [left, right] = lab.pair("left", "right").unwrap();
    let (sender, capture) = (left.sender().unwrap(), right.capture().unwrap());
    let frame = Frame::reply(left.mac(), ADDRESS, right.mac(), OTHER_ADDRESS);
    for length in [14, 41, 42, 60, 1514] {
        let sent = frame.clone().of_length(length).bytes();
        sender.send_bytes(&sent).unwrap();
        let arrived = capture.next(TIMEOUT).unwrap().unwrap();
        assert_eq!((arrived.bytes, arrived.sent), (sent, false));
    }
}

#[test]
fn a_thousand_frames_arrive_in_order() {
    let lab = Lab::new().unwrap();
    let [left, right] = lab.pair("left", "right").unwrap();
    let (sender, capture) = (left.sender().unwrap(), right.capture().unwrap());
    let address = |number: u16| {
        let [high, low] = number.to_be_bytes();
        [10, 0, high, low]
    };
    let frames: Vec<_> = (0..1000)
        .map(|number| Frame::announcement(left.mac(), address(number)))
        .collect();
    sender.send_all(&frames).unwrap();
    for number in 0..1000 {
        let arrived = capture.wait_for_arp(TIMEOUT, |_| true).unwrap();
        assert_eq!(arrived.spa, address(number));
    }
}

#[test]
fn the_mac_of_a_host_can_be_changed() {
    let lab = Lab::new().unwrap();
    let [mut left, right] = lab.pair("left", "right").unwrap();
    let virtual_router: MacAddr = "00:00:5e:00:01:2a".parse().unwrap();
    left.set_mac(virtual_router).unwrap();
    left.add_address("192.0.2.1/24").unwrap();
    right.add_address("192.0.2.2/24").unwrap();
    let capture = right.capture().unwrap();
    left.exec(["ping", "-c1", "-W5", "192.0.2.2"]).unwrap();
    let arping = capture.wait_for_arp(TIMEOUT, |arp| arp.oper == 1).unwrap();
    assert_eq!(
        (arping.sha, arping.eth_src),
        (virtual_router, virtual_router)
    );
}

#[test]
fn a_panic_leaves_no_namespace_and_no_process() {
    let name = std::thread::spawn(|| {
        let lab = Lab::new().unwrap();
        let [left, _right] = lab.pair("left", "right").unwrap();
        let process = left.spawn(["sleep", "60"]).unwrap();
        std::panic::panic_any((left.namespace().to_owned(), process.id()));
    })
    .join()
    .unwrap_err();
    let (namespace, pid) = name.downcast_ref::<(String, u32)>().unwrap();
    for path in [format!("/run/netns/{namespace}"), format!("/proc/{pid}")] {
        assert!(!std::path::Path::new(&path).exists(), "{path}");
    }
}
