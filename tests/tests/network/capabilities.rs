//! The capabilities that the daemon needs; it keeps no others.

use std::time::Duration;

use probe_tests::{Frame, INTERFACE, Lab};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Name for setpriv(1), and number (`include/uapi/linux/capability.h`).
const NEEDED: [(&str, u32); 3] = [("net_admin", 12), ("perfmon", 38), ("bpf", 39)];

const OPTIONS: [&str; 4] = ["-i", INTERFACE, "--attach", "native"];

/// The additional capability for active probing.
const NET_RAW: (&str, u32) = ("net_raw", 13);

/// Exactly these capabilities in the format of `/proc`.
fn mask(capabilities: &[(&str, u32)]) -> String {
    let mask: u64 = capabilities.iter().map(|(_, number)| 1 << number).sum();
    format!("{mask:016x}")
}

/// Exactly the needed capabilities in the format of `/proc`.
fn needed_mask() -> String {
    mask(&NEEDED)
}

/// A wrapper that leaves user 0 only these capabilities, as a container runtime does.
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
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let with_probing = [&NEEDED[..], &[NET_RAW]].concat();
    for (confirm, capabilities) in [("off", &NEEDED[..]), ("auto", &with_probing)] {
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
                assert_eq!(
                    thread,
                    mask(capabilities),
                    "{set} with --active-probing {confirm}"
                );
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
fn without_the_capability_for_probing_the_daemon_is_passive_and_logs_it_once() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
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
fn the_needed_capabilities_suffice_in_every_mode() {
    let lab = Lab::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let wrapper = only(NEEDED.map(|(name, _)| name));
    for attach in ["native", "tc", "generic"] {
        let options = ["-i", INTERFACE, "--attach", attach];
        let daemon = monitor.daemon_under(&as_words(&wrapper), &options).unwrap();
        daemon.wait_until_ready().unwrap();
        let frame = Frame::announcement(peer.mac(), [192, 0, 2, 1]);
        peer.sender().unwrap().send(&frame).unwrap();
        assert_eq!(
            daemon.wait_until_processed(1).unwrap().claims,
            1,
            "{attach}"
        );
        let bounding = daemon.process().threads("CapBnd").unwrap();
        assert!(bounding.iter().all(|mask| *mask == needed_mask()));
    }
}

#[test]
fn each_missing_capability_is_named() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    for (missing, _) in NEEDED {
        let others = NEEDED
            .map(|(name, _)| name)
            .into_iter()
            .filter(|&name| name != missing);
        let words = [&["run", "--listen", "127.0.0.1:9790"], &OPTIONS[..]].concat();
        let process = monitor
            .probe_under(&as_words(&only(others)), &words)
            .unwrap();
        let finished = process.finish(TIMEOUT).unwrap();
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        let complaint = format!("this process lacks CAP_{}\n", missing.to_uppercase());
        assert!(finished.stderr.contains(&complaint), "{}", finished.stderr);
    }
}
