//! Checks the required capabilities and drops all others.

use std::collections::HashSet;

use caps::{CapSet, Capability, errors::CapsError};

/// A required capability with its purpose; `docs/installation.md` has the same list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredCapability {
    /// The capability.
    pub capability: Capability,
    /// Its purpose, as an infinitive.
    pub purpose: &'static str,
    /// Whether `CAP_SYS_ADMIN` includes it (`include/linux/capability.h`).
    in_sys_admin: bool,
}

/// The capabilities for loading and attaching programs and for reading counters.
pub const REQUIRED_CAPABILITIES: [RequiredCapability; 3] = [
    RequiredCapability {
        capability: Capability::CAP_BPF,
        purpose: "to create maps and load programs",
        in_sys_admin: true,
    },
    RequiredCapability {
        capability: Capability::CAP_NET_ADMIN,
        purpose: "to attach programs to interfaces",
        in_sys_admin: false,
    },
    RequiredCapability {
        capability: Capability::CAP_PERFMON,
        purpose: "to compare packet pointers, which the verifier otherwise rejects",
        in_sys_admin: true,
    },
];

/// The capability for sending ARP probes; only required if active probing is enabled.
pub const PROBING_CAPABILITY: Capability = Capability::CAP_NET_RAW;

/// Whether this process may send ARP probes.
pub fn can_send_probes() -> bool {
    caps::has_cap(None, CapSet::Effective, PROBING_CAPABILITY).unwrap_or(false)
}

/// The required capabilities that this process lacks. If they cannot be read, none: the kernel will return an error.
pub fn missing() -> Vec<RequiredCapability> {
    match caps::read(None, CapSet::Effective) {
        Ok(effective) => missing_from(&effective),
        Err(_) => Vec::new(),
    }
}

fn missing_from(effective: &HashSet<Capability>) -> Vec<RequiredCapability> {
    let sys_admin = effective.contains(&Capability::CAP_SYS_ADMIN);
    REQUIRED_CAPABILITIES
        .into_iter()
        .filter(|required| {
            !(effective.contains(&required.capability) || required.in_sys_admin && sys_admin)
        })
        .collect()
}

/// Drops every capability that is not required, permanently. [`PROBING_CAPABILITY`] is kept if `keep_probing`.
///
/// Capabilities are an attribute of a thread, and a new thread inherits those of its creator. So this is to be called
/// before other threads are started.
pub fn drop_others(keep_probing: bool) -> Result<(), CapsError> {
    let required = REQUIRED_CAPABILITIES
        .iter()
        .map(|required| required.capability);
    let required: HashSet<_> = required
        .chain(keep_probing.then_some(PROBING_CAPABILITY))
        .collect();
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut kept: HashSet<_> = permitted.intersection(&required).copied().collect();
    // CAP_SYS_ADMIN includes some of those that are missing.
    if !missing_from(&kept).is_empty() && permitted.contains(&Capability::CAP_SYS_ADMIN) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    keep_only(&kept)
}

/// Drops every capability, permanently: for a process that has opened all its sockets and files. To be called before
/// other threads are started.
pub fn drop_all() -> Result<(), CapsError> {
    keep_only(&HashSet::new())
}

/// Drops every capability except those for sending ARP probes and for accessing files of other users, permanently. To be
/// called before other threads are started.
pub fn drop_all_but_net_raw() -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let required = HashSet::from([PROBING_CAPABILITY, Capability::CAP_DAC_OVERRIDE]);
    keep_only(&permitted.intersection(&required).copied().collect())
}

fn keep_only(kept: &HashSet<Capability>) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    // The bounding set first, because dropping from it requires CAP_SETPCAP, which is dropped below. If this is not
    // permitted, a program that this process executes could gain capabilities; it executes none.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, kept)?;
    caps::set(None, CapSet::Permitted, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_names(effective: &[Capability]) -> Vec<String> {
        let effective = effective.iter().copied().collect();
        missing_from(&effective)
            .into_iter()
            .map(|required| required.capability.to_string())
            .collect()
    }

    #[test]
    fn each_missing_capability_is_named() {
        use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
        assert_eq!(
            missing_names(&[]),
            ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]
        );
        assert_eq!(missing_names(&[CAP_BPF, CAP_PERFMON]), ["CAP_NET_ADMIN"]);
        assert_eq!(
            missing_names(&[CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN]),
            [""; 0]
        );
        assert_eq!(
            missing_names(&[CAP_SYS_ADMIN]),
            ["CAP_NET_ADMIN"],
            "it includes the other two capabilities"
        );
    }
}
