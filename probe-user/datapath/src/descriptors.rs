//! File descriptors that are kept for detection, so that no client of the daemon can use them up.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What checking and attaching take at once: a netlink socket, directories, and the links, programs and files of one
/// interface.
const RESERVED: usize = 16;

/// The soft limit that the daemon works with at least: its connections, its rings, and two links on each interface.
pub const MIN_DESCRIPTORS: u64 = 512;

/// Descriptors that are open for nothing, until they are needed.
#[derive(Debug)]
pub struct DescriptorReserve(Vec<OwnedFd>);

impl DescriptorReserve {
    /// Takes them.
    pub fn new() -> io::Result<Self> {
        let mut reserve = Self(Vec::with_capacity(RESERVED));
        reserve.fill()?;
        Ok(reserve)
    }

    /// Gives them free, for what comes next.
    pub fn release(&mut self) {
        self.0.clear();
    }

    /// Takes those back that are free.
    pub fn fill(&mut self) -> io::Result<()> {
        while self.0.len() < RESERVED {
            self.0.push(File::open("/dev/null")?.into());
        }
        Ok(())
    }
}

/// Raises the soft limit of descriptors to the hard limit, which takes no capability; a seccomp filter may refuse it.
/// Returns the limit that holds then; `None` is unlimited.
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
        tracing::debug!(%error, "RLIMIT_NOFILE stays as it is");
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
    fn what_is_released_is_taken_back() {
        let mut reserve = DescriptorReserve::new().unwrap();
        assert_eq!(reserve.0.len(), RESERVED);
        reserve.release();
        assert_eq!(reserve.0.len(), 0);
        reserve.fill().unwrap();
        assert_eq!(reserve.0.len(), RESERVED);
    }
}
