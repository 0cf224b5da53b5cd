//! CARP, by ucarp.

use std::{ffi::OsStr, time::Duration};

use tempfile::TempDir;

use super::{directory, script};
use crate::{
    host::{Host, INTERFACE},
    process::{Process, Stream},
};

/// Timeout for an election: a failed master is detected after 3 to 4 s.
const ELECTION_DEADLINE: Duration = Duration::from_secs(30);

/// A ucarp process on a host, in group 51.
#[derive(Debug)]
pub struct Ucarp {
    process: Process,
    _files: TempDir,
}

impl Ucarp {
    /// Starts ucarp. `own` and `shared` are addresses without prefix length; the host with the lowest `skew`
    /// becomes master.
    pub fn start(host: &Host, own: &str, shared: &str, skew: u8) -> anyhow::Result<Self> {
        let files = directory()?;
        let change = |verb| format!("exec ip address {verb} {shared}/24 dev {INTERFACE}\n");
        let up = script(&files, "up", &change("add"))?;
        let down = script(&files, "down", &change("del"))?;
        let skew = skew.to_string();
        let process = host.spawn([
            OsStr::new("ucarp"),
            "--interface".as_ref(),
            INTERFACE.as_ref(),
            "--srcip".as_ref(),
            own.as_ref(),
            "--vhid".as_ref(),
            "51".as_ref(),
            "--pass".as_ref(),
            "lab".as_ref(),
            "--addr".as_ref(),
            shared.as_ref(),
            "--advskew".as_ref(),
            skew.as_ref(),
            "--upscript".as_ref(),
            up.as_ref(),
            "--downscript".as_ref(),
            down.as_ref(),
        ])?;
        Ok(Self {
            process,
            _files: files,
        })
    }

    /// Waits until it has become master.
    pub fn wait_for_master(&self) -> anyhow::Result<()> {
        self.process
            .wait_for_line(Stream::Stderr, ELECTION_DEADLINE, |line| {
                line.contains("Switching to state: MASTER")
            })
            .map(drop)
    }
}
