//! DHCP: dnsmasq as the server, busybox's udhcpc as the client.

use std::{ffi::OsStr, time::Duration};

use anyhow::Context;
use tempfile::TempDir;

use super::{directory, script};
use crate::{
    host::{Host, INTERFACE},
    process::{Process, Stream},
};

/// Timeout for a lease: the server and the client first check that the address is free.
const LEASE_DEADLINE: Duration = Duration::from_secs(30);

/// Timeout for a start or an exit.
const PROCESS_DEADLINE: Duration = Duration::from_secs(10);

/// A dnsmasq process as DHCP server.
#[derive(Debug)]
pub struct DhcpServer {
    _process: Process,
    _files: TempDir,
}

impl DhcpServer {
    /// Starts a server that leases one address and waits until it is ready.
    pub fn start(host: &Host, address: &str) -> anyhow::Result<Self> {
        let files = directory()?;
        let leases = format!("--dhcp-leasefile={}", files.path().join("leases").display());
        let range = format!("--dhcp-range={address},{address},1h");
        let process = host.spawn([
            "dnsmasq",
            "--no-daemon",
            "--conf-file=/dev/null",
            "--user=root",
            "--port=0",
            "--interface=eth0",
            "--dhcp-authoritative",
            &leases,
            &range,
        ])?;
        process.wait_for_line(Stream::Stderr, PROCESS_DEADLINE, |line| {
            line.contains("DHCP, IP range")
        })?;
        Ok(Self {
            _process: process,
            _files: files,
        })
    }
}

/// A udhcpc process.
#[derive(Debug)]
pub struct DhcpClient {
    process: Process,
    _files: TempDir,
}

impl DhcpClient {
    /// Starts a client, waits for its lease and returns the address.
    pub fn start(host: &Host) -> anyhow::Result<(Self, String)> {
        let files = directory()?;
        let script = script(
            &files,
            "configure",
            "case $1 in
                deconfig) ip address flush dev $interface ;;
                bound)
                    ip address add $ip/$mask dev $interface
                    echo leased $ip ;;
            esac\n",
        )?;
        let process = host.spawn([
            OsStr::new("busybox"),
            "udhcpc".as_ref(),
            "-f".as_ref(),
            // The client checks with an ARP probe that the address is free (-a) and releases it on exit (-R).
            "-a".as_ref(),
            "-R".as_ref(),
            "-i".as_ref(),
            INTERFACE.as_ref(),
            "-s".as_ref(),
            script.as_ref(),
        ])?;
        let address = process.wait_for(Stream::Stdout, LEASE_DEADLINE, |line| {
            line.strip_prefix("leased ").map(str::to_owned)
        })?;
        Ok((
            Self {
                process,
                _files: files,
            },
            address,
        ))
    }

    /// Makes the client release its address and exit.
    pub fn release(mut self) -> anyhow::Result<()> {
        self.process.terminate()?;
        self.process
            .exit_status(PROCESS_DEADLINE)
            .context("udhcpc did not release its address")
            .map(drop)
    }
}
