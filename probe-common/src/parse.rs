//! The one parser: Ethernet II, up to two VLAN tags, ARP for IPv4 over Ethernet.
//!
//! It reads through [`FrameBytes`] and never trusts a length in the frame, so the same code serves an
//! XDP buffer, a socket buffer, a slice and a capture.

use core::mem::{offset_of, size_of};

use bytemuck::{AnyBitPattern, Zeroable};
use network_types::{arp::ArpHdr, eth::EthHdr, vlan::VlanHdr};

use crate::{
    header::Header,
    label::label_enum,
    wire::{ArpFrame, HTYPE_ETHERNET, MacAddr, VlanTag, ethertype},
};

label_enum! {
    /// Why a frame with the ARP ethertype is not an ARP frame that this program reads.
    pub enum Malformed {
        /// It ends before the fields do. Frames that end before their ethertype count here as well,
        /// because nobody can say what they were.
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
    /// Copies the header at `offset` into `header` and says whether the frame has all of it.
    ///
    /// Not an `Option`: the payload of a `None` is undefined, LLVM moves undefined registers about,
    /// and the verifier refuses every program that reads one.
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

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Another protocol, or ARP below more tags than two: none of this program's business.
    NotArp,
    /// The ARP ethertype, but not an ARP frame that can be read.
    Malformed(Malformed),
    /// A well-formed ARP frame, whether or not what it says makes sense.
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

/// Parses a frame from its Ethernet header on. `stripped` is the tag that the network card or the kernel
/// took out of the bytes and keeps beside them ([`VlanTag::NONE`] where there is none); it is the
/// outermost one.
#[inline(always)]
pub fn parse<B: FrameBytes>(bytes: &B, stripped: VlanTag) -> Parsed {
    // Each level is a call of its own with a constant offset: the verifier of 5.10 loses track of a
    // packet pointer whose offset was chosen at run time.
    // Of a frame that is not ARP, only the ethertype is loaded: loading the whole header costs it 3 ns in TC,
    // where a load may go through the stack.
    let mut ether_type = 0;
    if !bytes.load(offset_of!(EthHdr, ether_type), &mut ether_type) {
        return Parsed::Malformed(Malformed::Truncated);
    }
    match ether_type {
        network_order::ARP => parse_arp(bytes, PAYLOAD, [stripped, VlanTag::NONE]),
        tpid @ (network_order::VLAN | network_order::QINQ) => parse_tagged(bytes, stripped, tpid),
        tpid if tpid == network_order::OLD_QINQ[0] || tpid == network_order::OLD_QINQ[1] => {
            parse_old_tag(bytes, tpid)
        }
        _ => Parsed::NotArp,
    }
}

/// Parses a frame whose outermost tag is no VLAN tag to Linux: ARP behind it, and behind one inner tag, is counted and
/// not read.
#[inline(always)]
fn parse_old_tag<B: FrameBytes>(bytes: &B, tpid: u16) -> Parsed {
    let Some((_, next)) = load_tag(bytes, PAYLOAD, tpid) else {
        return Parsed::Malformed(Malformed::Truncated);
    };
    let next = match next {
        network_order::VLAN | network_order::QINQ => {
            let Some((_, next)) = load_tag(bytes, PAYLOAD + TAG, next) else {
                return Parsed::Malformed(Malformed::Truncated);
            };
            next
        }
        next => next,
    };
    match next {
        network_order::ARP => Parsed::Malformed(Malformed::VlanProtocol),
        _ => Parsed::NotArp,
    }
}

/// Parses a frame whose outermost tag in the bytes has this `tpid`, in network order.
#[inline(always)]
fn parse_tagged<B: FrameBytes>(bytes: &B, stripped: VlanTag, tpid: u16) -> Parsed {
    let Some((outer, next)) = load_tag(bytes, PAYLOAD, tpid) else {
        return Parsed::Malformed(Malformed::Truncated);
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
                return Parsed::Malformed(Malformed::Truncated);
            };
            match next {
                network_order::ARP => parse_arp(bytes, PAYLOAD + 2 * TAG, [outer, inner]),
                _ => Parsed::NotArp,
            }
        }
        _ => Parsed::NotArp,
    }
}

/// Loads the tag at `offset`, and the ethertype after it in network order. `tpid` is the ethertype before it.
#[inline(always)]
fn load_tag<B: FrameBytes>(bytes: &B, offset: usize, tpid: u16) -> Option<(VlanTag, u16)> {
    let mut tag = Header::<VlanHdr>::zeroed();
    if !bytes.load(offset, &mut tag) {
        return None;
    }
    let Header(tag) = tag;
    let tpid = u16::from_be(tpid);
    let vid = tag.vid();
    Some((VlanTag { tpid, vid }, tag.ether_type))
}

