//! The address filter: some addresses, many thousand networks, and changes at run time.

use std::{env, fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use probe_common::{
    counter::EmitOutcome,
    wire::{FrameKind, MacAddr},
};
use probe_tests::{Daemon, Frame, Host, Lab, Stream};

const TIMEOUT: Duration = Duration::from_secs(20);
const OWNER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);

/// A file with networks, removed on drop.
struct List(PathBuf);

impl List {
    fn new(host: &Host, text: &str) -> Self {
        let list = Self(env::temp_dir().join(format!("{}.filter", host.namespace())));
        list.write(text);
        list
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for List {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// This number of networks of 256 addresses each, starting at `first`.
fn networks(first: Ipv4Addr, count: u32) -> String {
    use std::fmt::Write as _;
    let mut text = "# made by a test\n".to_owned();
    for number in 0..count {
        let network = Ipv4Addr::from(u32::from(first) + (number << 8));
        writeln!(text, "{network}/24").unwrap();
    }
    text
}

/// Sends a claim for each address after `before` frames in total, and returns how many claims were emitted and how
/// many filtered since the start.
fn claim(daemon: &Daemon<'_>, peer: &Host, before: u64, addresses: &[[u8; 4]]) -> (u64, u64) {
    let socket = peer.sender().unwrap();
    for &address in addresses {
        socket.send(&Frame::announcement(OWNER, address)).unwrap();
    }
    let balance = daemon
        .wait_until_processed(before + addresses.len() as u64)
        .unwrap();
    let outcome = |outcome| balance.outcome(FrameKind::Claim, outcome);
    (
        outcome(EmitOutcome::Emitted),
        outcome(EmitOutcome::Filtered),
    )
}

/// Reloads the file and waits for the log line with the result.
fn reload(daemon: &Daemon<'_>, text: &str) -> String {
    daemon.process().hang_up().unwrap();
    daemon
        .process()
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| line.contains(text))
        .unwrap()
}

#[test]
fn only_selected_addresses_are_reported_and_others_are_counted_as_filtered() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let options = [
        "--filter",
        "192.0.2.0/28,198.51.100.7/32",
        "--filter",
        "203.0.113.0/24",
    ];
    let daemon = monitor.ready_daemon(&options).unwrap();
    let selected = [[192, 0, 2, 15], [198, 51, 100, 7], [203, 0, 113, 255]];
    let others = [
        [192, 0, 2, 16],
        [198, 51, 100, 6],
        [203, 0, 112, 255],
        [10, 0, 0, 1],
    ];
    assert_eq!(claim(&daemon, &peer, 0, &selected), (3, 0));
    assert_eq!(claim(&daemon, &peer, 3, &others), (3, 4));

    // A probe is about its target address, a bogus frame about the address that it claims.
    let socket = peer.sender().unwrap();
    for address in [selected[0], others[0]] {
        let probe = Frame::probe(OWNER, address);
        let bogus = Frame::announcement(OWNER, address).sha(MacAddr::ZERO);
        socket.send_all(&[probe, bogus]).unwrap();
    }
    let balance = daemon.wait_until_processed(11).unwrap();
    for kind in [FrameKind::Probe, FrameKind::Bogus] {
        let outcomes =
            [EmitOutcome::Emitted, EmitOutcome::Filtered].map(|what| balance.outcome(kind, what));
        assert_eq!(outcomes, [1, 1], "{kind}");
    }
}

#[test]
fn a_filter_of_many_thousand_networks_is_changed_at_run_time() {
    const MANY: u32 = 10_000;
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let list = List::new(&monitor, &networks([10, 0, 0, 0].into(), MANY));
    let options = ["--filter-file", list.path(), "--refresh", "0s"];
    let daemon = monitor.ready_daemon(&options).unwrap();
    // 10.39.15.0/24 is the last network.
    let first_half = [[10, 0, 0, 1], [10, 39, 15, 255]];
    let second_half = [[11, 0, 0, 1], [11, 39, 15, 255]];
    assert_eq!(claim(&daemon, &peer, 0, &first_half), (2, 0));
    assert_eq!(claim(&daemon, &peer, 2, &second_half), (2, 2));

    // All networks are replaced: old and new together exceed the size of the filter, which must not matter.
    list.write(&networks([11, 0, 0, 0].into(), MANY));
    let line = reload(&daemon, "watch filter reloaded");
    assert!(line.contains("networks=10000"), "{line}");
    assert_eq!(claim(&daemon, &peer, 4, &first_half), (2, 4));
    assert_eq!(claim(&daemon, &peer, 6, &second_half), (4, 4));
}

#[test]
fn an_invalid_file_keeps_the_filter_and_is_logged() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let list = List::new(&monitor, "192.0.2.0/24\n");
    let options = [
        "--filter-file",
        list.path(),
        "--filter-capacity",
        "100",
        "--refresh",
        "0s",
    ];
    let daemon = monitor.ready_daemon(&options).unwrap();
    let mut sent = 0;
    let mut still_filters = || {
        let (emitted, filtered) = claim(&daemon, &peer, sent, &[[192, 0, 2, 1], [10, 0, 0, 1]]);
        sent += 2;
        assert_eq!((emitted, filtered), (sent / 2, sent / 2));
    };
    still_filters();
    for (text, complaint) in [
        ("192.0.2.0/24\n10.0.0.0/33\n", "line 2"),
        ("# nothing\n", "lists no network"),
        (
            networks([10, 0, 0, 0].into(), 101).as_str(),
            "--filter-capacity",
        ),
    ] {
        list.write(text);
        let line = reload(&daemon, complaint);
        assert!(line.contains("keeping the previous ones"), "{line}");
        still_filters();
    }
    fs::remove_file(list.path()).unwrap();
    reload(&daemon, "cannot read the filter");
    still_filters();
}

#[test]
fn too_many_networks_are_refused_with_the_name_of_the_option() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let list = List::new(&monitor, &networks([10, 0, 0, 0].into(), 101));
    let options = ["--filter-file", list.path(), "--filter-capacity", "100"];
    let words = [
        &["run", "-i", "eth0", "--listen", "127.0.0.1:9790"],
        &options[..],
    ]
    .concat();
    let finished = monitor.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4));
    for word in ["101", "100", "--filter-capacity"] {
        assert!(
            finished.stderr.contains(word),
            "{word}: {}",
            finished.stderr
        );
    }
}
