//! VRRP, by keepalived.

use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use super::{directory, write};
use crate::{
    host::{Host, INTERFACE},
    process::{Process, Stream},
};

/// For an election: the master's silence is noticed after 3 to 4 s.
const ELECTION_DEADLINE: Duration = Duration::from_secs(30);

/// How a router answers for the group's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterMac {
    /// With the MAC of its network card, as keepalived does by default.
    Own,
    /// With the group's virtual MAC (RFC 9568), on a macvlan: `use_vmac`.
    Virtual,
}

/// One router of a group. All groups here have the number 51.
#[derive(Clone, Copy, Debug)]
pub struct Router<'a> {
    /// The address that the group shares, with its prefix length.
    pub address: &'a str,
    /// The highest priority wins, also when it comes back.
    pub priority: u8,
    /// How it answers for the address.
    pub mac: RouterMac,
}

/// keepalived on a host.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    _files: TempDir,
}

impl Keepalived {
    /// The virtual MAC of the group.
    pub const VIRTUAL_MAC: &str = "00:00:5e:00:01:33";

    /// Starts it. Everything that is not said here is keepalived's default, the announcements above all.
    pub fn start(host: &Host, router: Router) -> anyhow::Result<Self> {
        let Router {
            address, priority, ..
        } = router;
        let use_vmac = match router.mac {
            RouterMac::Own => "",
            RouterMac::Virtual => "use_vmac",
        };
        let files = directory()?;
        let configuration = write(
            &files,
            "keepalived.conf",
            &format!(
                "vrrp_instance group {{
                    state BACKUP
                    interface {INTERFACE}
                    virtual_router_id 51
                    priority {priority}
                    {use_vmac}
                    virtual_ipaddress {{
                        {address}
                    }}
                }}
                "
            ),
        )?;
        let [pid, vrrp_pid] = ["keepalived.pid", "vrrp.pid"].map(|name| files.path().join(name));
        let words = [
            "keepalived",
            "--dont-fork",
            "--vrrp",
            "--log-console",
            "--log-detail",
        ];
        let process = host
            .spawn(
                words
                    .map(AsRef::as_ref)
                    .into_iter()
                    .chain(["--use-file".as_ref(), configuration.as_os_str()])
                    .chain(["--pid".as_ref(), pid.as_os_str()])
                    .chain(["--vrrp_pid".as_ref(), vrrp_pid.as_os_str()]),
            )
            .context("keepalived")?;
        Ok(Self {
            process,
            _files: files,
        })
    }

    /// Waits until it has become master so often since it was started.
    pub fn wait_for_master(&self, times: usize) -> anyhow::Result<()> {
        self.wait_for_state("MASTER", times)
    }

    /// Waits until it has become backup so often since it was started. It starts as one.
    pub fn wait_for_backup(&self, times: usize) -> anyhow::Result<()> {
        self.wait_for_state("BACKUP", times)
    }

    fn wait_for_state(&self, state: &str, times: usize) -> anyhow::Result<()> {
        let wanted = format!("Entering {state} STATE");
        let mut seen = 0;
        self.process
            .wait_for(Stream::Stderr, ELECTION_DEADLINE, |line| {
                seen += usize::from(line.contains(&wanted));
                (seen >= times).then_some(())
            })
    }
}
