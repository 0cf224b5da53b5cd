//! What has to be true before the kernel is asked for anything, so that a refusal names its cause.

use std::{path::Path, sync::OnceLock};

use aya::util::KernelVersion;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{KernelError, capabilities};

/// The oldest kernel whose verifier takes the programs.
pub const OLDEST_KERNEL: (u8, u8) = (5, 10);

/// Checks kernel version and capabilities.
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

/// Whether the running kernel is this version or newer; a version that cannot be read counts as new.
///
/// Read once: no later error may change how programs are attached.
pub fn kernel_at_least(major: u8, minor: u8) -> bool {
    static CURRENT: OnceLock<Option<KernelVersion>> = OnceLock::new();
    CURRENT
        .get_or_init(|| KernelVersion::current().ok())
        .is_none_or(|version| version >= KernelVersion::new(major, minor, 0))
}

/// What the running kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one kernel"
)]
pub struct KernelFeatures {
    /// Whether it is new enough.
    pub supported: bool,
    /// TC programs in an order (6.6); below, clsact filters.
    pub tcx: bool,
    /// XDP on jumbo frames (5.18).
    pub multi_buffer_xdp: bool,
    /// Map memory counts against the control group (5.11), not against `RLIMIT_MEMLOCK`.
    pub cgroup_memory: bool,
    /// Whether it describes its types; reported, never required.
    pub btf: bool,
}

impl KernelFeatures {
    /// Those of the running kernel, by its version.
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

/// Below 5.11 map memory counts against `RLIMIT_MEMLOCK`, whose default is far too small. Not fatal: newer
/// kernels account to the cgroup, and where an older one lacks the room it says so when a map is made.
pub fn raise_memlock_limit() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is");
    }
}

/// The limit that maps count against, in bytes: none from 5.11 on, and none where it is unlimited.
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
    fn a_kernel_below_the_oldest_is_refused_with_both_versions() {
        let error = check_version(Some(KernelVersion::new(5, 9, 16)))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "Linux 5.9.16 is too old: probe needs 5.10 or newer");
        for fine in [KernelVersion::new(5, 10, 0), KernelVersion::new(6, 18, 44)] {
            check_version(Some(fine)).unwrap();
        }
    }
}
