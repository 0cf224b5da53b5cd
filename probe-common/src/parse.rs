//! The frame parser: Ethernet II, up to two VLAN tags, ARP for IPv4 over Ethernet.
//!
//! It reads through [`FrameBytes`] and never trusts a length in the frame, so the same code parses XDP buffers, socket
//! buffers, slices and captured frames.

use core::mem::{offset_of, size_of};

use bytemuck::{AnyBitPattern, Zeroable};
use network_types::{arp::ArpHdr, eth::EthHdr, vlan::VlanHdr};

use crate::{
    header::PodHeader,
    label::label_enum,
    wire::{ArpFrame, HTYPE_ETHERNET, MacAddr, VlanTag, ethertype},
};

label_enum! {
    /// Why a frame with the ARP ethertype is malformed: not an ARP frame for IPv4 over Ethernet.
    pub enum MalformedReason {
        /// The frame ends before the ARP header does, or before its ethertype, so that its protocol is unknown.
        Truncated = "truncated",
        /// `htype` is not Ethernet.
        HardwareType = "hardware_type",
        /// `ptype` is not IPv4.
        ProtocolType = "protocol_type",
        /// `hlen` is not 6 or `plen` is not 4.
        AddressLength = "address_length",
        /// `oper` is neither request nor reply (RARP, InARP, garbage).
        Operation = "operation",
        /// ARP behind a VLAN tag with a TPID of before IEEE 802.1ad, 0x9100 or 0x9200: not a tag that Linux knows.
        VlanProtocol = "vlan_protocol",
    }
}

/// Bounds-checked access to the bytes of a frame.
pub trait FrameBytes {
    /// Copies the header at `offset` into `header`. Returns `false` if the frame ends before the header does.
    ///
    /// The result is no `Option`, because the payload of a `None` is undefined, LLVM copies undefined registers, and the
    /// verifier rejects every program that reads one.
    #[must_use]
    fn load<H: AnyBitPattern>(&self, offset: usize, header: &mut H) -> bool;
}

impl FrameBytes for &[u8] {
    fn load<H: AnyBitPattern>(&self, offset: usize, header: &mut H) -> bool {
        match self
            .get(offset..)
            .and_then(|rest| rest.get(..size_of::<H>()))
        {
            Some(bytes) => {
                *header = bytemuck::pod_read_unaligned(bytes);
                true
            }
            None => false,
        }
    }
}

/// A parsed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedFrame {
    /// A frame of another protocol, or ARP with more than two VLAN tags.
    NotArp,
    /// A frame with the ARP ethertype that is no ARP frame for IPv4 over Ethernet.
    Malformed(MalformedReason),
    /// A well-formed ARP frame; its addresses may be bogus.
    Arp(ArpFrame),
}

const PAYLOAD: usize = size_of::<EthHdr>();
const TAG: usize = size_of::<VlanHdr>();

/// Ethertypes as they are in the headers: in network order, so that no frame costs a conversion.
mod network_order {
    use network_types::eth::EtherType;

    pub const ARP: u16 = EtherType::Arp as u16;
    pub const VLAN: u16 = EtherType::Ieee8021q as u16;
    pub const QINQ: u16 = EtherType::Ieee8021ad as u16;
    /// TPIDs of provider tags before IEEE 802.1ad.
    pub const OLD_QINQ: [u16; 2] = [0x9100_u16.to_be(), 0x9200_u16.to_be()];
}

/// Parses a frame, from its Ethernet header on. `stripped` is the outermost VLAN tag if the network card or the kernel
/// removed it from the bytes, else [`VlanTag::NONE`].
#[inline(always)]
pub fn parse<B: FrameBytes>(bytes: &B, stripped: VlanTag) -> ParsedFrame {
    // Each header is loaded at a constant offset, because the verifier of Linux 5.10 does not track the bounds of a
    // packet pointer with a variable offset.
    // Only the ethertype is loaded first: loading the whole header costs each frame 3 ns in TC, where a load may go
    // through the stack.
    let mut ether_type = 0;
    if !bytes.load(offset_of!(EthHdr, ether_type), &mut ether_type) {
        return ParsedFrame::Malformed(MalformedReason::Truncated);
    }
    match ether_type {
        network_order::ARP => parse_arp(bytes, PAYLOAD, [stripped, VlanTag::NONE]),
        tpid @ (network_order::VLAN | network_order::QINQ) => parse_tagged(bytes, stripped, tpid),
        tpid if tpid == network_order::OLD_QINQ[0] || tpid == network_order::OLD_QINQ[1] => {
            parse_old_tag(bytes, tpid)
        }
        _ => ParsedFrame::NotArp,
    }
}

