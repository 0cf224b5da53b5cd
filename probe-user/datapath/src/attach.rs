//! Attaches the programs to an interface and detaches them.
//!
//! No program may stay attached after the process exits, not even after a `kill -9`. So XDP and TCX programs are attached
//! by `bpf_link` only: the kernel detaches them when the file descriptor is closed, for whatever reason.

use std::{collections::hash_map::Entry, io};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, Link as _},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};
use probe_common::{counter::Direction, event::Hook};
use probe_model::{Link, watched::AttachedMode};

use super::{
    Kernel, KernelError,
    clsact::{ClsactFilters, FilterHandleReservation},
    device::{self, AttachmentStatus, DisplacedProgram, LinkPosition},
    preflight,
};

/// The programs that are attached to one interface. Dropping it detaches them.
#[derive(Debug)]
pub struct Attachment {
    /// The index of the interface.
    pub ifindex: u32,
    /// The name of the interface when the programs were attached.
    pub name: String,
    /// The mode in which received frames are observed.
    pub mode: AttachedMode,
    ingress: AttachmentHandle,
    egress: AttachmentHandle,
}

/// The handle of an attached program. Dropping it detaches the program.
#[derive(Debug)]
enum AttachmentHandle {
    /// A BPF link (XDP or TCX): the kernel detaches the program when the descriptor is closed.
    Link {
        _link: FdLink,
        position: LinkPosition,
    },
    /// A clsact filter, below Linux 6.6: removed on drop, or at the next start after a `kill -9`.
    Filter {
        _filter: SchedClassifierLink,
        handle: u32,
    },
}

impl AttachmentHandle {
    fn link(link: FdLink) -> Result<Self, KernelError> {
        let position = LinkPosition::of(&link)?;
        Ok(Self::Link {
            _link: link,
            position,
        })
    }
}

impl Attachment {
    /// Whether it includes a clsact filter.
    pub fn has_filters(&self) -> bool {
        let handles = [&self.ingress, &self.egress];
        handles
            .iter()
            .any(|handle| matches!(handle, AttachmentHandle::Filter { .. }))
    }
}

/// The largest MTU with which a frame fits into one page with XDP's headroom and the tail of the buffer
/// (`XDP_PACKET_HEADROOM`, `skb_shared_info`). Above it, the multi-buffer program is required.
pub const LARGEST_SINGLE_BUFFER_MTU: u32 = 3_498;

/// The priority of clsact filters: the highest.
const FILTER_PRIORITY: u16 = 1;

const PLAIN_XDP: &str = Hook::Xdp.program();
const MULTI_BUFFER_XDP: &str = "arp_xdp_frags";

impl Kernel {
    /// Attaches the programs to an interface: ingress in the given mode, and egress.
    ///
    /// # Errors
    ///
    /// [`KernelError::Busy`] if another XDP program is attached, [`KernelError::Unsupported`] if the driver does not
    /// support the mode, and another [`KernelError`] otherwise. Nothing stays attached then.
    pub fn attach(&mut self, link: &Link, mode: AttachedMode) -> Result<Attachment, KernelError> {
        for &direction in Direction::ALL {
            self.counters.register(link.index, direction)?;
        }
        if !preflight::kernel_at_least(6, 6) {
            self.prepare_clsact(link);
        }
        // Egress first: a received reply is only matched to a sent request that was observed.
        let egress = self.attach_tc(link, Hook::TcEgress)?;
        let ingress = match mode {
            AttachedMode::Native => self.attach_xdp(link, mode, XdpMode::Driver),
            AttachedMode::Generic => self.attach_xdp(link, mode, XdpMode::Skb),
            AttachedMode::Tc => self.attach_tc(link, Hook::TcIngress),
        }?;
        Ok(Attachment {
            ifindex: link.index,
            name: link.name.clone(),
            mode,
            ingress,
            egress,
        })
    }

    /// Loads every program that may be attached, so that the verifier checks it, and attaches none.
    pub fn verify(&mut self) -> Result<(), KernelError> {
        program::<SchedClassifier>(&mut self.ebpf, Hook::TcIngress.program())?;
        program::<SchedClassifier>(&mut self.ebpf, Hook::TcEgress.program())?;
        program::<Xdp>(&mut self.ebpf, PLAIN_XDP)?;
        if preflight::kernel_at_least(5, 18) {
            program::<Xdp>(&mut self.ebpf, MULTI_BUFFER_XDP)?;
        }
        Ok(())
    }

