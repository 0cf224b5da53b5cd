//! Whole Ethernet frames, as bytes: sending any, seeing all.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom,
        sendto, setsockopt, socket,
        sockopt::{RcvBufForce, SetBool},
    },
};
use probe_common::{
    parse::{Parsed, parse},
    wire::{ArpFrame, VlanTag},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg},
};

use crate::{frame::Frame, namespace::Namespace};

/// More frames than this in one go are a mistake: tests share the machine with others.
const MOST_AT_ONCE: usize = 1_000_000;

/// How long a frame may wait for room in a queue.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5);

/// Bytes that may wait to be looked at: about 20 000 small frames, which the kernel counts with all their
/// overhead. The default has room for a few hundred.
const BACKLOG: usize = 16 << 20;

/// Larger than any frame here.
const ROOM: usize = 2048;

/// `pkttype` of frames that this host sent (`PACKET_OUTGOING`, `include/uapi/linux/if_packet.h`).
const OUTGOING: u8 = 4;

/// Sends frames through one interface.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    link: LinkAddr,
}

impl Sender {
    pub(crate) fn open(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        // Protocol 0: it receives nothing, so nothing piles up.
        let (socket, link) = namespace.enter(|| open(interface, None))?;
        Ok(Self { socket, link })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &Frame) -> anyhow::Result<()> {
        self.send_bytes(&frame.bytes())
    }

    /// Sends frames, one after the other, none of them lost on the way to the other end of the cable.
    pub fn send_all<'a>(&self, frames: impl IntoIterator<Item = &'a Frame>) -> anyhow::Result<()> {
        for (number, frame) in frames.into_iter().enumerate() {
            ensure!(number < MOST_AT_ONCE, "more than {MOST_AT_ONCE} frames");
            self.send(frame)?;
        }
        Ok(())
    }

    /// Sends any bytes; the kernel wants at least the 14 of an Ethernet header.
    pub fn send_bytes(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let deadline = Instant::now() + QUEUE_DEADLINE;
        loop {
            match sendto(
                self.socket.as_raw_fd(),
                bytes,
                &self.link,
                MsgFlags::empty(),
            ) {
                Ok(sent) => {
                    ensure!(sent == bytes.len(), "sent {sent} of {}", bytes.len());
                    return Ok(());
                }
                // The receiving end's queue is full; the frame was dropped and we know it.
                Err(Errno::ENOBUFS) if Instant::now() < deadline => thread::yield_now(),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot send a frame of {} bytes", bytes.len()));
                }
            }
        }
    }
}

/// Each frame that is sent is preceded by a `struct virtio_net_hdr`.
#[derive(Clone, Copy, Debug)]
struct VirtioHeader;

nix::setsockopt_impl!(
    VirtioHeader,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool,
    SetBool
);

/// Sends frames of which only the Ethernet header is in the linear part of the socket buffer, and all else in
/// pages of its own.
#[derive(Debug)]
pub struct ScatteringSender(Sender);

impl ScatteringSender {
    /// The kernel puts shorter frames into one piece, whatever is wished (`packet_alloc_skb` in
    /// `net/packet/af_packet.c`).
    pub const SHORTEST: usize = 4096;

    const ETHERNET_HEADER: u16 = 14;

    pub(crate) fn open(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        let sender = Sender::open(namespace, interface)?;
        setsockopt(&sender.socket, VirtioHeader, &true)
            .context("cannot ask for a virtio header on a packet socket")?;
        Ok(Self(sender))
    }

    /// Sends a frame, which has to be long enough.
    pub fn send(&self, frame: &Frame) -> anyhow::Result<()> {
        let frame = frame.bytes();
        ensure!(
            frame.len() >= Self::SHORTEST,
            "{} bytes are sent in one piece",
            frame.len()
        );
        // flags and gso_type 0; hdr_len; gso_size, csum_start and csum_offset 0.
        let mut bytes = vec![0; 10];
        bytes[2..4].copy_from_slice(&Self::ETHERNET_HEADER.to_ne_bytes());
        bytes.extend(frame);
        self.0.send_bytes(&bytes)
    }
}

/// Sends frames many at a time, for loads.
#[derive(Debug)]
pub struct BatchSender(OwnedFd);

