//! Attaching the programs to an interface, and letting go of it.
//!
//! Nothing of ours may outlive the process, a `kill -9` included. So XDP and TCX programs are attached
//! by `bpf_link` only: the kernel detaches them when the file descriptor closes, however that happens.

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::FdLink,
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact, qdisc_detach_program,
        },
    },
};
use probe_common::{counter::Direction, event::Hook};

use super::{Kernel, KernelError, preflight};
use crate::links::Link;

/// How arriving frames are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// XDP in the driver: earliest and cheapest, before a socket buffer exists.
    Native,
    /// TC ingress: sees tags that the network card stripped, and gets along with every other program.
    Tc,
    /// XDP after the socket buffer was made: costs all traffic, for drivers without XDP.
    Generic,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Native, Self::Tc, Self::Generic];

    /// The word used in flags, metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tc => "tc",
            Self::Generic => "generic",
        }
    }

    /// The hook of arriving frames.
    pub const fn ingress_hook(self) -> Hook {
        match self {
            Self::Native | Self::Generic => Hook::Xdp,
            Self::Tc => Hook::TcIngress,
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.label())
    }
}

/// The programs on one interface. Dropping it detaches them.
#[derive(Debug)]
pub struct Attachment {
    /// Index of the interface.
    pub ifindex: u32,
    /// Its name when it was attached.
    pub name: String,
    /// How arriving frames are seen.
    pub mode: Mode,
    _ingress: Hold,
    _egress: Hold,
}

/// What keeps a program attached, and detaches it when dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their Drop")]
enum Hold {
    /// XDP or TCX: the kernel detaches when the descriptor closes.
    Link(FdLink),
    /// clsact, below 6.6: detached by name on drop, and at the next start after a `kill -9`.
    Filter(SchedClassifierLink),
}

/// The MTU above which drivers want multi-buffer XDP: what fits into a page beside headroom and
/// `skb_shared_info`.
const LARGEST_SINGLE_BUFFER_MTU: u32 = 3_498;

impl Kernel {
    /// Attaches to an interface: ingress in the given mode, and egress.
    ///
    /// # Errors
    ///
    /// [`KernelError::Busy`] where another XDP program is attached, [`KernelError::Unsupported`] where the
    /// driver cannot do the mode, and the kernel's own words otherwise. Nothing stays attached then.
    pub fn attach(&mut self, link: &Link, mode: Mode) -> Result<Attachment, KernelError> {
        for &direction in Direction::ALL {
            self.counters.register(link.index, direction)?;
        }
        let ingress = match mode {
            Mode::Native => self.attach_xdp(link, mode, XdpMode::Driver),
            Mode::Generic => self.attach_xdp(link, mode, XdpMode::Skb),
            Mode::Tc => attach_tc(&mut self.ebpf, link, Hook::TcIngress),
        }?;
        let egress = attach_tc(&mut self.ebpf, link, Hook::TcEgress)?;
        Ok(Attachment {
            ifindex: link.index,
            name: link.name.clone(),
            mode,
            _ingress: ingress,
            _egress: egress,
        })
    }

    fn attach_xdp(&mut self, link: &Link, mode: Mode, xdp: XdpMode) -> Result<Hold, KernelError> {
        let frags = link.mtu > LARGEST_SINGLE_BUFFER_MTU && preflight::kernel_at_least(5, 18);
        let name = if frags {
            "arp_xdp_frags"
        } else {
            Hook::Xdp.program()
        };
        let program: &mut Xdp = program(&mut self.ebpf, name)?;
        let attach_error = |source| KernelError::attach(link, mode, source);
        let id = program
            .attach_to_if_index(link.index, xdp)
            .map_err(attach_error)?;
        let attached = program.take_link(id).map_err(attach_error)?;
        // aya falls back to netlink where the kernel refuses a link; that would survive a `kill -9`, so
        // the conversion fails then, and dropping the link detaches it again.
        let link = FdLink::try_from(attached).map_err(|_| KernelError::Unsupported {
            interface: link.name.clone(),
            mode,
        })?;
        Ok(Hold::Link(link))
    }
}

/// Attaches one of the TC programs: TCX, or clsact below 6.6. First in both: behind a program that says
/// "pass" nothing would be seen.
fn attach_tc(ebpf: &mut Ebpf, link: &Link, hook: Hook) -> Result<Hold, KernelError> {
    let name = hook.program();
    let attach_type = match hook.direction() {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    };
    let attach_error = |source| KernelError::attach(link, Mode::Tc, source);
    let tcx = preflight::kernel_at_least(6, 6);
    let options = if tcx {
        TcAttachOptions::TcxOrder(LinkOrder::first())
    } else {
        // EEXIST is as good: the qdisc may be anybody's, and is never deleted.
        if let Err(error) = qdisc_add_clsact(&link.name) {
            tracing::debug!(interface = link.name, %error, "clsact was not added");
        }
        // What an earlier run left behind when it was killed. NotFound is the ordinary case.
        if qdisc_detach_program(&link.name, attach_type, name).is_ok() {
            tracing::info!(
                interface = link.name,
                name,
                "removed a filter that an earlier run left"
            );
        }
        TcAttachOptions::Netlink(NlOptions {
            priority: 1,
            ..NlOptions::default()
        })
    };
    let program: &mut SchedClassifier = program(ebpf, name)?;
    let id = program
        .attach_with_options(&link.name, attach_type, options)
        .map_err(attach_error)?;
    let attached = program.take_link(id).map_err(attach_error)?;
    if tcx {
        let link = FdLink::try_from(attached).map_err(|_| KernelError::Unsupported {
            interface: link.name.clone(),
            mode: Mode::Tc,
        })?;
        Ok(Hold::Link(link))
    } else {
        Ok(Hold::Filter(attached))
    }
}

/// The program of this name, loaded: the verifier only sees the programs that are wanted.
pub(super) fn program<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, KernelError>
where
    P: LoadOnce,
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let load_error = |source| KernelError::Verifier {
        name,
        source: Box::new(source),
    };
    let program = ebpf
        .program_mut(name)
        .ok_or(KernelError::MissingProgram { name })?;
    let program: &mut P = program.try_into().map_err(load_error)?;
    match program.load_once() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(source) => Err(load_error(source)),
    }
}

pub(super) trait LoadOnce {
    fn load_once(&mut self) -> Result<(), ProgramError>;
}

impl LoadOnce for Xdp {
    fn load_once(&mut self) -> Result<(), ProgramError> {
        self.load()
    }
}

impl LoadOnce for SchedClassifier {
    fn load_once(&mut self) -> Result<(), ProgramError> {
        self.load()
    }
}
