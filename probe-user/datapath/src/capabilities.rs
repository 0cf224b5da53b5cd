//! Capabilities: which are needed, which are there, and letting go of all others.

use std::collections::HashSet;

use caps::{CapSet, Capability, errors::CapsError};

/// A capability and what it is for; `docs/installation.md` has the same list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredCapability {
    /// Which.
    pub capability: Capability,
    /// What for.
    pub purpose: &'static str,
    /// Whether `CAP_SYS_ADMIN` includes it (`include/linux/capability.h`).
    in_sys_admin: bool,
}

/// What loading, attaching and reading counters takes.
pub const REQUIRED_CAPABILITIES: [RequiredCapability; 3] = [
    RequiredCapability {
        capability: Capability::CAP_BPF,
        purpose: "to make maps and load programs",
        in_sys_admin: true,
    },
    RequiredCapability {
        capability: Capability::CAP_NET_ADMIN,
        purpose: "to attach programs to interfaces",
        in_sys_admin: false,
    },
    RequiredCapability {
        capability: Capability::CAP_PERFMON,
        purpose: "to compare packet pointers, which the verifier refuses to others",
        in_sys_admin: true,
    },
];

/// What asking takes, where it is wished for.
pub const PROBING_CAPABILITY: Capability = Capability::CAP_NET_RAW;

/// Whether this process may ask.
pub fn can_send_probes() -> bool {
    caps::has_cap(None, CapSet::Effective, PROBING_CAPABILITY).unwrap_or(false)
}

/// The needs that this process cannot meet. Where capabilities cannot be read, none: the kernel will say
/// so itself.
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
        .filter(|need| !(effective.contains(&need.capability) || need.in_sys_admin && sys_admin))
        .collect()
}

/// Lets go of every capability that is not needed, for good; what asking takes is kept only if `asking`.
/// Capabilities belong to threads, and a thread inherits its creator's: so this comes before any other thread
/// is started.
pub fn drop_others(asking: bool) -> Result<(), CapsError> {
    let needs = REQUIRED_CAPABILITIES.iter().map(|need| need.capability);
    let needed: HashSet<_> = needs.chain(asking.then_some(PROBING_CAPABILITY)).collect();
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut kept: HashSet<_> = permitted.intersection(&needed).copied().collect();
    // Where it stands in for the others.
    if !missing_from(&kept).is_empty() && permitted.contains(&Capability::CAP_SYS_ADMIN) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    keep_only(&kept)
}

/// Lets go of every capability, for good: for whoever has opened all that it needs. The same holds for threads.
pub fn drop_all() -> Result<(), CapsError> {
    keep_only(&HashSet::new())
}

/// Lets go of every capability but what asking takes, and to reach files of others: for whoever asks and writes a
/// file. The same holds for threads.
pub fn drop_all_but_net_raw() -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let needed = HashSet::from([PROBING_CAPABILITY, Capability::CAP_DAC_OVERRIDE]);
    keep_only(&permitted.intersection(&needed).copied().collect())
}

fn keep_only(kept: &HashSet<Capability>) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    // The bounding set first: emptying it takes CAP_SETPCAP, which goes below. Without it, a program that
    // this process might execute could get more than it has; there is none.
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
            .map(|need| need.capability.to_string())
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
            "it includes the other two"
        );
    }
}
