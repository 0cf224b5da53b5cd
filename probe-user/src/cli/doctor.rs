//! `probe doctor`: checks whether and how this host can be watched. It changes nothing; facts that an unprivileged
//! process cannot read are shown as unknown.

use std::{fs, io::Write as _};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use probe_common::event_filter::FilterSettings;
use probe_datapath::{
    Kernel, LoadOptions, capabilities, interfaces, interfaces::InterfaceSelection,
    preflight::KernelFeatures,
};
use probe_network::links;
use rustix::{
    process::{Resource, getrlimit, getuid},
    system::uname,
};

use super::{
    Exit,
    session::{block_on, init_logging},
};
use crate::doctor::{DoctorReport, HostEnvironment, InterfaceEnvironment, ProcessStatus};

#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = DoctorOutput::Human)]
    output: DoctorOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DoctorOutput {
    /// Text for people
    Human,
    /// One JSON object
    Json,
}

pub fn run(arguments: &DoctorArguments) -> anyhow::Result<Exit> {
    init_logging("error");
    let report = DoctorReport::new(block_on(async { Ok(read_environment().await) })?);
    let mut out = std::io::stdout().lock();
    let written = match arguments.output {
        DoctorOutput::Human => report.write(&mut out),
        DoctorOutput::Json => serde_json::to_string(&report)
            .map_err(Into::into)
            .and_then(|line| writeln!(out, "{line}")),
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write the report");
        }
        _ => {}
    }
    Ok(if report.fit {
        Exit::Success
    } else {
        Exit::Failed
    })
}

/// The report for `probe doctor` and for bundles.
pub async fn report() -> DoctorReport {
    DoctorReport::new(read_environment().await)
}

async fn read_environment() -> HostEnvironment {
    let system = uname();
    let process = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (interfaces, interfaces_error) = match list().await {
        Ok(interfaces) => (interfaces, None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    HostEnvironment {
        version: env!("CARGO_PKG_VERSION"),
        kernel: system.release().to_string_lossy().into_owned(),
        architecture: system.machine().to_string_lossy().into_owned(),
        features: KernelFeatures::current(),
        uid: getuid().as_raw(),
        process: ProcessStatus::parse(&process),
        initial_user_namespace: text("/proc/self/uid_map").map(|map| is_identity(&map)),
        missing_capabilities: capabilities::missing()
            .into_iter()
            .map(|need| need.capability.to_string())
            .collect(),
        lockdown: text("/sys/kernel/security/lockdown"),
        bpf_jit: text("/proc/sys/net/core/bpf_jit_enable"),
        memlock_bytes: getrlimit(Resource::Memlock).current,
        load_error: load().err().map(|error| format!("{error:#}")),
        interfaces,
        interfaces_error,
    }
}

/// The content of a small file, if it can be read.
fn text(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Whether a UID map is the identity map of the initial user namespace (`user_namespaces(7)`).
fn is_identity(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Loads the BPF programs as a test, and unloads them.
fn load() -> anyhow::Result<()> {
    let options = LoadOptions {
        ring_memory: 0,
        addresses: 256,
        filter_entries: 1,
    };
    let (mut kernel, _rings) = Kernel::load(&options, &FilterSettings::default())?;
    kernel.verify()?;
    Ok(())
}

async fn list() -> anyhow::Result<Vec<InterfaceEnvironment>> {
    let links = links::watch_links().await?.borrow().clone();
    let by_default: Vec<_> = InterfaceSelection::default()
        .select(&links)
        .into_iter()
        .map(|link| link.index)
        .collect();
    let mut list = Vec::new();
    for link in links.iter() {
        let environment = interfaces::link_environment(link, &links).await;
        let interface = InterfaceEnvironment {
            name: link.name.clone(),
            index: link.index,
            kind: environment.kind.clone(),
            driver: environment.driver.clone(),
            mtu: link.mtu,
            up: link.up,
            ethernet: link.ethernet,
            offloads_known: environment.offloads_known,
            rx_vlan_offload: environment.strips_vlan_tags,
            rx_vlan_filter: environment.filters_vlans,
            vlans_in_use: environment.has_vlans,
            xdp_program: link.xdp_program,
            watched_by_default: by_default.contains(&link.index),
            mode: None,
            reason: None,
        };
        list.push(interface.with_plan(&environment));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_identity_map_is_the_initial_user_namespace() {
        assert!(is_identity("         0          0 4294967295"));
        assert!(!is_identity("         0       1000          1"));
        assert!(!is_identity(""));
    }
}
