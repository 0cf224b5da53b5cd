//! Encodes the only type of frame that this program sends.

use std::net::Ipv4Addr;

use probe_common::{
    encode::EncodedFrame,
    wire::{ArpFrame, MacAddr, Vlan, VlanTag, ethertype},
};

/// The minimum length of an Ethernet frame without its checksum, in bytes (IEEE 802.3 section 3.2.8).
const MIN_FRAME_BYTES: usize = 60;

/// An ARP probe or an ARP request for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpProbe {
    /// The probed address (tpa).
    pub target: Ipv4Addr,
    /// The MAC of the source interface (sha).
    pub sender_mac: MacAddr,
    /// The sender address (spa): an address of this host, for devices that do not reply to ARP probes. A request with it
    /// updates the neighbour entries of other hosts for this address. `None` is an ARP probe.
    pub sender_ip: Option<Ipv4Addr>,
    /// The destination of a unicast frame; `None` is broadcast.
    pub destination: Option<MacAddr>,
    /// The VLAN of the frame.
    pub vlan: Vlan,
}

impl ArpProbe {
    /// Encodes the frame.
    ///
    /// ARP probes are marked by a target hardware address that equals the sender's. RFC 5227 section 1.1 requires
    /// receivers to ignore this field (and recommends zero); hosts that probe an address before they use it do not fill it
    /// like this. By the mark, agents recognize probes of other agents and do not report `probe_denied` for them. ARP
    /// requests have no mark, because their sender address distinguishes them.
    pub fn to_frame(&self) -> Vec<u8> {
        // The outer one of two tags is a service tag (802.1ad).
        let tags = match self.vlan.0 {
            [0, _] => [VlanTag::NONE; 2],
            [vid, 0] => [VlanTag::new(ethertype::VLAN, vid), VlanTag::NONE],
            [outer, inner] => [
                VlanTag::new(ethertype::QINQ, outer),
                VlanTag::new(ethertype::VLAN, inner),
            ],
        };
        let frame = ArpFrame {
            eth_dst: self.destination.unwrap_or(MacAddr::BROADCAST),
            eth_src: self.sender_mac,
            tags,
            oper: ArpFrame::REQUEST,
            sha: self.sender_mac,
            spa: self.sender_ip.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
            tha: match self.sender_ip {
                None => self.sender_mac,
                Some(_) => MacAddr::ZERO,
            },
            tpa: self.target.octets(),
        };
        let mut bytes = EncodedFrame::new(&frame).to_vec();
        bytes.resize(bytes.len().max(MIN_FRAME_BYTES), 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use probe_common::{
        parse::{ParsedFrame, parse},
        wire::FrameKind,
    };

    use super::*;

    const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn broadcast_probe() -> ArpProbe {
        ArpProbe {
            target: Ipv4Addr::new(192, 0, 2, 7),
            sender_mac: SENDER,
            sender_ip: None,
            destination: None,
            vlan: Vlan::UNTAGGED,
        }
    }

    fn parsed(probe: ArpProbe) -> ArpFrame {
        let frame = probe.to_frame();
        assert!(frame.len() >= MIN_FRAME_BYTES);
        match parse(&frame.as_slice(), VlanTag::NONE) {
            ParsedFrame::Arp(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn by_default_it_is_a_broadcast_arp_probe_without_a_claim() {
        let frame = parsed(broadcast_probe());
        assert_eq!(frame.kind(), FrameKind::Probe);
        assert_eq!((frame.eth_src, frame.sha), (SENDER, SENDER));
        assert_eq!(frame.eth_dst, MacAddr::BROADCAST);
        assert_eq!((frame.tha, frame.tpa), (SENDER, [192, 0, 2, 7]), "marked");
        assert_eq!(frame.vlan(), Vlan::UNTAGGED);
    }

    #[test]
    fn it_can_be_a_unicast_request_with_a_sender_address_on_a_vlan() {
        let one = MacAddr([2, 0, 0, 0, 0, 9]);
        for vlan in [Vlan([100, 0]), Vlan([100, 200])] {
            let frame = parsed(ArpProbe {
                sender_ip: Some(Ipv4Addr::new(192, 0, 2, 1)),
                destination: Some(one),
                vlan,
                ..broadcast_probe()
            });
            assert_eq!(frame.eth_dst, one);
            assert_eq!(frame.kind(), FrameKind::Claim);
            assert_eq!((frame.spa, frame.tha), ([192, 0, 2, 1], MacAddr::ZERO));
            assert_eq!(frame.vlan(), vlan);
        }
    }
}