    /// Whether the programs are still attached and first. `filters` are the clsact filters of the interface; they are only
    /// used if the attachment has filters ([`Attachment::has_filters`]).
    pub fn attachment_status(
        &self,
        attachment: &Attachment,
        filters: &io::Result<ClsactFilters>,
    ) -> AttachmentStatus {
        let ingress =
            self.direction_status(attachment, Direction::Ingress, &attachment.ingress, filters);
        ingress.and(|| {
            self.direction_status(attachment, Direction::Egress, &attachment.egress, filters)
        })
    }

    fn direction_status(
        &self,
        attachment: &Attachment,
        direction: Direction,
        handle: &AttachmentHandle,
        filters: &io::Result<ClsactFilters>,
    ) -> AttachmentStatus {
        match handle {
            AttachmentHandle::Link { position, .. } => {
                let attached = position.status(attachment.ifindex);
                if direction == Direction::Ingress && attachment.mode.is_xdp() {
                    attached
                } else {
                    attached.and(|| self.tcx_status(attachment.ifindex, direction))
                }
            }
            AttachmentHandle::Filter { handle, .. } => match filters {
                Ok(filters) => match filters.displaced(direction, *handle) {
                    Some(displaced) => AttachmentStatus::Displaced(displaced),
                    None => AttachmentStatus::InPlace,
                },
                Err(error) => AttachmentStatus::Unknown(io::Error::new(
                    error.kind(),
                    format!("cannot list the TC filters: {error}"),
                )),
            },
        }
    }

    /// Whether our TCX program runs before all others on an interface.
    fn tcx_status(&self, ifindex: u32, direction: Direction) -> AttachmentStatus {
        let hook = match direction {
            Direction::Ingress => Hook::TcIngress,
            Direction::Egress => Hook::TcEgress,
        };
        match device::tcx_programs(ifindex, direction) {
            Err(error) => AttachmentStatus::Unknown(error),
            Ok(programs) => tcx_order_status(&programs, self.program_ids.get(hook.program())),
        }
    }

    /// Whether the XDP program with this ID is ours.
    pub fn owns_xdp_program(&self, id: u32) -> bool {
        [PLAIN_XDP, MULTI_BUFFER_XDP]
            .iter()
            .any(|name| self.program_ids.get(name) == Some(&id))
    }