/// Parses a frame whose outermost tag has a TPID that Linux does not treat as a VLAN tag. ARP after it, or after one
/// more tag, counts as malformed.
#[inline(always)]
fn parse_old_tag<B: FrameBytes>(bytes: &B, tpid: u16) -> ParsedFrame {
    let Some((_, next)) = load_tag(bytes, PAYLOAD, tpid) else {
        return ParsedFrame::Malformed(MalformedReason::Truncated);
    };
    let next = match next {
        network_order::VLAN | network_order::QINQ => {
            let Some((_, next)) = load_tag(bytes, PAYLOAD + TAG, next) else {
                return ParsedFrame::Malformed(MalformedReason::Truncated);
            };
            next
        }
        next => next,
    };
    match next {
        network_order::ARP => ParsedFrame::Malformed(MalformedReason::VlanProtocol),
        _ => ParsedFrame::NotArp,
    }
}

/// Parses a frame whose outermost tag in the bytes has this TPID, in network order.
#[inline(always)]
fn parse_tagged<B: FrameBytes>(bytes: &B, stripped: VlanTag, tpid: u16) -> ParsedFrame {
    let Some((outer, next)) = load_tag(bytes, PAYLOAD, tpid) else {
        return ParsedFrame::Malformed(MalformedReason::Truncated);
    };
    let tags = if stripped.is_some() {
        [stripped, outer]
    } else {
        [outer, VlanTag::NONE]
    };
    match next {
        network_order::ARP => parse_arp(bytes, PAYLOAD + TAG, tags),
        network_order::VLAN | network_order::QINQ if !stripped.is_some() => {
            let Some((inner, next)) = load_tag(bytes, PAYLOAD + TAG, next) else {
                return ParsedFrame::Malformed(MalformedReason::Truncated);
            };
            match next {
                network_order::ARP => parse_arp(bytes, PAYLOAD + 2 * TAG, [outer, inner]),
                _ => ParsedFrame::NotArp,
            }
        }
        _ => ParsedFrame::NotArp,
    }
}

/// Loads the VLAN tag at `offset`, and the ethertype after it in network order. `tpid` is the ethertype before the tag, in
/// network order.
#[inline(always)]
fn load_tag<B: FrameBytes>(bytes: &B, offset: usize, tpid: u16) -> Option<(VlanTag, u16)> {
    let mut tag = PodHeader::<VlanHdr>::zeroed();
    if !bytes.load(offset, &mut tag) {
        return None;
    }
    let PodHeader(tag) = tag;
    let tpid = u16::from_be(tpid);
    let vid = tag.vid();
    Some((VlanTag { tpid, vid }, tag.ether_type))
}

