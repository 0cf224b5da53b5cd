//! The one frame that is ever sent, byte for byte.

use std::net::Ipv4Addr;

use probe_common::{
    encode::EncodedFrame,
    wire::{ArpFrame, MacAddr, Vlan, VlanTag, ethertype},
};

/// The shortest Ethernet frame without its checksum (IEEE 802.3 section 3.2.8).
const MIN_FRAME_BYTES: usize = 60;

/// "Who has `target`?"
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpProbe {
    /// The address in question (tpa).
    pub target: Ipv4Addr,
    /// The MAC of the interface that asks (sha).
    pub asker: MacAddr,
    /// An address of this host to ask with (spa), for devices that answer no probe; it makes whoever hears
    /// the question renew what they know of it. `None` asks by ARP probe.
    pub from: Option<Ipv4Addr>,
    /// Whom to ask; `None` asks everybody.
    pub to: Option<MacAddr>,
    /// The VLAN to ask on.
    pub vlan: Vlan,
}

impl ArpProbe {
    /// The frame.
    ///
    /// An ARP probe bears a mark: its target hardware address is the asker's own. RFC 5227 section 1.1 has that
    /// field ignored by whoever answers (and prefers zero); no host that probes for its own sake fills it so.
    /// By the mark a monitor on another node knows a monitor, also before it has ever heard of this node, and
    /// does not report a newcomer who was denied an address. A question with an address is told apart by that.
    pub fn to_frame(&self) -> Vec<u8> {
        // Of two tags, the outer one is the provider's.
        let tags = match self.vlan.0 {
            [0, _] => [VlanTag::NONE; 2],
            [vid, 0] => [VlanTag::new(ethertype::VLAN, vid), VlanTag::NONE],
            [outer, inner] => [
                VlanTag::new(ethertype::QINQ, outer),
                VlanTag::new(ethertype::VLAN, inner),
            ],
        };
        let frame = ArpFrame {
            eth_dst: self.to.unwrap_or(MacAddr::BROADCAST),
            eth_src: self.asker,
            tags,
            oper: ArpFrame::REQUEST,
            sha: self.asker,
            spa: self.from.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
            tha: match self.from {
                None => self.asker,
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

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn question() -> ArpProbe {
        ArpProbe {
            target: Ipv4Addr::new(192, 0, 2, 7),
            asker: ASKER,
            from: None,
            to: None,
            vlan: Vlan::UNTAGGED,
        }
    }

    fn parsed(question: ArpProbe) -> ArpFrame {
        let frame = question.to_frame();
        assert!(frame.len() >= MIN_FRAME_BYTES);
        match parse(&frame.as_slice(), VlanTag::NONE) {
            ParsedFrame::Arp(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_an_arp_probe_to_all_that_claims_nothing() {
        let frame = parsed(question());
        assert_eq!(frame.kind(), FrameKind::Probe);
        assert_eq!((frame.eth_src, frame.sha), (ASKER, ASKER));
        assert_eq!(frame.eth_dst, MacAddr::BROADCAST);
        assert_eq!((frame.tha, frame.tpa), (ASKER, [192, 0, 2, 7]), "marked");
        assert_eq!(frame.vlan(), Vlan::UNTAGGED);
    }

    #[test]
    fn it_can_go_to_one_station_from_an_address_on_a_vlan() {
        let one = MacAddr([2, 0, 0, 0, 0, 9]);
        for vlan in [Vlan([100, 0]), Vlan([100, 200])] {
            let frame = parsed(ArpProbe {
                from: Some(Ipv4Addr::new(192, 0, 2, 1)),
                to: Some(one),
                vlan,
                ..question()
            });
            assert_eq!(frame.eth_dst, one);
            assert_eq!(frame.kind(), FrameKind::Claim);
            assert_eq!((frame.spa, frame.tha), ([192, 0, 2, 1], MacAddr::ZERO));
            assert_eq!(frame.vlan(), vlan);
        }
    }
}
