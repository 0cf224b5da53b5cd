//! Whether what was attached still is, and is first. Others may remove it, and later ones may go before it.

use std::{
    fs, io, mem,
    path::{Path, PathBuf},
};

use aya::programs::links::FdLink;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};
use probe_common::counter::Direction;

use super::KernelError;

/// What has become of a program that is not where it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisplacedProgram {
    /// It is not attached any more.
    #[error("somebody detached a program of ours")]
    Detached,
    /// Another one sees frames first, and may keep them from ours.
    #[error("another TC program went in front of ours, and may hide frames")]
    Behind,
}

/// Where the kernel tells what a link of ours is attached to. Unlike asking for programs by their number,
/// reading it takes no capability.
#[derive(Debug)]
pub struct LinkPosition(PathBuf);

impl LinkPosition {
    /// Finds the place of a link that this process holds.
    pub fn of(link: &FdLink) -> Result<Self, KernelError> {
        let id = link.info().map_err(KernelError::Link)?.id();
        let entries = fs::read_dir("/proc/self/fdinfo").map_err(KernelError::LinkPosition)?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| number(path, "link_id").is_ok_and(|found| found == Some(id)))
            .map(Self)
            .ok_or_else(|| KernelError::LinkPosition(io::ErrorKind::NotFound.into()))
    }

    /// Whether the link is still attached to the interface. A link that somebody detached stays behind
    /// with interface 0.
    pub fn is_attached_to(&self, ifindex: u32) -> bool {
        // Unreadable is no proof of absence.
        number(&self.0, "ifindex").is_ok_and(|found| found.is_none_or(|found| found == ifindex))
    }
}

/// The number behind `name:` in a file of `/proc/self/fdinfo`.
fn number(path: &Path, name: &str) -> io::Result<Option<u32>> {
    let text = fs::read_to_string(path)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key == name).then(|| value.trim().parse().ok())?))
}

/// The programs attached by TCX, by number, in the order in which they see a frame.
///
/// aya has this as well, but goes on to open each program, which takes `CAP_SYS_ADMIN`.
pub fn tcx_programs(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    /// More than anybody chains; the kernel says ENOSPC beyond.
    const MAX_PROGRAMS: u32 = 64;
    let mut ids = [0_u32; MAX_PROGRAMS as usize];
    let attach_type = match direction {
        Direction::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
        Direction::Egress => bpf_attach_type::BPF_TCX_EGRESS,
    };
    // SAFETY: `bpf_attr` is a union of plain numbers, for which zero is a value.
    let mut attr = unsafe { mem::zeroed::<bpf_attr>() };
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = attach_type as u32;
    attr.query.prog_ids = ids.as_mut_ptr().expose_provenance() as u64;
    attr.query.__bindgen_anon_2.prog_cnt = MAX_PROGRAMS;
    // SAFETY: the kernel reads and writes `attr` within its size, and writes at most `prog_cnt` numbers at
    // `prog_ids`, which has room for so many; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_QUERY,
            &raw mut attr,
            mem::size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every member of the union is plain numbers, and the kernel has filled this one in.
    let query = unsafe { attr.query };
    // SAFETY: both members of this union are one number.
    let count = unsafe { query.__bindgen_anon_2.prog_cnt };
    Ok(ids[..count.min(MAX_PROGRAMS) as usize].to_vec())
}
