//! Reserves file descriptors for detection, so that clients of the daemon cannot exhaust them.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of descriptors that checking and attaching require at once: a netlink socket, directories, and the links,
/// programs and files of one interface.
const RESERVED: usize = 16;

/// The minimum of the soft limit for the daemon: its connections, its rings, and two links on each interface.
pub const MIN_DESCRIPTORS: u64 = 512;

/// Open descriptors of `/dev/null`, which are closed when others are needed.
#[derive(Debug)]
pub struct DescriptorReserve(Vec<OwnedFd>);

impl DescriptorReserve {
    /// Opens the descriptors.
    pub fn new() -> io::Result<Self> {
        let mut reserve = Self(Vec::with_capacity(RESERVED));
        reserve.fill()?;
        Ok(reserve)
    }

    /// Closes the descriptors, so that others can be opened.
    pub fn release(&mut self) {
        self.0.clear();
    }

    /// Opens descriptors until all are reserved again.
    pub fn fill(&mut self) -> io::Result<()> {
        while self.0.len() < RESERVED {
            self.0.push(File::open("/dev/null")?.into());
        }
        Ok(())
    }
}

/// Raises the soft limit of descriptors to the hard limit, which requires no capability; a seccomp filter may reject it.
/// Returns the resulting limit; `None` is unlimited.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "cannot raise RLIMIT_NOFILE");
        return current;
    }
    maximum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_limit() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
        assert_eq!(getrlimit(Resource::Nofile).maximum, limit);
    }

    #[test]
    fn released_descriptors_are_reserved_again() {
        let mut reserve = DescriptorReserve::new().unwrap();
        assert_eq!(reserve.0.len(), RESERVED);
        reserve.release();
        assert_eq!(reserve.0.len(), 0);
        reserve.fill().unwrap();
        assert_eq!(reserve.0.len(), RESERVED);
    }
}
