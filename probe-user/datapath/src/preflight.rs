//! Checks the requirements before the programs are loaded, so that errors have a clear cause.

use std::{path::Path, sync::OnceLock};

use aya::util::KernelVersion;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{KernelError, capabilities};

/// The oldest supported kernel: its verifier accepts the programs.
pub const OLDEST_KERNEL: (u8, u8) = (5, 10);

/// Checks the kernel version and the capabilities.
pub fn check() -> Result<(), KernelError> {
    check_version(KernelVersion::current().ok())?;
    let missing = capabilities::missing();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(KernelError::Permission { missing })
    }
}

fn check_version(version: Option<KernelVersion>) -> Result<(), KernelError> {
    let (major, minor) = OLDEST_KERNEL;
    match version {
        Some(version) if version < KernelVersion::new(major, minor, 0) => {
            Err(KernelError::KernelTooOld {
                found: version.to_string(),
            })
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether the running kernel has this version or a newer one; true if its version cannot be read.
///
/// The version is read once, so that a later error cannot change the mode of attachment.
pub fn kernel_at_least(major: u8, minor: u8) -> bool {
    static CURRENT: OnceLock<Option<KernelVersion>> = OnceLock::new();
    CURRENT
        .get_or_init(|| KernelVersion::current().ok())
        .is_none_or(|version| version >= KernelVersion::new(major, minor, 0))
}

/// The features of a kernel that this program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one kernel"
)]
pub struct KernelFeatures {
    /// Whether the kernel is new enough.
    pub supported: bool,
    /// TCX (6.6); older kernels use clsact filters.
    pub tcx: bool,
    /// XDP programs for frames in several buffers, as jumbo frames require (5.18).
    pub multi_buffer_xdp: bool,
    /// Map memory counts against the control group (5.11), not against `RLIMIT_MEMLOCK`.
    pub cgroup_memory: bool,
    /// Whether the kernel has BTF, which is reported but not required.
    pub btf: bool,
}

impl KernelFeatures {
    /// The features of the running kernel, by its version.
    pub fn current() -> Self {
        Self {
            supported: check_version(KernelVersion::current().ok()).is_ok(),
            tcx: kernel_at_least(6, 6),
            multi_buffer_xdp: kernel_at_least(5, 18),
            cgroup_memory: kernel_at_least(5, 11),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        }
    }
}

/// Raises `RLIMIT_MEMLOCK`, which limits map memory below Linux 5.11 and whose default is far too low. A failure is not
/// fatal: newer kernels account map memory to the cgroup, and older ones report the lack when a map is created.
pub fn raise_memlock_limit() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "cannot raise RLIMIT_MEMLOCK");
    }
}

/// The limit of locked memory for maps, in bytes; `None` from Linux 5.11 on or if it is unlimited.
pub(super) fn locked_memory_limit() -> Option<u64> {
    if kernel_at_least(5, 11) {
        return None;
    }
    getrlimit(Resource::Memlock).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_older_than_the_oldest_is_rejected_with_both_versions() {
        let error = check_version(Some(KernelVersion::new(5, 9, 16)))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "Linux 5.9.16 is too old: probe needs 5.10 or newer");
        for supported in [KernelVersion::new(5, 10, 0), KernelVersion::new(6, 18, 44)] {
            check_version(Some(supported)).unwrap();
        }
    }
}
