//! The daemon's Unix socket and a client that does not use the binary.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

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
    pub fn new() -> anyhow::Result<Self> {
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
    pub fn get(&self, target: &str) -> anyhow::Result<impl Iterator<Item = String> + use<>> {
        let mut stream = UnixStream::connect(&self.path).context("cannot connect")?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // HTTP/1.0, so that there are no chunks to join.
        write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let status = lines.next().context("no response")?;
        ensure!(status.contains(" 200 "), "{target}: {status}");
        ensure!(lines.any(|line| line.is_empty()), "no end of headers");
        Ok(lines)
    }
}
