//! Watching only some addresses, many thousand networks of them, and changing one's mind while it runs.

use std::{env, fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use probe_common::{
    counter::Outcome,
    wire::{Kind, MacAddr},
};
use probe_tests::{Daemon, Frame, Host, Lab, Stream};

const SOON: Duration = Duration::from_secs(20);
const OWNER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);

/// A file with networks, which goes with its test.
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

/// So many networks of 256 addresses each, from `first` on.
fn networks(first: Ipv4Addr, count: u32) -> String {
    use std::fmt::Write as _;
    let mut text = "# made by a test\n".to_owned();
    for number in 0..count {
        let network = Ipv4Addr::from(u32::from(first) + (number << 8));
        writeln!(text, "{network}/24").unwrap();
    }
    text
}

/// Sends a claim on each address, of which there were `before`, and returns how many claims were emitted and
/// how many filtered since the start.
fn claim(daemon: &Daemon<'_>, wire: &Host, before: u64, addresses: &[[u8; 4]]) -> (u64, u64) {
    let socket = wire.sender().unwrap();
    for &address in addresses {
        socket.send(&Frame::announcement(OWNER, address)).unwrap();
    }
    let ledger = daemon
        .wait_until_digested(before + addresses.len() as u64)
        .unwrap();
    let outcome = |outcome| ledger.outcome(Kind::Claim, outcome);
    (outcome(Outcome::Emitted), outcome(Outcome::Filtered))
}

/// Has the file read again, and waits for the line that says how that went.
fn reload(daemon: &Daemon<'_>, says: &str) -> String {
    daemon.process().hang_up().unwrap();
    daemon
        .process()
        .wait_for_line(Stream::Stderr, SOON, |line| line.contains(says))
        .unwrap()
}

#[test]
fn only_the_addresses_asked_for_are_reported_and_all_others_are_counted_as_filtered() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let options = [
        "--filter",
        "192.0.2.0/28,198.51.100.7/32",
        "--filter",
        "203.0.113.0/24",
    ];
    let daemon = monitor.ready_daemon(&options).unwrap();
    let asked_for = [[192, 0, 2, 15], [198, 51, 100, 7], [203, 0, 113, 255]];
    let others = [
        [192, 0, 2, 16],
        [198, 51, 100, 6],
        [203, 0, 112, 255],
        [10, 0, 0, 1],
    ];
    assert_eq!(claim(&daemon, &wire, 0, &asked_for), (3, 0));
    assert_eq!(claim(&daemon, &wire, 3, &others), (3, 4));

    // A probe is about the address that it asks for, a bogus frame about the one it pretends to have.
    let socket = wire.sender().unwrap();
    for address in [asked_for[0], others[0]] {
        let probe = Frame::probe(OWNER, address);
        let bogus = Frame::announcement(OWNER, address).sha(MacAddr::ZERO);
        socket.send_all(&[probe, bogus]).unwrap();
    }
    let ledger = daemon.wait_until_digested(11).unwrap();
    for kind in [Kind::Probe, Kind::Bogus] {
        let outcomes = [Outcome::Emitted, Outcome::Filtered].map(|what| ledger.outcome(kind, what));
        assert_eq!(outcomes, [1, 1], "{kind}");
    }
}

#[test]
fn a_filter_of_many_thousand_networks_is_changed_while_it_runs() {
    const MANY: u32 = 10_000;
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let list = List::new(&monitor, &networks([10, 0, 0, 0].into(), MANY));
    let options = ["--filter-file", list.path(), "--refresh", "0s"];
    let daemon = monitor.ready_daemon(&options).unwrap();
    // 10.39.15.0/24 is the last of them.
    let first_half = [[10, 0, 0, 1], [10, 39, 15, 255]];
    let second_half = [[11, 0, 0, 1], [11, 39, 15, 255]];
    assert_eq!(claim(&daemon, &wire, 0, &first_half), (2, 0));
    assert_eq!(claim(&daemon, &wire, 2, &second_half), (2, 2));

    // All of them others: old and new together are more than the filter has room for, which matters to
    // nobody.
    list.write(&networks([11, 0, 0, 0].into(), MANY));
    let line = reload(&daemon, "was read again");
    assert!(line.contains("networks=10000"), "{line}");
    assert_eq!(claim(&daemon, &wire, 4, &first_half), (2, 4));
    assert_eq!(claim(&daemon, &wire, 6, &second_half), (4, 4));
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_filter_as_it_was_and_says_so() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
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
        let (emitted, filtered) = claim(&daemon, &wire, sent, &[[192, 0, 2, 1], [10, 0, 0, 1]]);
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
        assert!(line.contains("stays as it was"), "{line}");
        still_filters();
    }
    fs::remove_file(list.path()).unwrap();
    reload(&daemon, "cannot read the filter");
    still_filters();
}

#[test]
fn too_many_networks_are_refused_at_start_with_the_option_to_raise() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let list = List::new(&monitor, &networks([10, 0, 0, 0].into(), 101));
    let options = ["--filter-file", list.path(), "--filter-capacity", "100"];
    let words = [
        &["run", "-i", "eth0", "--listen", "127.0.0.1:9790"],
        &options[..],
    ]
    .concat();
    let finished = monitor.probe(&words).unwrap().finish(SOON).unwrap();
    assert_eq!(finished.status.code(), Some(4));
    for word in ["101", "100", "--filter-capacity"] {
        assert!(
            finished.stderr.contains(word),
            "{word}: {}",
            finished.stderr
        );
    }
}
