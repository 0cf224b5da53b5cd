//! What can go wrong between this program and the kernel, each with its next step.

use std::io;

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, links::LinkError},
};
use probe_model::{Link, error_chain, watched::AttachedMode};
use thiserror::Error;

use super::{capabilities, capabilities::RequiredCapability, preflight, program_list};

/// Why the kernel side could not be set up.
#[derive(Debug, Error)]
pub enum KernelError {
    /// Capabilities are missing.
    #[error(
        "not permitted to load BPF programs: this process lacks {}\n\
         run it as root (sudo probe …), or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        missing.iter().map(|need| need.capability.to_string()).collect::<Vec<_>>().join(", ")
    )]
    Permission {
        /// Which, and what for.
        missing: Vec<RequiredCapability>,
    },
    /// Below 5.11 maps count against the limit of locked memory, and it is too low.
    #[error(
        "the kernel refuses BPF maps: Linux below 5.11 counts them as locked memory, and the limit of this process is \
         {} KiB\n\
         raise it (systemd: LimitMEMLOCK=infinity, shell: ulimit -l unlimited), or give CAP_SYS_RESOURCE, with which \
         probe raises it (Kubernetes: securityContext.capabilities.add: [SYS_RESOURCE])",
        limit / 1024
    )]
    LockedMemory {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The memory cgroup is too small.
    #[error(
        "the memory limit of {} MiB is too low: probe needs at least {} MiB here, of BPF maps and its own\n\
         raise it (systemd: MemoryMax=, Kubernetes: resources.limits.memory), or lower --kernel-addresses and --ring-memory",
        limit >> 20,
        needed >> 20
    )]
    MemoryLimit {
        /// The limit, in bytes.
        limit: u64,
        /// What is needed, in bytes.
        needed: u64,
    },
    /// The capabilities are there, and the kernel says EPERM all the same.
    #[error(
        "the kernel refuses BPF programs although no capability is missing\n\
         a seccomp or container profile may block bpf(2), or the kernel is locked down: look at \
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
        /// Its version.
        found: String,
    },
    /// The object was built with another version of the event ABI.
    #[error(
        "the eBPF object does not fit this program (its ABI version: {found:?}): rebuild both with `cargo xtask build`"
    )]
    Abi {
        /// The version that the object names.
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
    /// The verifier refused a program.
    #[error("the kernel refuses the program {name}: {}", verifier_tail(source))]
    Verifier {
        /// Its name.
        name: &'static str,
        /// What the kernel said; the whole log at debug level.
        source: Box<ProgramError>,
    },
    /// A map operation failed.
    #[error("BPF map {name}: {}", error_chain(source))]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// The CPUs could not be counted.
    #[error("cannot tell which CPUs there are from {path}: {problem}")]
    Cpus {
        /// The file that says it.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The rings cannot be waited for.
    #[error("cannot wait for the rings: {0}")]
    Poll(#[source] io::Error),
    /// Another XDP program has the interface.
    #[error(
        "{interface} already has an XDP program: {holder}\n\
         it stays; use --attach tc, which gets along with it"
    )]
    Busy {
        /// Name of the interface.
        interface: String,
        /// The program that is attached.
        holder: String,
    },
    /// The interface cannot do this mode.
    #[error(
        "{interface} cannot do {mode} attachment: its driver or its settings (MTU, queues) refuse it\n\
         use --attach tc, or --attach generic where XDP is a must"
    )]
    Unsupported {
        /// Name of the interface.
        interface: String,
        /// The mode that was asked for.
        mode: AttachedMode,
    },
    /// The interface is gone.
    #[error("{interface} is gone")]
    InterfaceGone {
        /// Its name.
        interface: String,
    },
    /// More networks than the filter has room for.
    #[error(
        "{networks} networks do not fit into the watch filter, which has room for {capacity}: raise --filter-capacity"
    )]
    FilterTooLarge {
        /// How many there would be.
        networks: usize,
        /// How many there may be.
        capacity: u32,
    },
    /// More interfaces are watched than can be counted.
    #[error(
        "there is no room for the counters of interface number {ifindex}: watch fewer interfaces (--interface, --exclude)"
    )]
    CountersFull {
        /// Index of the interface.
        ifindex: u32,
    },
    /// A link's state could not be read.
    #[error("cannot read the state of a BPF link: {0}")]
    Link(#[source] LinkError),
    /// A link's place could not be found.
    #[error("cannot find a BPF link in /proc/self/fdinfo: {0}\nis /proc mounted?")]
    LinkPosition(#[source] io::Error),
    /// A program could not be run on a frame.
    #[error("cannot run {name} on a frame: {}", error_chain(source))]
    TestRun {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// Attaching failed in another way.
    #[error("cannot attach to {interface} ({mode}): {}", error_chain(source))]
    Attach {
        /// Name of the interface.
        interface: String,
        /// The mode that was asked for.
        mode: AttachedMode,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
}

impl KernelError {
    /// Names the cause of a failed load where the evidence fits.
    pub(super) fn load(error: EbpfError) -> Self {
        if errno(&error) == Some(rustix::io::Errno::PERM) {
            Self::not_permitted()
        } else {
            Self::Load(Box::new(error))
        }
    }

    /// Names the cause of a failed attachment where the evidence fits.
    pub(super) fn attach(link: &Link, mode: AttachedMode, source: ProgramError) -> Self {
        use rustix::io::Errno;
        let interface = link.name.clone();
        match errno(&source) {
            Some(Errno::BUSY | Errno::EXIST) if mode != AttachedMode::Tc => Self::Busy {
                interface,
                holder: holder(link),
            },
            Some(Errno::OPNOTSUPP | Errno::INVAL | Errno::RANGE) if mode != AttachedMode::Tc => {
                tracing::debug!(interface, %mode, error = error_chain(&source), "attachment refused");
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

    /// Names the cause of a map that could not be created where the evidence fits.
    pub(super) fn map(name: &'static str, source: MapError) -> Self {
        if errno(&source) == Some(rustix::io::Errno::PERM) {
            Self::not_permitted()
        } else {
            Self::Map { name, source }
        }
    }

    fn not_permitted() -> Self {
        Self::refusal(capabilities::missing(), preflight::locked_memory_limit())
    }

    /// The most likely cause of EPERM, with the limit that maps are counted against, if there is one.
    fn refusal(missing: Vec<RequiredCapability>, locked_memory_limit: Option<u64>) -> Self {
        match (missing.is_empty(), locked_memory_limit) {
            (false, _) => Self::Permission { missing },
            (true, Some(limit)) => Self::LockedMemory { limit },
            (true, None) => Self::Blocked,
        }
    }
}

/// The XDP program of an interface, in words.
fn holder(link: &Link) -> String {
    let Some(id) = link.xdp_program else {
        return "its name is not known (attached a moment ago?)".to_owned();
    };
    match program_list::program_name(id) {
        Some(name) => format!("{name} (program id {id})"),
        None => format!("program id {id}"),
    }
}

/// The errno at the root of an error.
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

/// The last lines of a verifier log say why; all of it goes to the debug log.
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
    fn a_refusal_names_capabilities_then_the_limit_of_locked_memory_then_a_profile() {
        let missing = capabilities::REQUIRED_CAPABILITIES.to_vec();
        let text = |missing, limit| KernelError::refusal(missing, limit).to_string();
        assert!(text(missing, Some(65_536)).contains("lacks CAP_BPF"));
        let limited = text(Vec::new(), Some(65_536));
        assert!(limited.contains("64 KiB") && limited.contains("CAP_SYS_RESOURCE"));
        assert!(text(Vec::new(), None).contains("seccomp"));
    }

    #[test]
    fn a_map_that_is_refused_is_no_riddle() {
        let refused = |errno| MapError::CreateError {
            name: "RING".to_owned(),
            io_error: io::Error::from_raw_os_error(errno),
        };
        let error = KernelError::map("RINGS", refused(1));
        assert!(!matches!(error, KernelError::Map { .. }), "{error}");
        let error = KernelError::map("RINGS", refused(12));
        assert!(matches!(error, KernelError::Map { .. }), "{error}");
    }
}
