//! The bytes of a frame.

use probe_common::wire::{ArpFrame, HTYPE_ETHERNET, ethertype};

/// The frame as it was on the wire, VLAN tags included, up to the end of its ARP message. Priority bits and
/// padding are not known.
pub fn bytes(frame: &ArpFrame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(50);
    bytes.extend(frame.eth_dst.0);
    bytes.extend(frame.eth_src.0);
    for tag in frame.tags.iter().filter(|tag| tag.is_some()) {
        bytes.extend(tag.tpid.to_be_bytes());
        bytes.extend(tag.vid.to_be_bytes());
    }
    bytes.extend(ethertype::ARP.to_be_bytes());
    bytes.extend(HTYPE_ETHERNET.to_be_bytes());
    bytes.extend(ethertype::IPV4.to_be_bytes());
    bytes.extend([6, 4]);
    bytes.extend(frame.oper.to_be_bytes());
    bytes.extend(frame.sha.0);
    bytes.extend(frame.spa);
    bytes.extend(frame.tha.0);
    bytes.extend(frame.tpa);
    bytes
}

#[cfg(test)]
mod tests {
    use probe_common::{
        parse::{Parsed, parse},
        wire::{MacAddr, VlanTag},
    };
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #[test]
        fn the_parser_reads_what_is_written(
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
            let parsed = parse(&bytes(&frame).as_slice(), VlanTag::NONE);
            prop_assert_eq!(parsed, Parsed::Arp(frame));
        }
    }
}
