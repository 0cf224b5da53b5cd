//! Raw Ethernet frames: sending and capturing.

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
    parse::{ParsedFrame, parse},
    wire::{ArpFrame, VlanTag},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg},
};

use crate::{frame::Frame, namespace::Namespace};

/// The largest number of frames in one call, because tests share the machine.
const MOST_AT_ONCE: usize = 1_000_000;

/// Timeout for space in a transmit queue.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5);

/// The receive buffer in bytes: room for about 20 000 small frames with the kernel's overhead. The default has room
/// for a few hundred.
const BACKLOG: usize = 16 << 20;

/// The receive buffer of one frame in bytes, larger than any frame of the tests.
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
        // Protocol 0: the socket receives nothing.
        let (socket, link) = namespace.enter(|| open(interface, None))?;
        Ok(Self { socket, link })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &Frame) -> anyhow::Result<()> {
        self.send_bytes(&frame.bytes())
    }

    /// Sends frames in order without loss up to the receiving end of the veth pair.
    pub fn send_all<'a>(&self, frames: impl IntoIterator<Item = &'a Frame>) -> anyhow::Result<()> {
        for (number, frame) in frames.into_iter().enumerate() {
            ensure!(number < MOST_AT_ONCE, "more than {MOST_AT_ONCE} frames");
            self.send(frame)?;
        }
        Ok(())
    }

    /// Sends any bytes; the kernel requires at least the 14 bytes of an Ethernet header.
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
                // The queue of the receiving end is full and the frame was dropped: send it again.
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

/// Sends frames whose socket buffer has only the Ethernet header in its linear part and the rest in pages.
#[derive(Debug)]
pub struct ScatteringSender(Sender);

impl ScatteringSender {
    /// The shortest frame that is sent nonlinear; the kernel makes shorter ones linear (`packet_alloc_skb` in
    /// `net/packet/af_packet.c`).
    pub const SHORTEST: usize = 4096;

    const ETHERNET_HEADER: u16 = 14;

    pub(crate) fn open(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        let sender = Sender::open(namespace, interface)?;
        setsockopt(&sender.socket, VirtioHeader, &true)
            .context("cannot enable the virtio header of a packet socket")?;
        Ok(Self(sender))
    }

    /// Sends a frame of at least [`Self::SHORTEST`] bytes.
    pub fn send(&self, frame: &Frame) -> anyhow::Result<()> {
        let frame = frame.bytes();
        ensure!(
            frame.len() >= Self::SHORTEST,
            "a frame of {} bytes would be linear",
            frame.len()
        );
        // flags and gso_type 0; hdr_len; gso_size, csum_start and csum_offset 0.
        let mut bytes = vec![0; 10];
        bytes[2..4].copy_from_slice(&Self::ETHERNET_HEADER.to_ne_bytes());
        bytes.extend(frame);
        self.0.send_bytes(&bytes)
    }
}

/// Sends frames in batches, to generate load.
#[derive(Debug)]
pub struct BatchSender(OwnedFd);

impl BatchSender {
    /// The number of frames in a batch.
    pub const BATCH: usize = 64;

    /// Sends as many of these frames as fit into a batch and the queue; returns their number.
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
            // The queue of the receiving end is full, or a signal arrived.
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error).context("cannot send a batch of frames"),
        }
    }
}

impl TryFrom<Sender> for BatchSender {
    type Error = anyhow::Error;

    fn try_from(sender: Sender) -> anyhow::Result<Self> {
        // Bound to the interface, so that messages need no address.
        bind(sender.socket.as_raw_fd(), &sender.link).context("cannot bind a packet socket")?;
        Ok(Self(sender.socket))
    }
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The bytes of the frame. The kernel removes the outermost VLAN tag of a received frame.
    pub bytes: Vec<u8>,
    /// Whether the host sent the frame.
    pub sent: bool,
}

impl Captured {
    /// The frame parsed as ARP, if it is a valid ARP frame.
    pub fn arp(&self) -> Option<ArpFrame> {
        match parse(&self.bytes.as_slice(), VlanTag::NONE) {
            ParsedFrame::Arp(frame) => Some(frame),
            ParsedFrame::Malformed(_) | ParsedFrame::NotArp => None,
        }
    }
}

/// Captures every frame on one interface since it was opened.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    link: LinkAddr,
}

impl Capture {
    pub(crate) fn open(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        let (socket, link) = namespace.enter(|| open(interface, Some(SockProtocol::EthAll)))?;
        setsockopt(&socket, RcvBufForce, &BACKLOG)
            .context("cannot enlarge a receive buffer (needs CAP_NET_ADMIN)")?;
        Ok(Self { socket, link })
    }

    /// The next frame, or `None` after the timeout.
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
            // The socket is not bound to an interface (nix cannot build the required address), so it also receives
            // loopback frames.
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

    /// The next ARP frame that `wanted` accepts; other frames are skipped.
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

/// Opens a packet socket in the namespace of the calling thread; returns it with the address of the interface.
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
    .context("cannot open a packet socket (needs CAP_NET_RAW)")?;
    Ok((socket, link))
}
