//! What has to be true before the kernel is asked for anything, so that a refusal names its cause.

use std::fs;

use aya::util::KernelVersion;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::KernelError;

/// The oldest kernel whose verifier takes the programs.
pub const OLDEST_KERNEL: (u8, u8) = (5, 10);

/// A capability that the programs need, with its number in `include/uapi/linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    number: u32,
    /// Whether `CAP_SYS_ADMIN` includes it.
    in_sys_admin: bool,
}

const SYS_ADMIN: u32 = 21;

/// What loading and attaching needs, each with the reason that `docs/capabilities.md` gives.
const NEEDED: [Capability; 3] = [
    Capability {
        name: "CAP_BPF",
        number: 39,
        in_sys_admin: true,
    },
    Capability {
        name: "CAP_NET_ADMIN",
        number: 12,
        in_sys_admin: false,
    },
    Capability {
        name: "CAP_PERFMON",
        number: 38,
        in_sys_admin: true,
    },
];

/// Checks kernel version and capabilities.
pub fn check() -> Result<(), KernelError> {
    check_version(KernelVersion::current().ok())?;
    let missing = missing_capabilities();
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
pub fn kernel_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().map_or(true, |version| {
        version >= KernelVersion::new(major, minor, 0)
    })
}

/// The needed capabilities that this process does not have. Where they cannot be read, none: the kernel
/// will say so itself.
pub fn missing_capabilities() -> Vec<&'static str> {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective(&status))
        .map(missing_from)
        .unwrap_or_default()
}

/// The effective set in the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_from(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective & (1 << number) != 0;
    NEEDED
        .iter()
        .filter(|needed| !(has(needed.number) || needed.in_sys_admin && has(SYS_ADMIN)))
        .map(|needed| needed.name)
        .collect()
}

/// Below 5.11 map memory counts against `RLIMIT_MEMLOCK`, whose default is far too small. Not fatal: newer
/// kernels account to the cgroup, and where an older one lacks the room it says so when a map is made.
pub(super) fn raise_memlock_limit() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is");
    }
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

    #[test]
    fn the_effective_set_is_read_from_status() {
        let status = "Name:\tprobe\nCapPrm:\t0000000000000000\nCapEff:\t000001fffeffffff\n";
        assert_eq!(effective(status), Some(0x01ff_feff_ffff));
        assert_eq!(effective("Name:\tprobe\n"), None);
    }

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(missing_from(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing_from(1 << 39 | 1 << 38), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_from(1 << 39 | 1 << 38 | 1 << 12), [""; 0]);
        assert_eq!(
            missing_from(1 << 21),
            ["CAP_NET_ADMIN"],
            "CAP_SYS_ADMIN includes the other two"
        );
    }
}