/// Parses the ARP header at `offset`; padding after it is ignored.
#[inline(always)]
fn parse_arp<B: FrameBytes>(bytes: &B, offset: usize, tags: [VlanTag; 2]) -> Parsed {
    let mut ethernet = Header::<EthHdr>::zeroed();
    let mut arp = Header::<ArpHdr>::zeroed();
    if !bytes.load(0, &mut ethernet) || !bytes.load(offset, &mut arp) {
        return Parsed::Malformed(Malformed::Truncated);
    }
    let (Header(ethernet), Header(arp)) = (ethernet, arp);
    let oper = arp.oper();

    let malformed = if arp.htype() != HTYPE_ETHERNET {
        Some(Malformed::HardwareType)
    } else if arp.ptype() != ethertype::IPV4 {
        Some(Malformed::ProtocolType)
    } else if (arp.hlen, arp.plen) != (6, 4) {
        Some(Malformed::AddressLength)
    } else {
        match oper {
            ArpFrame::REQUEST | ArpFrame::REPLY => None,
            _ => Some(Malformed::Operation),
        }
    };
    if let Some(reason) = malformed {
        return Parsed::Malformed(reason);
    }

    Parsed::Arp(ArpFrame {
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

    /// A reply as a host sends it, with `tags` as raw (tpid, tci) pairs.
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

    fn parsed(bytes: &[u8]) -> Parsed {
        parse(&bytes, VlanTag::NONE)
    }

    #[test]
    fn every_field_of_a_frame_is_read() {
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
        assert_eq!(parsed(&frame(&[])), Parsed::Arp(expected));
    }

    #[test]
    fn up_to_two_tags_are_read_and_priority_bits_are_masked() {
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
            let Parsed::Arp(arp) = parse(&&frame(tags)[..], stripped) else {
                panic!("{tags:?} is ARP");
            };
            assert_eq!(arp.vlan().to_string(), vlan, "{tags:?}, {stripped:?}");
        }
    }

    #[test]
    fn arp_behind_a_tag_of_another_tpid_is_counted() {
        for tags in [
            &[(0x9100, 5)][..],
            &[(0x9200, 5)],
            &[(0x9100, 5), (0x8100, 6)],
        ] {
            let expected = Parsed::Malformed(Malformed::VlanProtocol);
            assert_eq!(parse(&&frame(tags)[..], VlanTag::NONE), expected);
        }
        let mut other = frame(&[(0x9100, 5)]);
        other[16..18].copy_from_slice(&[8, 0]);
        assert_eq!(parse(&&other[..], VlanTag::NONE), Parsed::NotArp);
    }

    #[test]
    fn more_than_two_tags_are_not_this_programs_business() {
        let three = frame(&[(0x88a8, 1), (0x8100, 2), (0x8100, 3)]);
        assert_eq!(parsed(&three), Parsed::NotArp);
        let two = frame(&[(0x8100, 2), (0x8100, 3)]);
        assert_eq!(parse(&&two[..], VlanTag::new(0x88a8, 1)), Parsed::NotArp);
    }

    #[test]
    fn every_shorter_length_is_truncated() {
        for tags in [&[][..], &[(0x8100, 1)], &[(0x88a8, 1), (0x8100, 2)]] {
            let whole = frame(tags);
            for length in 0..whole.len() {
                let expected = Parsed::Malformed(Malformed::Truncated);
                assert_eq!(parsed(&whole[..length]), expected, "{length} bytes");
            }
            assert!(matches!(parsed(&whole), Parsed::Arp(_)));
        }
    }

    #[test]
    fn each_wrong_field_has_its_own_reason() {
        for (offset, value, reason) in [
            (15, 6, Malformed::HardwareType),
            (16, 0x86, Malformed::ProtocolType),
            (18, 8, Malformed::AddressLength),
            (19, 16, Malformed::AddressLength),
            (21, 0, Malformed::Operation),
            (21, 3, Malformed::Operation),
            (20, 1, Malformed::Operation),
        ] {
            let mut bytes = frame(&[]);
            bytes[offset] = value;
            assert_eq!(
                parsed(&bytes),
                Parsed::Malformed(reason),
                "byte {offset} = {value}"
            );
        }
    }

    #[test]
    fn only_three_ethertypes_are_looked_into() {
        let mut bytes = frame(&[]);
        for ethertype in 0..=u16::MAX {
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
            let looked_into = [0x0806, 0x8100, 0x88a8].contains(&ethertype);
            if !looked_into {
                assert_eq!(parsed(&bytes), Parsed::NotArp, "{ethertype:#06x}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            parsed(&bytes);
        }

        #[test]
        fn padding_changes_nothing(padding in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = frame(&[(0x8100, 5)]);
            let expected = parsed(&bytes);
            bytes.extend(padding);
            prop_assert_eq!(parsed(&bytes), expected);
        }

        #[test]
        fn what_is_read_is_what_was_written(
            vid in 1u16..=4094, sha: [u8; 6], spa: [u8; 4], tha: [u8; 6], tpa: [u8; 4],
        ) {
            let mut bytes = frame(&[(0x8100, vid)]);
            bytes[26..32].copy_from_slice(&sha);
            bytes[32..36].copy_from_slice(&spa);
            bytes[36..42].copy_from_slice(&tha);
            bytes[42..46].copy_from_slice(&tpa);
            let Parsed::Arp(arp) = parsed(&bytes) else { panic!("ARP") };
            prop_assert_eq!(arp.vlan(), Vlan([vid, 0]));
            prop_assert_eq!((arp.sha.0, arp.spa, arp.tha.0, arp.tpa), (sha, spa, tha, tpa));
        }
    }
}
