//! Which capabilities it takes, and that it keeps no others.

use std::time::Duration;

use probe_tests::{Frame, INTERFACE, Lab};

const SOON: Duration = Duration::from_secs(20);

/// Name for setpriv(1), and number (`include/uapi/linux/capability.h`).
const NEEDED: [(&str, u32); 3] = [("net_admin", 12), ("perfmon", 38), ("bpf", 39)];

const OPTIONS: [&str; 4] = ["-i", INTERFACE, "--attach", "native"];

/// What asking takes beside them.
const ASKING: (&str, u32) = ("net_raw", 13);

/// As `/proc` writes exactly these capabilities.
fn mask(capabilities: &[(&str, u32)]) -> String {
    let mask: u64 = capabilities.iter().map(|(_, number)| 1 << number).sum();
    format!("{mask:016x}")
}

/// As `/proc` writes exactly the needed capabilities.
fn needed_mask() -> String {
    mask(&NEEDED)
}

/// A wrapper that leaves user 0 these capabilities and no others, as a container runtime does.
fn only(names: impl IntoIterator<Item = &'static str>) -> Vec<String> {
    let mut bounding = "--bounding-set=-all".to_owned();
    for name in names {
        bounding.push_str(",+");
        bounding.push_str(name);
    }
    vec!["setpriv".to_owned(), bounding, "--".to_owned()]
}

fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn after_start_every_thread_has_the_needed_capabilities_and_no_others() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let asking = [&NEEDED[..], &[ASKING]].concat();
    for (confirm, kept) in [("off", &NEEDED[..]), ("auto", &asking)] {
        let daemon = monitor
            .ready_daemon(&["--active-probing", confirm])
            .unwrap();
        // A scrape is encoded on a thread that is started for it.
        daemon.metrics().unwrap();
        let process = daemon.process();
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let threads = process.threads(set).unwrap();
            assert!(threads.len() > 2, "{threads:?}");
            for thread in threads {
                assert_eq!(thread, mask(kept), "{set} with --active-probing {confirm}");
            }
        }
        for set in ["CapInh", "CapAmb"] {
            for mask in process.threads(set).unwrap() {
                assert_eq!(u64::from_str_radix(&mask, 16).unwrap(), 0, "{set}");
            }
        }
    }
}

#[test]
fn without_the_capability_for_asking_it_only_listens_and_says_so_once() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let wrapper = only(NEEDED.map(|(name, _)| name));
    let options = [&OPTIONS[..], &["--active-probing", "auto"]].concat();
    let daemon = monitor.daemon_under(&as_words(&wrapper), &options).unwrap();
    daemon.wait_until_ready().unwrap();
    let metrics = daemon.metrics().unwrap();
    for (state, value) in [("on", 0.0), ("off", 0.0), ("not_permitted", 1.0)] {
        let gauge = metrics.get("arp_monitor_active_probing", &[("state", state)]);
        assert_eq!(gauge, Some(value), "{state}");
    }
    let finished = daemon.finish().unwrap();
    let about_it = finished
        .stderr
        .lines()
        .filter(|line| line.contains("CAP_NET_RAW"));
    assert_eq!(about_it.count(), 1, "{finished:?}");
}

#[test]
fn with_exactly_the_needed_capabilities_it_attaches_and_counts_in_every_mode() {
    let lab = Lab::new().unwrap();
    let [monitor, wire] = lab.pair("monitor", "wire").unwrap();
    let wrapper = only(NEEDED.map(|(name, _)| name));
    for attach in ["native", "tc", "generic"] {
        let options = ["-i", INTERFACE, "--attach", attach];
        let daemon = monitor.daemon_under(&as_words(&wrapper), &options).unwrap();
        daemon.wait_until_ready().unwrap();
        let frame = Frame::announcement(wire.mac(), [192, 0, 2, 1]);
        wire.sender().unwrap().send(&frame).unwrap();
        assert_eq!(daemon.wait_until_digested(1).unwrap().claims, 1, "{attach}");
        let bounding = daemon.process().threads("CapBnd").unwrap();
        assert!(bounding.iter().all(|mask| *mask == needed_mask()));
    }
}

#[test]
fn each_capability_that_is_missing_is_named() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    for (missing, _) in NEEDED {
        let others = NEEDED
            .map(|(name, _)| name)
            .into_iter()
            .filter(|&name| name != missing);
        let words = [&["run", "--listen", "127.0.0.1:9790"], &OPTIONS[..]].concat();
        let process = monitor
            .probe_under(&as_words(&only(others)), &words)
            .unwrap();
        let finished = process.finish(SOON).unwrap();
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        let complaint = format!("this process lacks CAP_{}\n", missing.to_uppercase());
        assert!(finished.stderr.contains(&complaint), "{}", finished.stderr);
    }
}
