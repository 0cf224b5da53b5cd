//! A packet socket that hears the answers.
//!
//! Frames reach it after every XDP program and before the stack (`__netif_receive_skb_core`), so it works
//! beside this program's own hooks and those of others. What a program of somebody else drops, redirects or
//! consumes before that is not heard.

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

/// Room for the largest frame of interest: Ethernet, two tags in the bytes, ARP; more is cut off unread.
const BUFFER_BYTES: usize = 128;

/// The header of a control message and a `struct tpacket_auxdata`, and to spare.
const CONTROL_BYTES: usize = 64;

/// `pkttype` of frames that this host sent (`PACKET_OUTGOING`, `include/uapi/linux/if_packet.h`).
const PACKET_OUTGOING: u8 = 4;

/// Every received frame comes with what the kernel took out of its bytes: the VLAN tag.
#[derive(Clone, Copy, Debug)]
struct AuxiliaryData;

nix::setsockopt_impl!(
    AuxiliaryData,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool,
    SetBool
);

/// An ARP frame, and where it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedFrame {
    /// The frame, with the tag that the kernel keeps beside it.
    pub frame: ArpFrame,
    /// Index of the interface.
    pub ifindex: u32,
    /// Whether this host sent it.
    pub is_outgoing: bool,
}

/// Hears every ARP frame on an interface, in whatever VLAN, received and sent.
#[derive(Debug)]
pub struct ArpReceiver {
    socket: OwnedFd,
}

impl ArpReceiver {
    /// Listens on one interface, or on all of them.
    pub fn open(ifindex: Option<u32>) -> Result<Self, ArpSocketError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Of no protocol until it is bound: nothing is queued before the filter is in place.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        SockRef::from(&socket)
            .attach_filter(&arp_filter())
            .map_err(ArpSocketError::Other)?;
        setsockopt(&socket, AuxiliaryData, &true)?;
        // Not ETH_P_ARP: such a socket hears frames of VLANs that are not configured here as if they were
        // untagged (the tag is cleared before the handlers of a protocol are called).
        let all = u16::try_from(libc::ETH_P_ALL).unwrap_or_default();
        let address = link_layer_address(ifindex.unwrap_or_default(), all).ok_or(Errno::ENXIO)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self { socket })
    }

    /// Registers the socket with the runtime, to wait until it is readable.
    pub fn readable(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of the socket, which never changes and is open as long as `self` lives.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }.map_err(Into::into)
    }

    /// The next frame that waits; `None` if none does.
    pub fn receive(&self) -> io::Result<Option<ReceivedFrame>> {
        let mut room = [0; BUFFER_BYTES];
        loop {
            let mut control = vec![0; CONTROL_BYTES];
            let mut slices = [IoSliceMut::new(&mut room)];
            let message = match recvmsg::<LinkAddr>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut control),
                MsgFlags::empty(),
            ) {
                Ok(message) => message,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(None),
                // Said once of an interface that went down; what it said before can still be read.
                Err(errno) => return Err(errno.into()),
            };
            let (length, from) = (message.bytes, message.address);
            let tag = message.cmsgs().map_or(VlanTag::NONE, |mut messages| {
                messages.find_map(stripped_tag).unwrap_or(VlanTag::NONE)
            });
            let Some(from) = from else { continue };
            if let ParsedFrame::Arp(frame) = parse(&room.get(..length).unwrap_or_default(), tag) {
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

/// Classic BPF: the ethertype is ARP, or ARP follows the tags in the bytes. The outermost tag is not in the
/// bytes; of the rest of a busy interface's traffic, this costs a comparison or three.
fn arp_filter() -> [SockFilter; 11] {
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let load = |offset| SockFilter::new(LOAD_HALF, 0, 0, offset);
    let equal = |value: u16, yes, no| SockFilter::new(JUMP_IF_EQUAL, yes, no, value.into());
    let give = |bytes| SockFilter::new(RETURN, 0, 0, bytes);
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
        give(0),
        give(128),
    ]
}
