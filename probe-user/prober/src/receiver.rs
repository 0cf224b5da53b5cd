//! A packet socket that receives replies.
//!
//! It receives frames after all XDP programs and before the network stack (`__netif_receive_skb_core`), so it works beside
//! the hooks of this and other programs. Frames that another program drops, redirects or consumes before are not received.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, bind, recvmsg,
        setsockopt, socket, sockopt::SetBool,
    },
};
use probe_common::{
    parse::{ParsedFrame, parse},
    wire::{ArpFrame, VlanTag, ethertype},
};
use socket2::{SockFilter, SockRef};
use tokio::io::{Interest, unix::AsyncFd};

use super::{ArpSocketError, socket::link_layer_address};

/// The size of the buffer: at least the largest ARP frame with Ethernet header and two tags. Longer frames are truncated.
const BUFFER_BYTES: usize = 128;

/// The size of the control buffer: more than the header of a control message and a `struct tpacket_auxdata`.
const CONTROL_BYTES: usize = 64;

/// `pkttype` of frames that this host sent (`PACKET_OUTGOING`, `include/uapi/linux/if_packet.h`).
const PACKET_OUTGOING: u8 = 4;

/// The socket option with which the kernel passes the stripped VLAN tag of each frame.
#[derive(Clone, Copy, Debug)]
struct AuxiliaryData;

nix::setsockopt_impl!(
    AuxiliaryData,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool,
    SetBool
);

/// A received or sent ARP frame with its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedFrame {
    /// The frame, including a VLAN tag that the kernel stripped.
    pub frame: ArpFrame,
    /// The index of the interface.
    pub ifindex: u32,
    /// Whether this host sent it.
    pub is_outgoing: bool,
}

/// Receives all ARP frames on an interface, received and sent ones, in all VLANs.
#[derive(Debug)]
pub struct ArpReceiver {
    socket: OwnedFd,
}

impl ArpReceiver {
    /// Opens a socket for one interface, or for all of them.
    pub fn open(ifindex: Option<u32>) -> Result<Self, ArpSocketError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol until it is bound, so that no frame is queued before the filter is attached.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        SockRef::from(&socket)
            .attach_filter(&arp_filter())
            .map_err(ArpSocketError::Other)?;
        setsockopt(&socket, AuxiliaryData, &true)?;
        // Not ETH_P_ARP: such a socket receives frames of VLANs without an interface on this host as untagged frames,
        // because the kernel clears the tag before it calls the handlers of a protocol.
        let all = u16::try_from(libc::ETH_P_ALL).unwrap_or_default();
        let address = link_layer_address(ifindex.unwrap_or_default(), all).ok_or(Errno::ENXIO)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self { socket })
    }

    /// Registers the socket with the async runtime to wait until it is readable.
    pub fn readable(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of the socket, which never changes and is open as long as `self` lives.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }.map_err(Into::into)
    }

    /// Receives the next queued frame; `None` if the queue is empty.
    pub fn receive(&self) -> io::Result<Option<ReceivedFrame>> {
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            let mut control = vec![0; CONTROL_BYTES];
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let message = match recvmsg::<LinkAddr>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut control),
                MsgFlags::empty(),
            ) {
                Ok(message) => message,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(None),
                // Returned once when the interface goes down; frames queued before can still be received.
                Err(errno) => return Err(errno.into()),
            };
            let (length, from) = (message.bytes, message.address);
            let tag = message.cmsgs().map_or(VlanTag::NONE, |mut messages| {
                messages.find_map(stripped_tag).unwrap_or(VlanTag::NONE)
            });
            let Some(from) = from else { continue };
            if let ParsedFrame::Arp(frame) = parse(&buffer.get(..length).unwrap_or_default(), tag) {
                return Ok(Some(ReceivedFrame {
                    frame,
                    ifindex: u32::try_from(from.ifindex()).unwrap_or_default(),
                    is_outgoing: from.pkttype() == PACKET_OUTGOING,
                }));
            }
        }
    }
}

impl AsFd for ArpReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for ArpReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The tag in a `struct tpacket_auxdata` (`include/uapi/linux/if_packet.h`).
fn stripped_tag(message: ControlMessageOwned) -> Option<VlanTag> {
    const VLAN_VALID: u32 = 1 << 4;
    const TPID_VALID: u32 = 1 << 6;
    let ControlMessageOwned::Unknown(message) = message else {
        return None;
    };
    let is_auxdata = message.cmsg_header.cmsg_level == libc::SOL_PACKET
        && message.cmsg_header.cmsg_type == libc::PACKET_AUXDATA;
    let data = &message.data_bytes;
    let status = u32::from_ne_bytes(*data.first_chunk()?);
    if !is_auxdata || status & VLAN_VALID == 0 {
        return None;
    }
    let field = |offset| Some(u16::from_ne_bytes(*data.get(offset..)?.first_chunk()?));
    let tpid = if status & TPID_VALID == 0 {
        ethertype::VLAN
    } else {
        field(18)?
    };
    Some(VlanTag::new(tpid, field(16)?))
}

/// A classic BPF filter for ARP after up to two VLAN tags in the bytes, not counting a stripped tag. Other frames cost up to
/// three comparisons.
fn arp_filter() -> [SockFilter; 11] {
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let load = |offset| SockFilter::new(LOAD_HALF, 0, 0, offset);
    let equal = |value: u16, yes, no| SockFilter::new(JUMP_IF_EQUAL, yes, no, value.into());
    let accept = |bytes| SockFilter::new(RETURN, 0, 0, bytes);
    [
        load(12),
        equal(ethertype::ARP, 8, 0),
        equal(ethertype::VLAN, 1, 0),
        equal(ethertype::QINQ, 0, 5),
        load(16),
        equal(ethertype::ARP, 4, 0),
        equal(ethertype::VLAN, 0, 2),
        load(20),
        equal(ethertype::ARP, 1, 0),
        accept(0),
        accept(128),
    ]
}
