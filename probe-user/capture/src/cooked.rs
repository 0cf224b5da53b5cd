//! Packets of captures on the pseudo-device `any`, whose Ethernet header was replaced by a "cooked" one.
//!
//! Source: <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html> and `LINKTYPE_LINUX_SLL2.html`. All fields are in
//! network byte order.

use probe_common::{event::Hook, wire::MacAddr};

/// `ARPHRD_ETHER` (`linux/if_arp.h`).
const ETHERNET: u16 = 1;
/// The offset of the target hardware address in an ARP packet for Ethernet and IPv4 (RFC 826).
const TARGET_MAC: usize = 18;

/// The cooked headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CookedHeader {
    /// `LINUX_SLL`, 16 bytes.
    Sll,
    /// `LINUX_SLL2`, 20 bytes, which has the index of the interface.
    Sll2,
}

/// A packet with an Ethernet header again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CookedPacket {
    /// The index of the interface, if the header has it.
    pub interface: Option<u32>,
    /// The hook that sees such a packet.
    pub hook: Hook,
    /// The Ethernet frame. A cooked header has no destination: it is the broadcast address for a packet to all, otherwise
    /// the target of the ARP packet.
    pub frame: Vec<u8>,
}

impl CookedPacket {
    /// Parses a packet; `None` if it is cut off within the header, or not of an Ethernet interface.
    pub fn parse(header: CookedHeader, bytes: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let (hardware, kind, source, protocol, interface, length) = match header {
            CookedHeader::Sll => (half(2)?, half(0)?, 6, half(14)?, None, 16),
            CookedHeader::Sll2 => {
                let index = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
                let kind = u16::from(*bytes.get(10)?);
                (half(8)?, kind, 12, half(0)?, Some(index), 20)
            }
        };
        if hardware != ETHERNET {
            return None;
        }
        let source: [u8; 6] = *bytes.get(source..)?.first_chunk()?;
        let payload = bytes.get(length..)?;
        let target = payload
            .get(TARGET_MAC..)
            .and_then(|rest| rest.first_chunk().copied())
            .map(MacAddr)
            .filter(|&mac| mac != MacAddr::ZERO);
        let destination = match PacketKind::of(kind) {
            PacketKind::Broadcast => MacAddr::BROADCAST,
            PacketKind::Other | PacketKind::Outgoing => target.unwrap_or(MacAddr::BROADCAST),
        };
        let hook = match PacketKind::of(kind) {
            PacketKind::Outgoing => Hook::TcEgress,
            PacketKind::Broadcast | PacketKind::Other => Hook::TcIngress,
        };
        let mut frame = destination.0.to_vec();
        frame.extend(source);
        frame.extend(protocol.to_be_bytes());
        frame.extend(payload);
        Some(Self {
            interface,
            hook,
            frame,
        })
    }
}

/// To whom a packet was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PacketKind {
    /// By another host to all.
    Broadcast,
    /// By another host to this one, to a group or to a third one.
    Other,
    /// By this host.
    Outgoing,
}

impl PacketKind {
    const fn of(number: u16) -> Self {
        match number {
            1 => Self::Broadcast,
            4 => Self::Outgoing,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const TARGET: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn arp() -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 2];
        packet.extend(SENDER);
        packet.extend([192, 0, 2, 1]);
        packet.extend(TARGET);
        packet.extend([192, 0, 2, 2]);
        packet
    }

    fn sll(kind: u8, hardware: u8) -> Vec<u8> {
        let mut packet = vec![0, kind, 0, hardware, 0, 6];
        packet.extend(SENDER);
        packet.extend([0, 0, 8, 6]);
        packet.extend(arp());
        packet
    }

    fn sll2(kind: u8) -> Vec<u8> {
        let mut packet = vec![8, 6, 0, 0, 0, 0, 0, 7, 0, 1, kind, 6];
        packet.extend(SENDER);
        packet.extend([0, 0]);
        packet.extend(arp());
        packet
    }

    fn ethernet(destination: [u8; 6]) -> Vec<u8> {
        let mut frame = destination.to_vec();
        frame.extend(SENDER);
        frame.extend([8, 6]);
        frame.extend(arp());
        frame
    }

    #[test]
    fn both_headers_give_the_frame_the_direction_and_the_interface() {
        let parse = |header, bytes: Vec<u8>| CookedPacket::parse(header, &bytes).unwrap();
        for (kind, destination, hook) in [
            (0, TARGET, Hook::TcIngress),
            (1, [0xff; 6], Hook::TcIngress),
            (3, TARGET, Hook::TcIngress),
            (4, TARGET, Hook::TcEgress),
        ] {
            let expected = |interface| CookedPacket {
                interface,
                hook,
                frame: ethernet(destination),
            };
            assert_eq!(parse(CookedHeader::Sll, sll(kind, 1)), expected(None));
            assert_eq!(parse(CookedHeader::Sll2, sll2(kind)), expected(Some(7)));
        }
    }

    #[test]
    fn packets_of_other_hardware_and_cut_off_headers_are_none() {
        assert_eq!(CookedPacket::parse(CookedHeader::Sll, &sll(0, 0x77)), None);
        for length in 0..16 {
            let cut = &sll(0, 1)[..length];
            assert_eq!(CookedPacket::parse(CookedHeader::Sll, cut), None);
        }
        for length in 0..20 {
            let cut = &sll2(0)[..length];
            assert_eq!(CookedPacket::parse(CookedHeader::Sll2, cut), None);
        }
    }
}
