//! VRRP, by keepalived.

use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use super::{directory, write};
use crate::{
    host::{Host, INTERFACE},
    process::{Process, Stream},
};

/// Timeout for an election: a failed master is detected after 3 to 4 s.
const ELECTION_DEADLINE: Duration = Duration::from_secs(30);

/// The MAC address with which a router replies for the group's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterMac {
    /// The MAC address of its interface, keepalived's default.
    Own,
    /// The virtual MAC address of the group (RFC 9568), on a macvlan: `use_vmac`.
    Virtual,
}

/// A router of the VRRP group 51.
#[derive(Clone, Copy, Debug)]
pub struct Router<'a> {
    /// The address that the group shares, with its prefix length.
    pub address: &'a str,
    /// The priority: the router with the highest one is master, with preemption.
    pub priority: u8,
    /// The MAC address of its replies.
    pub mac: RouterMac,
}

/// A keepalived process on a host.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    _files: TempDir,
}

impl Keepalived {
    /// The virtual MAC address of the group.
    pub const VIRTUAL_MAC: &str = "00:00:5e:00:01:33";

    /// Starts keepalived with its default settings, in particular for announcements.
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

    /// Waits until it has become master this many times since its start.
    pub fn wait_for_master(&self, times: usize) -> anyhow::Result<()> {
        self.wait_for_state("MASTER", times)
    }

    /// Waits until it has become backup this many times since its start. Its first state is backup.
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
