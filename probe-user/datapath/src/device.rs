//! Whether an attached program is still attached, and is first. Others may detach it or attach before it.

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

/// What happened to a program that is not where it was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisplacedProgram {
    /// It is not attached any more.
    #[error("somebody detached a program of ours")]
    Detached,
    /// Another one sees frames first, and may keep them from ours.
    #[error("another TC program went in front of ours, and may hide frames")]
    Behind,
}

/// Whether an attachment is as it was made. An error while checking is no answer: nothing is detached because of it.
#[derive(Debug)]
pub enum AttachmentStatus {
    /// It is.
    InPlace,
    /// It is not.
    Displaced(DisplacedProgram),
    /// It could not be checked.
    Unknown(io::Error),
}

impl AttachmentStatus {
    /// The status of two parts together: what is displaced wins over what is unknown.
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

/// The file in which the kernel says what a link of ours is attached to. Unlike a query for programs by their
/// number, reading it takes no capability; and because it stays open, it takes no new descriptor either.
#[derive(Debug)]
pub struct LinkPosition(File);

impl LinkPosition {
    /// Finds the file of a link that this process holds.
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

    /// Whether the link is still attached to the interface. A link that somebody detached stays behind
    /// with interface 0.
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
        // A kernel that does not name the interface says nothing against it.
        None => AttachmentStatus::InPlace,
    }
}

/// Opens a file of `/proc/self/fdinfo` if it is about the BPF link with this number.
fn open_if_link(path: &Path, id: u32) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        // A descriptor that another thread has closed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match read_fdinfo(&file) {
        Ok(text) => Ok((number(&text, "link_id") == Some(id)).then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file of `/proc/self/fdinfo` from its start: the kernel writes it anew for each such read.
fn read_fdinfo(file: &File) -> io::Result<String> {
    /// The kernel writes less than a page.
    const MAX_BYTES: usize = 4_096;
    let mut text = [0; MAX_BYTES];
    let read = file.read_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(&text[..read]).into_owned())
}

/// The number behind `name:`.
fn number(fdinfo: &str, name: &str) -> Option<u32> {
    fdinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key == name).then(|| value.trim().parse().ok())?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_link_has_interface_0_and_an_older_kernel_names_none() {
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
    fn a_file_that_cannot_be_read_is_no_proof_of_a_detached_program() {
        let directory = tempfile::tempdir().unwrap();
        // Reading a directory is an error.
        let unreadable = LinkPosition(File::open(directory.path()).unwrap());
        assert!(matches!(unreadable.status(3), AttachmentStatus::Unknown(_)));
    }

    #[test]
    fn what_is_displaced_wins_over_what_is_unknown() {
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
