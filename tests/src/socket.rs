//! The daemon's Unix socket and a client that does not use the binary.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::eventually;

/// Timeout for each read of a response.
const DEADLINE: Duration = Duration::from_secs(20);

/// A unique path for the socket of one daemon.
#[derive(Debug)]
pub struct DaemonSocket {
    _directory: TempDir,
    path: PathBuf,
}

impl DaemonSocket {
    /// Creates a temporary directory for the socket. The daemon creates the subdirectory.
    pub fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("probe-test-")?;
        Ok(Self {
            path: directory.path().join("run/probe.sock"),
            _directory: directory,
        })
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the socket as a command line argument.
    pub fn argument(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// Sends a GET request and returns the lines of the response, which are read on demand.
    pub fn get(&self, target: &str) -> Result<impl Iterator<Item = String> + use<>> {
        Ok(self.lines(target)?.map_while(io::Result::ok))
    }

    /// Sends a GET request and returns the records of the response, one JSON value per line.
    pub fn records(&self, target: &str) -> Result<Vec<Value>> {
        self.lines(target)?
            .map(|line| {
                let line = line.with_context(|| format!("{target}: cut off"))?;
                serde_json::from_str(&line).with_context(|| format!("{target}: not JSON: {line}"))
            })
            .collect()
    }

    /// Waits until the daemon is the leader: until then it has no list of drifts.
    pub fn wait_until_leader(&self, within: Duration) -> Result<()> {
        eventually("the daemon to be the leader", within, || {
            Ok(self.records("/v1/drift").ok().map(drop))
        })
        .with_context(|| format!("{:?}", self.records("/v1/drift")))
    }

    /// Sends a GET request and returns the lines of the body.
    fn lines(&self, target: &str) -> Result<impl Iterator<Item = io::Result<String>> + use<>> {
        let mut stream = UnixStream::connect(&self.path).context("cannot connect")?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // HTTP/1.0, so that there are no chunks to join.
        write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().context("no response")??;
        ensure!(status.contains(" 200 "), "{target}: {status}");
        while !lines.next().context("no end of headers")??.is_empty() {}
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixListener, thread};

    use super::*;

    /// The records of a response.
    fn records(response: &'static str) -> Result<Vec<Value>> {
        let socket = DaemonSocket::new()?;
        std::fs::create_dir_all(socket.path().parent().unwrap())?;
        let listener = UnixListener::bind(socket.path())?;
        let server = thread::spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                request.extend(byte);
            }
            stream.write_all(response.as_bytes())
        });
        let records = socket.records("/v1/drift");
        server.join().unwrap()?;
        records
    }

    #[test]
    fn records_are_one_json_value_per_line() {
        let response = "HTTP/1.0 200 OK\r\n\r\n{\"ip\":1}\n{\"ip\":2}\n";
        let expected = [1, 2].map(|ip| serde_json::json!({ "ip": ip }));
        assert_eq!(records(response).unwrap(), expected);
        assert!(records("HTTP/1.0 200 OK\r\n\r\n").unwrap().is_empty());
    }

    #[test]
    fn errors_and_invalid_records_are_no_empty_list() {
        records("HTTP/1.0 503 Service Unavailable\r\n\r\n{}\n").unwrap_err();
        records("HTTP/1.0 200 OK\r\n\r\n{\"ip\":").unwrap_err();
        DaemonSocket::new()
            .unwrap()
            .records("/v1/drift")
            .unwrap_err();
    }
}
