//! The errors of this crate, each with its likely cause and the next step.

use std::io;

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, links::LinkError},
};
use probe_model::{Link, error_chain, watched::AttachedMode};
use thiserror::Error;

use super::{capabilities, capabilities::RequiredCapability, preflight, program_list};

/// An error in loading, attaching or using the BPF programs.
#[derive(Debug, Error)]
pub enum KernelError {
    /// Capabilities are missing.
    #[error(
        "not permitted to load BPF programs: this process lacks {}\n\
         run it as root (sudo probe …), or grant it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        missing.iter().map(|required| required.capability.to_string()).collect::<Vec<_>>().join(", ")
    )]
    Permission {
        /// The missing capabilities.
        missing: Vec<RequiredCapability>,
    },
    /// The limit of locked memory is too low for the maps. They only count against it below Linux 5.11.
    #[error(
        "the kernel rejects BPF maps: Linux below 5.11 counts them as locked memory, and the limit of this process is \
         {} KiB\n\
         raise it (systemd: LimitMEMLOCK=infinity, shell: ulimit -l unlimited), or grant CAP_SYS_RESOURCE, so that \
         probe can raise it (Kubernetes: securityContext.capabilities.add: [SYS_RESOURCE])",
        limit / 1024
    )]
    LockedMemory {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The memory limit of the cgroup is too low.
    #[error(
        "the memory limit of {} MiB is too low: BPF maps and user space need at least {} MiB\n\
         raise it (systemd: MemoryMax=, Kubernetes: resources.limits.memory), or lower --kernel-addresses and --ring-memory",
        limit >> 20,
        needed >> 20
    )]
    MemoryLimit {
        /// The limit, in bytes.
        limit: u64,
        /// The required memory, in bytes.
        needed: u64,
    },
    /// The kernel returns EPERM although no capability is missing.
    #[error(
        "the kernel rejects BPF programs although no capability is missing\n\
         a seccomp or container profile may block bpf(2), or the kernel may be locked down: check \
         /sys/kernel/security/lockdown, and in a container allow bpf in the seccomp profile"
    )]
    Blocked,
    /// The kernel is too old.
    #[error(
        "Linux {found} is too old: probe needs {}.{} or newer",
        preflight::OLDEST_KERNEL.0,
        preflight::OLDEST_KERNEL.1
    )]
    KernelTooOld {
        /// The version of the running kernel.
        found: String,
    },
    /// The object was built with another version of the event ABI.
    #[error(
        "the eBPF object has another ABI version ({found:?}) than this program: rebuild both with `cargo xtask build`"
    )]
    Abi {
        /// The version in the object.
        found: Option<u32>,
    },
    /// A map of the object is missing.
    #[error("the eBPF object has no map {name}: rebuild it with `cargo xtask build`")]
    MissingMap {
        /// Its name.
        name: &'static str,
    },
    /// A program of the object is missing.
    #[error("the eBPF object has no program {name}: rebuild it with `cargo xtask build`")]
    MissingProgram {
        /// Its name.
        name: &'static str,
    },
    /// The object could not be loaded.
    #[error("cannot load the eBPF object: {}", error_chain(.0))]
    Load(Box<EbpfError>),
    /// The verifier rejected a program.
    #[error("the kernel rejects the program {name}: {}", verifier_tail(source))]
    Verifier {
        /// Its name.
        name: &'static str,
        /// The kernel's error with the end of the verifier log.
        source: Box<ProgramError>,
    },
    /// A map operation failed.
    #[error("BPF map {name}: {}", error_chain(source))]
    Map {
        /// Its name.
        name: &'static str,
        /// The kernel's error.
        source: MapError,
    },
    /// The CPUs could not be listed.
    #[error("cannot read the list of CPUs from {path}: {problem}")]
    Cpus {
        /// The file with the list.
        path: String,
        /// The problem with the file.
        problem: String,
    },
    /// The rings cannot be polled.
    #[error("cannot poll the rings: {0}")]
    Poll(#[source] io::Error),
    /// Another XDP program is attached to the interface.
    #[error(
        "{interface} already has an XDP program: {attached}\n\
         probe never replaces it; use --attach tc, which works beside it"
    )]
    Busy {
        /// The name of the interface.
        interface: String,
        /// The program that is attached.
        attached: String,
    },
    /// The interface does not support the mode.
    #[error(
        "{interface} does not support {mode} attachment: its driver or its settings (MTU, queues) prevent it\n\
         use --attach tc, or --attach generic if XDP is required"
    )]
    Unsupported {
        /// The name of the interface.
        interface: String,
        /// The requested mode.
        mode: AttachedMode,
    },
    /// The interface was removed.
    #[error("the interface {interface} was removed")]
    InterfaceGone {
        /// Its name.
        interface: String,
    },
    /// The number of networks exceeds the capacity of the watch filter.
    #[error(
        "{networks} networks exceed the capacity of the watch filter, {capacity}: raise --filter-capacity"
    )]
    FilterTooLarge {
        /// The number of networks.
        networks: usize,
        /// The capacity of the filter.
        capacity: u32,
    },
    /// All counters are used by other interfaces.
    #[error(
        "no counters left for the interface with index {ifindex}: watch fewer interfaces (--interface, --exclude)"
    )]
    CountersFull {
        /// The index of the interface.
        ifindex: u32,
    },
    /// The state of a BPF link could not be read.
    #[error("cannot read the state of a BPF link: {0}")]
    Link(#[source] LinkError),
    /// The fdinfo file of a BPF link was not found.
    #[error("cannot find a BPF link in /proc/self/fdinfo: {0}\nis /proc mounted?")]
    LinkPosition(#[source] io::Error),
    /// A test run of a program failed.
    #[error("cannot run {name} on a frame: {}", error_chain(source))]
    TestRun {
        /// Its name.
        name: &'static str,
        /// The kernel's error.
        source: Box<ProgramError>,
    },
    /// Attaching failed for another reason.
    #[error("cannot attach to {interface} ({mode}): {}", error_chain(source))]
    Attach {
        /// The name of the interface.
        interface: String,
        /// The requested mode.
        mode: AttachedMode,
        /// The kernel's error.
        source: Box<ProgramError>,
    },
}

impl KernelError {
    /// The error for a failed load, with its likely cause if the errno indicates one.
    pub(super) fn load(error: EbpfError) -> Self {
        if errno(&error) == Some(rustix::io::Errno::PERM) {
            Self::not_permitted()
        } else {
            Self::Load(Box::new(error))
        }
    }

    /// The error for a failed attachment, with its likely cause if the errno indicates one.
    pub(super) fn attach(link: &Link, mode: AttachedMode, source: ProgramError) -> Self {
        use rustix::io::Errno;
        let interface = link.name.clone();
        match errno(&source) {
            Some(Errno::BUSY | Errno::EXIST) if mode != AttachedMode::Tc => Self::Busy {
                interface,
                attached: describe_xdp_program(link),
            },
            Some(Errno::OPNOTSUPP | Errno::INVAL | Errno::RANGE) if mode != AttachedMode::Tc => {
                tracing::debug!(interface, %mode, error = error_chain(&source), "the kernel rejects the attachment");
                Self::Unsupported { interface, mode }
            }
            Some(Errno::NODEV) => Self::InterfaceGone { interface },
            Some(Errno::PERM) => Self::not_permitted(),
            _ => Self::Attach {
                interface,
                mode,
                source: Box::new(source),
            },
        }
    }

    /// The error for a map that could not be created, with its likely cause if the errno indicates one.
    pub(super) fn map(name: &'static str, source: MapError) -> Self {
        if errno(&source) == Some(rustix::io::Errno::PERM) {
            Self::not_permitted()
        } else {
            Self::Map { name, source }
        }
    }

    fn not_permitted() -> Self {
        Self::permission_error(capabilities::missing(), preflight::locked_memory_limit())
    }

    /// The error for EPERM by its most likely cause. `locked_memory_limit` is the limit that maps count against, if any.
    fn permission_error(
        missing: Vec<RequiredCapability>,
        locked_memory_limit: Option<u64>,
    ) -> Self {
        match (missing.is_empty(), locked_memory_limit) {
            (false, _) => Self::Permission { missing },
            (true, Some(limit)) => Self::LockedMemory { limit },
            (true, None) => Self::Blocked,
        }
    }
}

/// Describes the XDP program of an interface.
fn describe_xdp_program(link: &Link) -> String {
    let Some(id) = link.xdp_program else {
        return "its name is unknown (attached a moment ago?)".to_owned();
    };
    match program_list::program_name(id) {
        Some(name) => format!("{name} (program id {id})"),
        None => format!("program id {id}"),
    }
}

/// The errno of an error or of its sources.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<rustix::io::Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(errno) = error
            .downcast_ref::<io::Error>()
            .and_then(rustix::io::Errno::from_io_error)
        {
            return Some(errno);
        }
        next = error.source();
    }
    None
}

