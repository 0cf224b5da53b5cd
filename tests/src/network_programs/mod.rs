//! Programs that use the network in scenarios: real ones from Debian packages, and simulated hosts that send the
//! frames of programs which are not packaged.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::TempDir;

mod device_tracking;
mod dhcp;
mod keepalived;
mod kube_vip;
mod metallb;
mod simulated_host;
mod ucarp;

pub use device_tracking::DeviceTracking;
pub use dhcp::{DhcpClient, DhcpServer};
pub use keepalived::{Keepalived, Router, RouterMac};
pub use kube_vip::KubeVip;
pub use metallb::MetalLbSpeaker;
pub use ucarp::Ucarp;

/// Creates a directory for the files of one program; it is removed on drop.
fn directory() -> anyhow::Result<TempDir> {
    TempDir::with_prefix("probe-test-").context("cannot create a directory")
}

/// Writes a file.
fn write(directory: &TempDir, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = directory.path().join(name);
    fs::write(&path, text).with_context(|| cannot_write(&path))?;
    Ok(path)
}

/// Writes a shell script.
fn script(directory: &TempDir, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = write(directory, name, &format!("#!/bin/sh\nset -eu\n{text}"))?;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755))
        .with_context(|| cannot_write(&path))?;
    Ok(path)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
