//! A packet socket that sends ARP probes.

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
        "sending ARP probes requires CAP_NET_RAW, which this process lacks: run as root, or `setcap cap_net_raw+ep` the program"
    )]
    NotPermitted,
    /// Another error.
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

/// Sends ARP probes. Its frames pass the TC programs on egress like those of other senders, so the egress hook of this
/// program observes them.
#[derive(Debug)]
pub struct ArpSocket {
    socket: OwnedFd,
}

impl ArpSocket {
    /// Opens a socket that only sends: with protocol 0, so that it receives no frames (packet(7)).
    pub fn sender() -> Result<Self, ArpSocketError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        Ok(Self { socket })
    }

    /// Sends a probe through an interface.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` or `ENXIO` if the interface is down or was removed, `ENOBUFS` or `EAGAIN` if its queue is full. The frame
    /// was not sent then.
    pub fn send(&self, ifindex: u32, probe: &ArpProbe) -> io::Result<()> {
        let frame = probe.to_frame();
        let to = link_layer_address(ifindex, ethertype::ARP).ok_or(Errno::ENXIO)?;
        loop {
            match sendto(self.socket.as_raw_fd(), &frame, &to, MsgFlags::empty()) {
                // A packet socket sends a frame completely or not at all.
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The address of an interface and protocol for packet sockets; `None` if the index is out of range.
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
