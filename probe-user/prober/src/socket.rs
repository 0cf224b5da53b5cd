//! A packet socket that sends.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, sendto, socket,
    },
};
use probe_common::wire::ethertype;

use super::ArpProbe;

/// Why a packet socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ArpSocketError {
    /// The capability is missing.
    #[error(
        "asking takes CAP_NET_RAW, which this process lacks: run as root, or `setcap cap_net_raw+ep` the program"
    )]
    NotPermitted,
    /// Something else.
    #[error("cannot open a packet socket")]
    Other(#[source] io::Error),
}

impl From<Errno> for ArpSocketError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EPERM | Errno::EACCES => Self::NotPermitted,
            other => Self::Other(other.into()),
        }
    }
}

/// Sends questions. It stays out of the way of `tc` and XDP programs of others like any other sender, and
/// this program's own egress hook sees what it sends.
#[derive(Debug)]
pub struct ArpSocket {
    socket: OwnedFd,
}

impl ArpSocket {
    /// A socket that only sends: of protocol 0, so that nothing piles up in it (packet(7)).
    pub fn sender() -> Result<Self, ArpSocketError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        Ok(Self { socket })
    }

    /// Asks through an interface. Errors are the interface's (`ENETDOWN`, `ENXIO`: it is down, or gone) or say
    /// that its queue is full (`ENOBUFS`, `EAGAIN`): the frame was not sent.
    pub fn send(&self, ifindex: u32, question: &ArpProbe) -> io::Result<()> {
        let frame = question.to_frame();
        let to = link_layer_address(ifindex, ethertype::ARP).ok_or(Errno::ENXIO)?;
        loop {
            match sendto(self.socket.as_raw_fd(), &frame, &to, MsgFlags::empty()) {
                // A packet socket sends a frame whole or not at all.
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The address of an interface for packet sockets, with the protocol that is meant; `None` for an index that
/// none can have.
pub(super) fn link_layer_address(ifindex: u32, protocol: u16) -> Option<LinkAddr> {
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).ok()?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(ifindex).ok()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = u32::try_from(size_of_val(&raw)).ok()?;
    // SAFETY: the pointer is to a whole `sockaddr_ll` that outlives the call, and the length is its own.
    unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) }
}
