//! The daemon's Unix socket, spoken to without the binary.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// For each piece of an answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A place for the socket of one daemon.
#[derive(Debug)]
pub struct SocketPlace {
    _directory: TempDir,
    path: PathBuf,
}

impl SocketPlace {
    /// A place that nobody else has. Its directory is the daemon's to make.
    pub fn new() -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("probe-test-")?;
        Ok(Self {
            path: directory.path().join("run/probe.sock"),
            _directory: directory,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is, as a word of a command line.
    pub fn word(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// Asks for something and gives the lines of the answer as they are read: nothing is read before.
    pub fn get(&self, target: &str) -> anyhow::Result<impl Iterator<Item = String> + use<>> {
        let mut stream = UnixStream::connect(&self.path).context("cannot connect")?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // Version 1.0, so that there are no chunks to join.
        write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let status = lines.next().context("no answer")?;
        ensure!(status.contains(" 200 "), "{target} answered {status}");
        ensure!(lines.any(|line| line.is_empty()), "no end of headers");
        Ok(lines)
    }
}