impl BatchSender {
    /// Frames that go out in one call.
    pub const BATCH: usize = 64;

    /// Sends as many of these frames as fit into a batch and find room in the queue; says how many.
    pub fn send<F: AsRef<[u8]>>(&self, frames: &[F]) -> anyhow::Result<usize> {
        let slices: Vec<_> = frames
            .iter()
            .take(Self::BATCH)
            .map(|frame| [IoSlice::new(frame.as_ref())])
            .collect();
        let mut control: Vec<_> = slices
            .iter()
            .map(|_| SendAncillaryBuffer::default())
            .collect();
        let mut messages: Vec<_> = slices
            .iter()
            .zip(&mut control)
            .map(|(slice, control)| MMsgHdr::new(slice, control))
            .collect();
        match sendmmsg(&self.0, &mut messages, SendFlags::empty()) {
            Ok(sent) => Ok(sent),
            // The receiving end's queue is full, or a signal came.
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error).context("cannot send a batch of frames"),
        }
    }
}

impl TryFrom<Sender> for BatchSender {
    type Error = anyhow::Error;

    fn try_from(sender: Sender) -> anyhow::Result<Self> {
        // Bound to the interface, so that no message needs an address.
        bind(sender.socket.as_raw_fd(), &sender.link).context("cannot bind a packet socket")?;
        Ok(Self(sender.socket))
    }
}

/// A frame that was seen on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its bytes. The kernel takes the outermost VLAN tag of a received frame out of them.
    pub bytes: Vec<u8>,
    /// Whether the host sent it, rather than received it.
    pub sent: bool,
}

impl Captured {
    /// The frame as ARP, if it is that.
    pub fn arp(&self) -> Option<ArpFrame> {
        match parse(&self.bytes.as_slice(), VlanTag::NONE) {
            Parsed::Arp(frame) => Some(frame),
            Parsed::Malformed(_) | Parsed::NotArp => None,
        }
    }
}

/// Sees every frame on one interface from the moment it was opened.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    link: LinkAddr,
}

impl Capture {
    pub(crate) fn open(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        let (socket, link) = namespace.enter(|| open(interface, Some(SockProtocol::EthAll)))?;
        setsockopt(&socket, RcvBufForce, &BACKLOG)
            .context("cannot enlarge a receive buffer (it takes CAP_NET_ADMIN)")?;
        Ok(Self { socket, link })
    }

    /// The next frame, or `None` if none comes in time.
    pub fn next(&self, within: Duration) -> anyhow::Result<Option<Captured>> {
        let deadline = Instant::now() + within;
        let mut room = [0; ROOM];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut events = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut events, Some(&Timespec::try_from(left)?)) {
                Ok(0) if left.is_zero() => return Ok(None),
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error).context("cannot wait for a frame"),
            }
            let (length, from) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut room)?;
            // The socket is not bound to one interface (that would take an address which nix cannot make),
            // and loopback has frames, too.
            if let Some(from) = from
                && from.ifindex() == self.link.ifindex()
            {
                return Ok(Some(Captured {
                    bytes: room[..length].to_vec(),
                    sent: from.pkttype() == OUTGOING,
                }));
            }
        }
    }

    /// The next ARP frame that `wanted` accepts; all others before it are passed over.
    pub fn wait_for_arp(
        &self,
        within: Duration,
        mut wanted: impl FnMut(&ArpFrame) -> bool,
    ) -> anyhow::Result<ArpFrame> {
        let deadline = Instant::now() + within;
        let mut passed_over = 0;
        while let Some(frame) = self.next(deadline.saturating_duration_since(Instant::now()))? {
            match frame.arp() {
                Some(arp) if wanted(&arp) => return Ok(arp),
                _ => passed_over += 1,
            }
        }
        bail!("no such ARP frame within {within:?}; {passed_over} others")
    }
}

/// A packet socket in the namespace of the calling thread, and the address of the interface.
fn open(interface: &str, protocol: Option<SockProtocol>) -> anyhow::Result<(OwnedFd, LinkAddr)> {
    let link = getifaddrs()
        .context("cannot list interfaces")?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .with_context(|| format!("there is no interface {interface}"))?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )
    .context("cannot open a packet socket (it takes CAP_NET_RAW)")?;
    Ok((socket, link))
}
