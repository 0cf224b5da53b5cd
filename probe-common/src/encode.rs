//! Encodes ARP frames as bytes: the inverse of the parser.

use core::{mem::size_of, ops::Deref};

use bytemuck::Pod;
use network_types::{
    arp::ArpHdr,
    eth::{EthHdr, EtherType},
    vlan::VlanHdr,
};

use crate::{
    header::PodHeader,
    wire::{ArpFrame, HTYPE_ETHERNET, VlanTag, ethertype},
};

/// The maximum length of an encoded frame, in bytes: Ethernet header, two VLAN tags, ARP header.
const MAX_LENGTH: usize = size_of::<EthHdr>() + 2 * size_of::<VlanHdr>() + size_of::<ArpHdr>();

/// The bytes of an ARP frame with its VLAN tags: without padding after the ARP header, and with priority 0 in each tag.
#[derive(Clone, Copy, Debug)]
pub struct EncodedFrame {
    bytes: [u8; MAX_LENGTH],
    length: usize,
}

impl EncodedFrame {
    /// Encodes a frame.
    pub fn new(frame: &ArpFrame) -> Self {
        let mut encoded = Self {
            bytes: [0; MAX_LENGTH],
            length: 0,
        };
        let tags = frame.tags;
        // Each header's ethertype is the type of the header that follows it.
        let ethertype_before = |tag: Option<&VlanTag>| match tag {
            Some(tag) if tag.is_some() => tag.tpid.to_be(),
            _ => EtherType::Arp.into(),
        };
        encoded.push(EthHdr {
            dst_addr: frame.eth_dst.0,
            src_addr: frame.eth_src.0,
            ether_type: ethertype_before(tags.first()),
        });
        for (number, tag) in tags.iter().enumerate().take_while(|(_, tag)| tag.is_some()) {
            encoded.push(VlanHdr {
                tci: tag.vid.to_be_bytes(),
                ether_type: ethertype_before(tags.get(number + 1)),
            });
        }
        encoded.push(arp_header(frame));
        encoded
    }

    fn push<H>(&mut self, header: H)
    where
        PodHeader<H>: Pod,
    {
        let header = PodHeader(header);
        let bytes = bytemuck::bytes_of(&header);
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }
}

impl Deref for EncodedFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Returns the ARP header of a frame.
pub fn arp_header(frame: &ArpFrame) -> ArpHdr {
    let mut header = ArpHdr {
        hlen: 6,
        plen: 4,
        sha: frame.sha.0,
        spa: frame.spa,
        tha: frame.tha.0,
        tpa: frame.tpa,
        ..ArpHdr::default()
    };
    header.set_htype(HTYPE_ETHERNET);
    header.set_ptype(ethertype::IPV4);
    header.set_oper(frame.oper);
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        parse::{ParsedFrame, parse},
        wire::MacAddr,
    };

    fn tag() -> impl Strategy<Value = VlanTag> {
        let tpid = prop::sample::select(vec![ethertype::VLAN, ethertype::QINQ]);
        (tpid, any::<u16>()).prop_map(|(tpid, tci)| VlanTag::new(tpid, tci))
    }

    fn tags() -> impl Strategy<Value = [VlanTag; 2]> {
        prop_oneof![
            Just([VlanTag::NONE; 2]),
            tag().prop_map(|outer| [outer, VlanTag::NONE]),
            [tag(), tag()],
        ]
    }

    #[test]
    fn each_field_is_at_its_offset_in_network_order() {
        let frame = ArpFrame {
            eth_dst: MacAddr([1, 2, 3, 4, 5, 6]),
            eth_src: MacAddr([7, 8, 9, 10, 11, 12]),
            tags: [
                VlanTag::new(ethertype::QINQ, 0x123),
                VlanTag::new(ethertype::VLAN, 0x456),
            ],
            oper: ArpFrame::REPLY,
            sha: MacAddr([13, 14, 15, 16, 17, 18]),
            spa: [19, 20, 21, 22],
            tha: MacAddr([23, 24, 25, 26, 27, 28]),
            tpa: [29, 30, 31, 32],
        };
        #[rustfmt::skip]
        let expected = [
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
            0x88, 0xa8, 0x01, 0x23, 0x81, 0x00, 0x04, 0x56, 0x08, 0x06,
            0, 1, 8, 0, 6, 4, 0, 2,
            13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
            23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
        ];
        assert_eq!(*EncodedFrame::new(&frame), expected);
    }

    proptest! {
        #[test]
        fn the_parser_inverts_the_encoder(
            eth_dst: [u8; 6], eth_src: [u8; 6], tags in tags(), oper in 1u16..=2,
            sha: [u8; 6], spa: [u8; 4], tha: [u8; 6], tpa: [u8; 4],
        ) {
            let frame = ArpFrame {
                eth_dst: MacAddr(eth_dst),
                eth_src: MacAddr(eth_src),
                tags,
                oper,
                sha: MacAddr(sha),
                spa,
                tha: MacAddr(tha),
                tpa,
            };
            let parsed = parse(&&*EncodedFrame::new(&frame), VlanTag::NONE);
            prop_assert_eq!(parsed, ParsedFrame::Arp(frame));
        }
    }
}
