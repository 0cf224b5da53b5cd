//! When it cannot work, it says why and what to do, and ends with status 4.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use probe_tests::{Finished, Host, INTERFACE, LISTEN, Lab, Process, binary};

/// "Could not do it."
const REFUSED: i32 = 4;

const SOON: Duration = Duration::from_secs(20);

/// Waits for a refusal, and holds what every one has in common.
fn refusal(process: Process) -> Finished {
    let finished = process.finish(SOON).unwrap();
    assert_eq!(finished.status.code(), Some(REFUSED), "{finished:?}");
    assert_eq!(finished.stdout, "", "findings only");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    finished
}

/// A copy of the binary in a place that everybody may enter; the build directory may be root's alone.
struct PublicCopy(PathBuf);

impl PublicCopy {
    fn new(host: &Host) -> Self {
        let directory = std::env::temp_dir().join(host.namespace());
        fs::create_dir(&directory).unwrap();
        let copy = Self(directory);
        fs::copy(binary().unwrap(), copy.path()).unwrap();
        for path in [&copy.0, &copy.path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        copy
    }

    fn path(&self) -> PathBuf {
        self.0.join("probe")
    }
}

impl Drop for PublicCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_root_it_names_what_is_missing_and_what_to_do() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let copy = PublicCopy::new(&monitor);
    let probe = copy.path();
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
        probe.to_str().unwrap(),
        "run",
        "-i",
        INTERFACE,
    ];
    let finished = refusal(monitor.spawn(words).unwrap());
    for hint in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "sudo"] {
        assert!(
            finished.stderr.contains(hint),
            "{hint}: {}",
            finished.stderr
        );
    }
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let finished = refusal(monitor.probe(&["run", "-i", "eth7"]).unwrap());
    assert!(finished.stderr.contains("eth7"), "{}", finished.stderr);
    assert!(
        finished.stderr.contains(INTERFACE),
        "it names those that there are: {}",
        finished.stderr
    );
}

#[test]
fn another_xdp_program_stays_and_is_named() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let first = monitor.ready_daemon(&[]).unwrap();
    let before = monitor.link().unwrap().xdp_programs();
    let second = [
        "run",
        "-i",
        INTERFACE,
        "--attach",
        "native",
        "--listen",
        "127.0.0.1:9791",
    ];
    let finished = refusal(monitor.probe(&second).unwrap());
    assert!(finished.stderr.contains("arp_xdp"), "{}", finished.stderr);
    assert_eq!(monitor.link().unwrap().xdp_programs(), before);
    assert_eq!(first.get("/readyz").unwrap().status, 200);
}

#[test]
fn a_port_in_use_is_named_and_nothing_stays_attached() {
    let lab = Lab::new().unwrap();
    let [monitor, _wire] = lab.pair("monitor", "wire").unwrap();
    let _holder = monitor.enter(|| Ok(TcpListener::bind(LISTEN)?)).unwrap();
    let listen = LISTEN.to_string();
    let words = ["run", "-i", INTERFACE, "--listen", &listen];
    let finished = refusal(monitor.probe(&words).unwrap());
    assert!(finished.stderr.contains(&listen), "{}", finished.stderr);
    assert!(finished.stderr.contains("--listen"), "{}", finished.stderr);
    assert!(monitor.link().unwrap().xdp_programs().is_empty());
}