/// Parses the ARP header at `offset`; padding after it is ignored.
#[inline(always)]
fn parse_arp<B: FrameBytes>(bytes: &B, offset: usize, tags: [VlanTag; 2]) -> ParsedFrame {
    let mut ethernet = PodHeader::<EthHdr>::zeroed();
    let mut arp = PodHeader::<ArpHdr>::zeroed();
    if !bytes.load(0, &mut ethernet) || !bytes.load(offset, &mut arp) {
        return ParsedFrame::Malformed(MalformedReason::Truncated);
    }
    let (PodHeader(ethernet), PodHeader(arp)) = (ethernet, arp);
    let oper = arp.oper();

    let malformed = if arp.htype() != HTYPE_ETHERNET {
        Some(MalformedReason::HardwareType)
    } else if arp.ptype() != ethertype::IPV4 {
        Some(MalformedReason::ProtocolType)
    } else if (arp.hlen, arp.plen) != (6, 4) {
        Some(MalformedReason::AddressLength)
    } else {
        match oper {
            ArpFrame::REQUEST | ArpFrame::REPLY => None,
            _ => Some(MalformedReason::Operation),
        }
    };
    if let Some(reason) = malformed {
        return ParsedFrame::Malformed(reason);
    }

    ParsedFrame::Arp(ArpFrame {
        eth_dst: MacAddr(ethernet.dst_addr),
        eth_src: MacAddr(ethernet.src_addr),
        tags,
        oper,
        sha: MacAddr(arp.sha),
        spa: arp.spa,
        tha: MacAddr(arp.tha),
        tpa: arp.tpa,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Vlan;

    /// The bytes of a reply with `tags`, each a TPID and a TCI.
    fn frame(tags: &[(u16, u16)]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa];
        for (tpid, tci) in tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        bytes.extend([2, 0, 0, 0, 0, 0xaa, 192, 0, 2, 1]);
        bytes.extend([2, 0, 0, 0, 0, 0xbb, 192, 0, 2, 2]);
        bytes
    }

    fn parse_untagged(bytes: &[u8]) -> ParsedFrame {
        parse(&bytes, VlanTag::NONE)
    }

    #[test]
    fn every_field_of_a_frame_is_parsed() {
        let expected = ArpFrame {
            eth_dst: MacAddr([2, 0, 0, 0, 0, 0xbb]),
            eth_src: MacAddr([2, 0, 0, 0, 0, 0xaa]),
            tags: [VlanTag::NONE; 2],
            oper: 2,
            sha: MacAddr([2, 0, 0, 0, 0, 0xaa]),
            spa: [192, 0, 2, 1],
            tha: MacAddr([2, 0, 0, 0, 0, 0xbb]),
            tpa: [192, 0, 2, 2],
        };
        assert_eq!(parse_untagged(&frame(&[])), ParsedFrame::Arp(expected));
    }

    #[test]
    fn up_to_two_tags_are_parsed_and_priority_bits_are_masked() {
        for (tags, stripped, vlan) in [
            (&[][..], VlanTag::NONE, "0"),
            (&[(0x8100, 100)], VlanTag::NONE, "100"),
            (&[(0x8100, 0xf064)], VlanTag::NONE, "100"),
            (&[(0x8100, 0xe000)], VlanTag::NONE, "0"),
            (&[(0x88a8, 100), (0x8100, 200)], VlanTag::NONE, "100.200"),
            (&[(0x8100, 100), (0x8100, 200)], VlanTag::NONE, "100.200"),
            (&[], VlanTag::new(0x8100, 0x2007), "7"),
            (&[(0x8100, 200)], VlanTag::new(0x88a8, 100), "100.200"),
        ] {
            let ParsedFrame::Arp(arp) = parse(&&frame(tags)[..], stripped) else {
                panic!("{tags:?} is ARP");
            };
            assert_eq!(arp.vlan().to_string(), vlan, "{tags:?}, {stripped:?}");
        }
    }

    #[test]
    fn arp_after_a_tag_with_another_tpid_is_malformed() {
        for tags in [
            &[(0x9100, 5)][..],
            &[(0x9200, 5)],
            &[(0x9100, 5), (0x8100, 6)],
        ] {
            let expected = ParsedFrame::Malformed(MalformedReason::VlanProtocol);
            assert_eq!(parse(&&frame(tags)[..], VlanTag::NONE), expected);
        }
        let mut other = frame(&[(0x9100, 5)]);
        other[16..18].copy_from_slice(&[8, 0]);
        assert_eq!(parse(&&other[..], VlanTag::NONE), ParsedFrame::NotArp);
    }

    #[test]
    fn arp_with_more_than_two_tags_is_ignored() {
        let three = frame(&[(0x88a8, 1), (0x8100, 2), (0x8100, 3)]);
        assert_eq!(parse_untagged(&three), ParsedFrame::NotArp);
        let two = frame(&[(0x8100, 2), (0x8100, 3)]);
        assert_eq!(
            parse(&&two[..], VlanTag::new(0x88a8, 1)),
            ParsedFrame::NotArp
        );
    }

    #[test]
    fn every_shorter_length_is_truncated() {
        for tags in [&[][..], &[(0x8100, 1)], &[(0x88a8, 1), (0x8100, 2)]] {
            let complete = frame(tags);
            for length in 0..complete.len() {
                let expected = ParsedFrame::Malformed(MalformedReason::Truncated);
                assert_eq!(
                    parse_untagged(&complete[..length]),
                    expected,
                    "{length} bytes"
                );
            }
            assert!(matches!(parse_untagged(&complete), ParsedFrame::Arp(_)));
        }
    }

    #[test]
    fn each_wrong_field_has_its_own_reason() {
        for (offset, value, reason) in [
            (15, 6, MalformedReason::HardwareType),
            (16, 0x86, MalformedReason::ProtocolType),
            (18, 8, MalformedReason::AddressLength),
            (19, 16, MalformedReason::AddressLength),
            (21, 0, MalformedReason::Operation),
            (21, 3, MalformedReason::Operation),
            (20, 1, MalformedReason::Operation),
        ] {
            let mut bytes = frame(&[]);
            bytes[offset] = value;
            assert_eq!(
                parse_untagged(&bytes),
                ParsedFrame::Malformed(reason),
                "byte {offset} = {value}"
            );
        }
    }

    #[test]
    fn only_three_ethertypes_are_parsed() {
        let mut bytes = frame(&[]);
        for ethertype in 0..=u16::MAX {
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
            let is_parsed = [0x0806, 0x8100, 0x88a8].contains(&ethertype);
            if !is_parsed {
                assert_eq!(
                    parse_untagged(&bytes),
                    ParsedFrame::NotArp,
                    "{ethertype:#06x}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            parse_untagged(&bytes);
        }

        #[test]
        fn padding_changes_nothing(padding in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = frame(&[(0x8100, 5)]);
            let expected = parse_untagged(&bytes);
            bytes.extend(padding);
            prop_assert_eq!(parse_untagged(&bytes), expected);
        }

        #[test]
        fn parsed_fields_equal_the_written_bytes(
            vid in 1u16..=4094, sha: [u8; 6], spa: [u8; 4], tha: [u8; 6], tpa: [u8; 4],
        ) {
            let mut bytes = frame(&[(0x8100, vid)]);
            bytes[26..32].copy_from_slice(&sha);
            bytes[32..36].copy_from_slice(&spa);
            bytes[36..42].copy_from_slice(&tha);
            bytes[42..46].copy_from_slice(&tpa);
            let ParsedFrame::Arp(arp) = parse_untagged(&bytes) else { panic!("ARP") };
            prop_assert_eq!(arp.vlan(), Vlan([vid, 0]));
            prop_assert_eq!((arp.sha.0, arp.spa, arp.tha.0, arp.tpa), (sha, spa, tha, tpa));
        }
    }
}