/// The last lines of a verifier log, which contain the reason. The complete log is logged at debug level.
fn verifier_tail(error: &ProgramError) -> String {
    const LINES: usize = 3;
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return error_chain(error);
    };
    let log = verifier_log.to_string();
    tracing::debug!(%log, "verifier log");
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
    format!("{io_error}\n  {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eperm_is_explained_by_capabilities_then_the_locked_memory_limit_then_a_profile() {
        let missing = capabilities::REQUIRED_CAPABILITIES.to_vec();
        let text = |missing, limit| KernelError::permission_error(missing, limit).to_string();
        assert!(text(missing, Some(65_536)).contains("lacks CAP_BPF"));
        let limited = text(Vec::new(), Some(65_536));
        assert!(limited.contains("64 KiB") && limited.contains("CAP_SYS_RESOURCE"));
        assert!(text(Vec::new(), None).contains("seccomp"));
    }

    #[test]
    fn eperm_for_a_map_is_explained() {
        let create_error = |errno| MapError::CreateError {
            name: "RING".to_owned(),
            io_error: io::Error::from_raw_os_error(errno),
        };
        let error = KernelError::map("RINGS", create_error(1));
        assert!(!matches!(error, KernelError::Map { .. }), "{error}");
        let error = KernelError::map("RINGS", create_error(12));
        assert!(matches!(error, KernelError::Map { .. }), "{error}");
    }
}
