//! Checks whether a program is still attached and first. Other processes may detach it or attach before it.

use std::{
    fs::{self, File},
    io, mem,
    os::unix::fs::FileExt as _,
    path::Path,
};

use aya::programs::links::FdLink;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};
use probe_common::counter::Direction;

use super::KernelError;

/// How a program was displaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisplacedProgram {
    /// It is no longer attached.
    #[error("another process detached one of our programs")]
    Detached,
    /// Another program runs before it and may hide frames.
    #[error("another TC program runs before ours and may hide frames")]
    Behind,
}

/// The status of an attachment. After a failed check it is unknown, and nothing is detached.
#[derive(Debug)]
pub enum AttachmentStatus {
    /// The programs are attached and first.
    InPlace,
    /// A program was displaced.
    Displaced(DisplacedProgram),
    /// The check failed.
    Unknown(io::Error),
}

impl AttachmentStatus {
    /// The combined status of two parts: displaced takes precedence over unknown.
    pub(crate) fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Displaced(_) => self,
            Self::InPlace => other(),
            Self::Unknown(_) => match other() {
                displaced @ Self::Displaced(_) => displaced,
                Self::InPlace | Self::Unknown(_) => self,
            },
        }
    }
}

/// The fdinfo file of a BPF link, which contains the interface that it is attached to. Unlike a query for programs by ID,
/// reading it requires no capability; and because it stays open, no new descriptor.
#[derive(Debug)]
pub struct LinkPosition(File);

impl LinkPosition {
    /// Opens the fdinfo file of a link of this process.
    pub fn of(link: &FdLink) -> Result<Self, KernelError> {
        let id = link.info().map_err(KernelError::Link)?.id();
        let entries = fs::read_dir("/proc/self/fdinfo").map_err(KernelError::LinkPosition)?;
        for entry in entries {
            let path = entry.map_err(KernelError::LinkPosition)?.path();
            if let Some(file) = open_if_link(&path, id).map_err(KernelError::LinkPosition)? {
                return Ok(Self(file));
            }
        }
        Err(KernelError::LinkPosition(io::ErrorKind::NotFound.into()))
    }

    /// Whether the link is still attached to the interface. A detached link has interface index 0.
    pub fn status(&self, ifindex: u32) -> AttachmentStatus {
        match read_fdinfo(&self.0) {
            Err(error) => AttachmentStatus::Unknown(error),
            Ok(text) => link_status(&text, ifindex),
        }
    }
}

fn link_status(fdinfo: &str, ifindex: u32) -> AttachmentStatus {
    match number(fdinfo, "ifindex") {
        Some(found) if found == ifindex => AttachmentStatus::InPlace,
        Some(_) => AttachmentStatus::Displaced(DisplacedProgram::Detached),
        // This kernel does not report the interface.
        None => AttachmentStatus::InPlace,
    }
}

/// Opens a file of `/proc/self/fdinfo`; `None` if it is not that of the BPF link with this ID.
fn open_if_link(path: &Path, id: u32) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        // Another thread has closed the descriptor in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match read_fdinfo(&file) {
        Ok(text) => Ok((number(&text, "link_id") == Some(id)).then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file of `/proc/self/fdinfo` from its start; the kernel generates it for each such read.
fn read_fdinfo(file: &File) -> io::Result<String> {
    /// The kernel writes less than a page.
    const MAX_BYTES: usize = 4_096;
    let mut text = [0; MAX_BYTES];
    let read = file.read_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(&text[..read]).into_owned())
}

/// The number after `name:`.
fn number(fdinfo: &str, name: &str) -> Option<u32> {
    fdinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key == name).then(|| value.trim().parse().ok())?)
}

/// The IDs of the programs that are attached by TCX, in the order in which they run.
///
/// aya's function for this opens each program, which requires `CAP_SYS_ADMIN`.
pub fn tcx_programs(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    /// More programs than are chained in practice; the kernel returns ENOSPC if there are more.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_link_has_interface_0_and_an_older_kernel_reports_none() {
        let fdinfo =
            |ifindex| format!("pos:\t0\nlink_type:\ttcx\nlink_id:\t7\nifindex:\t{ifindex}\n");
        assert!(matches!(
            link_status(&fdinfo(3), 3),
            AttachmentStatus::InPlace
        ));
        assert!(matches!(
            link_status(&fdinfo(0), 3),
            AttachmentStatus::Displaced(DisplacedProgram::Detached)
        ));
        assert!(matches!(
            link_status("link_id:\t7\n", 3),
            AttachmentStatus::InPlace
        ));
    }

    #[test]
    fn an_unreadable_fdinfo_file_does_not_prove_that_a_program_is_detached() {
        let directory = tempfile::tempdir().unwrap();
        // Reading a directory is an error.
        let unreadable = LinkPosition(File::open(directory.path()).unwrap());
        assert!(matches!(unreadable.status(3), AttachmentStatus::Unknown(_)));
    }

    #[test]
    fn displaced_takes_precedence_over_unknown() {
        let unknown = || AttachmentStatus::Unknown(io::ErrorKind::Other.into());
        let displaced = || AttachmentStatus::Displaced(DisplacedProgram::Behind);
        let in_place = || AttachmentStatus::InPlace;
        assert!(matches!(
            unknown().and(displaced),
            AttachmentStatus::Displaced(_)
        ));
        assert!(matches!(
            displaced().and(unknown),
            AttachmentStatus::Displaced(_)
        ));
        assert!(matches!(
            in_place().and(unknown),
            AttachmentStatus::Unknown(_)
        ));
        assert!(matches!(
            unknown().and(in_place),
            AttachmentStatus::Unknown(_)
        ));
        assert!(matches!(
            in_place().and(in_place),
            AttachmentStatus::InPlace
        ));
    }
}