    /// Loads a program and stores its ID, so that later checks recognize it without a query.
    fn load_program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, KernelError>
    where
        P: LoadOnce,
        &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        let program: &mut P = program(&mut self.ebpf, name)?;
        if let Entry::Vacant(entry) = self.program_ids.entry(name) {
            let id = program.id().map_err(|source| KernelError::Verifier {
                name,
                source: Box::new(source),
            })?;
            entry.insert(id);
        }
        Ok(program)
    }

    fn attach_xdp(
        &mut self,
        link: &Link,
        mode: AttachedMode,
        xdp: XdpMode,
    ) -> Result<AttachmentHandle, KernelError> {
        let frags = link.mtu > LARGEST_SINGLE_BUFFER_MTU && preflight::kernel_at_least(5, 18);
        let name = if frags { MULTI_BUFFER_XDP } else { PLAIN_XDP };
        let program: &mut Xdp = self.load_program(name)?;
        let attach_error = |source| KernelError::attach(link, mode, source);
        let id = program
            .attach_to_if_index(link.index, xdp)
            .map_err(attach_error)?;
        let attached = program.take_link(id).map_err(attach_error)?;
        // aya falls back to netlink if the kernel rejects a link. Such a program would stay attached after a `kill -9`, so
        // the conversion fails then, and dropping the link detaches the program again.
        let link = FdLink::try_from(attached).map_err(|_| KernelError::Unsupported {
            interface: link.name.clone(),
            mode,
        })?;
        AttachmentHandle::link(link)
    }

    /// Attaches a TC program, by TCX or, below Linux 6.6, by clsact. It is the first program in both cases, because a
    /// program that returns `TCX_PASS` or `TC_ACT_OK` hides the frame from those after it.
    fn attach_tc(&mut self, link: &Link, hook: Hook) -> Result<AttachmentHandle, KernelError> {
        let attach_type = match hook.direction() {
            Direction::Ingress => TcAttachType::Ingress,
            Direction::Egress => TcAttachType::Egress,
        };
        let tcx = preflight::kernel_at_least(6, 6);
        let options = if tcx {
            TcAttachOptions::TcxOrder(LinkOrder::first())
        } else {
            TcAttachOptions::Netlink(NlOptions {
                priority: FILTER_PRIORITY,
                handle: self
                    .filter_handle
                    .as_ref()
                    .map(FilterHandleReservation::handle)
                    .unwrap_or_default(),
                ..NlOptions::default()
            })
        };
        let attach_error = |source| KernelError::attach(link, AttachedMode::Tc, source);
        let program: &mut SchedClassifier = self.load_program(hook.program())?;
        let id = program
            .attach_with_options(&link.name, attach_type, options)
            .map_err(attach_error)?;
        let attached = program.take_link(id).map_err(attach_error)?;
        if tcx {
            let link = FdLink::try_from(attached).map_err(|_| KernelError::Unsupported {
                interface: link.name.clone(),
                mode: AttachedMode::Tc,
            })?;
            AttachmentHandle::link(link)
        } else {
            let handle = attached.handle().map_err(attach_error)?;
            Ok(AttachmentHandle::Filter {
                _filter: attached,
                handle: handle.into(),
            })
        }
    }

    /// Prepares an interface for clsact filters: adds the qdisc and removes the filters that a killed process left.
    fn prepare_clsact(&mut self, link: &Link) {
        // EEXIST is no failure. The qdisc may be shared with other programs, so it is never deleted.
        if let Err(error) = qdisc_add_clsact(&link.name) {
            tracing::debug!(interface = link.name, %error, "clsact was not added");
        }
        if self.filter_handle.is_none() {
            self.filter_handle = FilterHandleReservation::reserve();
        }
        if let Some(filter_handle) = &self.filter_handle {
            filter_handle.for_each_abandoned(|handle| {
                remove_filter(link, TcAttachType::Ingress, handle);
                remove_filter(link, TcAttachType::Egress, handle);
            });
        }
    }
}

/// Removes a filter that an earlier process left when it was killed. Usually there is none.
fn remove_filter(link: &Link, attach_type: TcAttachType, handle: TcHandle) {
    let filter =
        SchedClassifierLink::attached(&link.name, attach_type, FILTER_PRIORITY, handle, None);
    if filter.is_ok_and(|filter| filter.detach().is_ok()) {
        tracing::info!(
            interface = link.name,
            "removed a TC filter that an earlier process left"
        );
    }
}

/// Returns the program of this name and loads it if necessary: the verifier only checks the programs that are used.
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

/// A program that can be loaded without arguments.
pub(super) trait LoadOnce {
    fn load_once(&mut self) -> Result<(), ProgramError>;

    /// The ID of the loaded program.
    fn id(&self) -> Result<u32, ProgramError>;
}

impl LoadOnce for Xdp {
    fn load_once(&mut self) -> Result<(), ProgramError> {
        self.load()
    }

    fn id(&self) -> Result<u32, ProgramError> {
        Ok(self.info()?.id())
    }
}

impl LoadOnce for SchedClassifier {
    fn load_once(&mut self) -> Result<(), ProgramError> {
        self.load()
    }

    fn id(&self) -> Result<u32, ProgramError> {
        Ok(self.info()?.id())
    }
}

/// Whether our program is the first of `programs`. A list without it, or an unknown ID of our program, does not prove that
/// it is displaced.
fn tcx_order_status(programs: &[u32], ours: Option<&u32>) -> AttachmentStatus {
    match (programs.first(), ours) {
        (Some(first), Some(ours)) if first != ours => {
            AttachmentStatus::Displaced(DisplacedProgram::Behind)
        }
        _ => AttachmentStatus::InPlace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_program_that_is_not_first_is_behind() {
        let behind = |programs: &[u32], ours| {
            matches!(
                tcx_order_status(programs, ours),
                AttachmentStatus::Displaced(DisplacedProgram::Behind)
            )
        };
        assert!(behind(&[1, 2], Some(&2)));
        assert!(!behind(&[2, 1], Some(&2)));
        assert!(!behind(&[1], None), "an unknown ID is no proof");
        assert!(!behind(&[], Some(&2)));
    }
}
