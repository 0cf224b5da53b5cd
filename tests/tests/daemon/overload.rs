//! The cost of clients, log readers and full disks to the daemon: bounded memory and time, without effect on
//! detection.

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::TcpStream,
    os::unix::{
        fs::{FileTypeExt as _, OpenOptionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use probe_tests::{Daemon, DaemonSocket, Frame, Host, INTERFACE, LISTEN, Lab, Stream, eventually};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest duration of a shutdown, with a second for the machine.
const SHUTDOWN: Duration = Duration::from_secs(6);

fn options(daemon_socket: &DaemonSocket) -> Vec<&str> {
    vec![
        "-i",
        INTERFACE,
        "--attach",
        "tc",
        "--socket",
        daemon_socket.argument(),
    ]
}

fn open_conflicts(daemon: &Daemon) -> f64 {
    let metrics = daemon.metrics().unwrap();
    metrics.get("arp_monitor_open_conflicts", &[]).unwrap()
}

#[test]
fn half_open_connections_do_not_detach_the_programs() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon = hosts
        .client
        .daemon_under(&["prlimit", "--nofile=600:600"], &options(&daemon_socket))
        .unwrap();
    daemon.wait_until_ready().unwrap();
    let connections: Vec<_> = hosts
        .client
        .enter(|| {
            let connect = |_| TcpStream::connect_timeout(&LISTEN, Duration::from_secs(1));
            Ok((0..700).map(connect).collect())
        })
        .unwrap();
    // A period and not a wait: attachments are checked every two seconds.
    thread::sleep(Duration::from_secs(5));
    hosts.resolve().unwrap();
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    drop(connections);
    daemon.wait_until_ready().unwrap();
    let messages = daemon.process().lines(Stream::Stderr).join("\n");
    assert!(
        !messages.contains("attaching the programs again"),
        "{messages}"
    );
    let labels = [("server", "metrics"), ("reason", "per_peer")];
    eventually("more than 600 refused connections", TIMEOUT, || {
        // The first scrapes may be refused, too.
        let Ok(metrics) = daemon.metrics() else {
            return Ok(None);
        };
        let refused = metrics.count("arp_monitor_connections_refused_total", &labels)?;
        Ok((refused > 600).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_descriptor_limit_that_clients_could_exhaust_is_refused() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let wrapper = ["prlimit", "--nofile=256:256"];
    let daemon = monitor.daemon_under(&wrapper, &["-i", INTERFACE]).unwrap();
    let finished = daemon.ended(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    assert!(finished.stderr.contains("LimitNOFILE="), "{finished:?}");
}

/// A full pipe that is never read.
fn full_pipe(directory: &Path) -> (PathBuf, std::fs::File) {
    const O_NONBLOCK: i32 = 0o4000;
    let path = directory.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let mut pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_NONBLOCK)
        .open(&path)
        .unwrap();
    assert!(pipe.metadata().unwrap().file_type().is_fifo());
    while pipe.write(&[b'x'; 4096]).is_ok() {}
    while pipe.write(b"x").is_ok() {}
    (path, pipe)
}

fn with_blocked<'a>(
    host: &'a Host,
    daemon_socket: &DaemonSocket,
    stream: &str,
    pipe: &Path,
) -> Daemon<'a> {
    let script = format!("exec \"$@\" {stream}>{}", pipe.display());
    host.daemon_under(&["sh", "-c", &script, "sh"], &options(daemon_socket))
        .unwrap()
}

#[test]
fn a_blocked_log_stops_neither_detection_nor_shutdown() {
    for stream in ["2", "1"] {
        let directory = TempDir::new().unwrap();
        let (path, _pipe) = full_pipe(directory.path());
        let lab = Lab::new().unwrap();
        let daemon_socket = DaemonSocket::new().unwrap();
        let hosts = lab.three_hosts().unwrap();
        let daemon = with_blocked(&hosts.client, &daemon_socket, stream, &path);
        daemon.wait_until_ready().unwrap();
        hosts.resolve().unwrap();
        eventually("the conflict to be found", TIMEOUT, || {
            Ok((open_conflicts(&daemon) > 0.0).then_some(()))
        })
        .unwrap();
        eventually("the blocked stream to be reported", TIMEOUT, || {
            let health = daemon.get("/readyz")?;
            let name = if stream == "1" {
                "log/stdout"
            } else {
                "log/stderr"
            };
            let seen = health.body.contains(&format!("{name}: degraded"));
            Ok((health.status == 200 && seen).then_some(()))
        })
        .unwrap();
        let before = Instant::now();
        let status = daemon.terminate().unwrap();
        assert!(before.elapsed() < SHUTDOWN, "{:?}", before.elapsed());
        assert_eq!(status.code(), Some(0), "stream {stream}");
    }
}

#[test]
fn a_capture_on_a_full_disk_ends_watch_with_the_reason() {
    let lab = Lab::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let watch = monitor.watch(&["--write", "/dev/full"]).unwrap();
    let finished = watch.finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    assert!(
        finished.stderr.contains("cannot write /dev/full"),
        "{finished:?}"
    );
}

/// A client that has sent a request and never reads.
fn silent_client(daemon_socket: &DaemonSocket, target: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon_socket.path()).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

fn fill_the_table(daemon: &Daemon, peer: &Host, addresses: u32) {
    const CHUNK: u32 = 1_000;
    let socket = peer.sender().unwrap();
    for chunk in 0..addresses / CHUNK {
        let frames: Vec<_> = (0..CHUNK)
            .map(|number| {
                let [.., high, low] = (chunk * CHUNK + number).to_be_bytes();
                Frame::announcement(peer.mac(), [10, 7, high, low])
            })
            .collect();
        socket.send_all(&frames).unwrap();
        let sent = f64::from((chunk + 1) * CHUNK);
        daemon
            .wait_for_metrics("the claims to be processed", TIMEOUT, |metrics| {
                Ok(metrics.get("arp_monitor_bindings", &[]) >= Some(sent * 0.9))
            })
            .unwrap();
    }
}

#[test]
fn clients_that_do_not_read_are_limited_in_number_and_memory() {
    const CLIENTS: usize = 20;
    const PER_CLIENT: f64 = 1.0;
    const MIB: f64 = 1_048_576.0;
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_bare_daemon(&options(&daemon_socket)).unwrap();
    fill_the_table(&daemon, &peer, 30_000);
    let memory = || {
        let metrics = daemon.metrics().unwrap();
        metrics.get("process_resident_memory_bytes", &[]).unwrap() / MIB
    };
    // The first scrape of a full table and the first list allocate their memory once.
    let list = |words: &[&str]| {
        let words = [words, &["--socket", daemon_socket.argument()]].concat();
        monitor.probe(&words).unwrap().finish(TIMEOUT).unwrap()
    };
    let bindings = list(&["bindings", "-o", "json"]).success().unwrap();
    assert!(bindings.lines().count() >= 27_000);
    let before = memory();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| silent_client(&daemon_socket, "/v1/bindings"))
        .collect();
    // A period and not a wait: the daemon would generate the whole response within it.
    thread::sleep(Duration::from_secs(3));
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let allowed = CLIENTS as f64 * PER_CLIENT;
    let grown = memory() - before;
    assert!(grown < allowed, "{CLIENTS} clients took {grown} MiB");

    while clients.len() < 64 {
        clients.push(silent_client(&daemon_socket, "/v1/findings"));
    }
    eventually("the client above the limit to be refused", TIMEOUT, || {
        let refused = list(&["interfaces"]);
        let is_refused = refused.status.code() == Some(4)
            && refused.stderr.contains("64 clients are already connected");
        Ok(is_refused.then_some(()))
    })
    .unwrap();
    drop(clients);
    eventually("a client to be served again", TIMEOUT, || {
        Ok((list(&["interfaces"]).status.code() == Some(0)).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_subcommand_reports_that_the_daemon_does_not_reply_or_has_ended() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let daemon = monitor.ready_bare_daemon(&options(&daemon_socket)).unwrap();
    daemon.process().pause().unwrap();
    let words = ["interfaces", "--socket", daemon_socket.argument()];
    let finished = monitor.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    assert!(finished.stderr.contains("has not replied"), "{finished:?}");
    daemon.process().resume().unwrap();
    let watch = monitor
        .watch(&["--socket", daemon_socket.argument()])
        .unwrap();
    daemon.kill().unwrap();
    let finished = watch.finish(TIMEOUT).unwrap();
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    assert!(finished.stderr.contains(" ended"), "{finished:?}");
}

#[test]
fn a_removed_socket_file_is_created_again() {
    let lab = Lab::new().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let [monitor, _peer] = lab.pair("monitor", "peer").unwrap();
    let _daemon = monitor.ready_bare_daemon(&options(&daemon_socket)).unwrap();
    std::fs::remove_file(daemon_socket.path()).unwrap();
    eventually("the socket file", TIMEOUT, || {
        Ok(daemon_socket.path().exists().then_some(()))
    })
    .unwrap();
    let words = ["interfaces", "--socket", daemon_socket.argument()];
    let finished = monitor.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    finished.success().unwrap();
}
