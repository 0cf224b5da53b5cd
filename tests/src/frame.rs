//! ARP frames for tests: valid, unusual, or invalid in one field.

use std::net::Ipv4Addr;

use bytemuck::bytes_of;
use network_types::{
    arp::ArpHdr,
    eth::{EthHdr, EtherType},
    vlan::VlanHdr,
};
use probe_common::{
    header::PodHeader,
    wire::{ArpFrame, HTYPE_ETHERNET, MacAddr, ethertype},
};

/// A builder of ARP frames. A new frame is valid and equal to what a Linux host sends; each method changes one
/// field.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The Ethernet header. Its `ether_type` is ARP even if VLAN tags precede the ARP header.
    ethernet: EthHdr,
    /// The VLAN tags. `ether_type` holds the TPID of the tag itself; on the wire, the TPID is in the `ether_type`
    /// of the preceding header.
    tags: Vec<VlanHdr>,
    arp: ArpHdr,
    length: Option<usize>,
}

/// Defines a setter for each header field. ARP fields have their RFC 826 names.
macro_rules! fields {
    ($( $(#[$doc:meta])* $name:ident: $type:ty => $header:ident.$field:ident = $value:expr; )+) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$header.$field = $value;
                self
            }
        )+
    };
}

impl Frame {
    /// The shortest Ethernet frame without its checksum (IEEE 802.3 section 3.2.8).
    pub const MINIMUM: usize = 60;

    fn new(oper: u16, eth_dst: MacAddr, sha: MacAddr, spa: Ipv4Addr) -> Self {
        let mut arp = ArpHdr {
            hlen: 6,
            plen: 4,
            sha: sha.0,
            spa: spa.octets(),
            ..ArpHdr::default()
        };
        arp.set_htype(HTYPE_ETHERNET);
        arp.set_ptype(ethertype::IPV4);
        arp.set_oper(oper);
        Self {
            ethernet: EthHdr::new(eth_dst.0, sha.0, EtherType::Arp),
            tags: Vec::new(),
            arp,
            length: None,
        }
    }

    /// A broadcast ARP request for `target`.
    pub fn request(sha: MacAddr, spa: impl Into<Ipv4Addr>, target: impl Into<Ipv4Addr>) -> Self {
        Self::new(ArpFrame::REQUEST, MacAddr::BROADCAST, sha, spa.into()).tpa(target)
    }

    /// A unicast ARP reply to the requester: "`spa` is at `sha`".
    pub fn reply(
        sha: MacAddr,
        spa: impl Into<Ipv4Addr>,
        requester: MacAddr,
        requester_address: impl Into<Ipv4Addr>,
    ) -> Self {
        Self::new(ArpFrame::REPLY, requester, sha, spa.into())
            .tha(requester)
            .tpa(requester_address)
    }

    /// A gratuitous request, broadcast (RFC 5227 ARP announcement).
    pub fn announcement(sha: MacAddr, spa: impl Into<Ipv4Addr>) -> Self {
        let spa = spa.into();
        Self::request(sha, spa, spa)
    }

    /// A gratuitous ARP reply, sent to broadcast.
    pub fn announcing_reply(sha: MacAddr, spa: impl Into<Ipv4Addr>) -> Self {
        let spa = spa.into();
        Self::reply(sha, spa, MacAddr::BROADCAST, spa)
    }

    /// An ARP probe (RFC 5227): a request with an unspecified sender address.
    pub fn probe(sha: MacAddr, target: impl Into<Ipv4Addr>) -> Self {
        Self::request(sha, Ipv4Addr::UNSPECIFIED, target)
    }

    fields! {
        /// Sets the hardware type; 1 is Ethernet.
        htype: u16 => arp.htype = htype.to_be_bytes();
        /// Sets the protocol type; 0x0800 is IPv4.
        ptype: u16 => arp.ptype = ptype.to_be_bytes();
        /// Sets the length of a hardware address.
        hlen: u8 => arp.hlen = hlen;
        /// Sets the length of a protocol address.
        plen: u8 => arp.plen = plen;
        /// Sets the operation; 1 is a request, 2 a reply.
        oper: u16 => arp.oper = oper.to_be_bytes();
        /// Sets the sender hardware address.
        sha: MacAddr => arp.sha = sha.0;
        /// Sets the sender protocol address.
        spa: impl Into<Ipv4Addr> => arp.spa = spa.into().octets();
        /// Sets the target hardware address.
        tha: MacAddr => arp.tha = tha.0;
        /// Sets the target protocol address.
        tpa: impl Into<Ipv4Addr> => arp.tpa = tpa.into().octets();
        /// Sets the source in the Ethernet header.
        eth_src: MacAddr => ethernet.src_addr = eth_src.0;
        /// Sets the destination in the Ethernet header.
        eth_dst: MacAddr => ethernet.dst_addr = eth_dst.0;
        /// Sets the ethertype of the payload; 0x0806 is ARP.
        ethertype: u16 => ethernet.ether_type = ethertype.to_be();
    }

    /// Appends an 802.1Q tag. The lower twelve bits of `tci` are the VLAN ID, the bits above are the priority.
    #[must_use]
    pub fn tagged(self, tci: u16) -> Self {
        self.tagged_as(ethertype::VLAN, tci)
    }

    /// Appends a VLAN tag with any TPID.
    #[must_use]
    pub fn tagged_as(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.push(VlanHdr {
            tci: tci.to_be_bytes(),
            ether_type: tpid.to_be(),
        });
        self
    }

    /// Sets the length of the frame, which is truncated or padded with zeros.
    #[must_use]
    pub fn of_length(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Returns the bytes of the frame.
    pub fn bytes(&self) -> Vec<u8> {
        let payload = self.ethernet.ether_type;
        let next = |tag: Option<&VlanHdr>| tag.map_or(payload, |tag| tag.ether_type);
        let ethernet = EthHdr {
            ether_type: next(self.tags.first()),
            ..self.ethernet
        };
        let mut bytes = Vec::with_capacity(Self::MINIMUM);
        bytes.extend(bytes_of(&PodHeader(ethernet)));
        for (number, tag) in self.tags.iter().enumerate() {
            let ether_type = next(self.tags.get(number + 1));
            bytes.extend(bytes_of(&PodHeader(VlanHdr { ether_type, ..*tag })));
        }
        bytes.extend(bytes_of(&PodHeader(self.arp)));
        if let Some(length) = self.length {
            bytes.resize(length, 0);
        }
        bytes
    }
}

/// The headers of `network-types` do not implement comparison, so the bytes are compared.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Frame {}

#[cfg(test)]
mod tests {
    use probe_common::{
        parse::{MalformedReason, ParsedFrame, parse},
        wire::{BogusFrameReason, FrameKind, VlanTag},
    };

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const ADDRESS: [u8; 4] = [192, 0, 2, 1];
    const OTHER_ADDRESS: [u8; 4] = [192, 0, 2, 2];

    fn read(frame: &Frame) -> ParsedFrame {
        parse(&frame.bytes().as_slice(), VlanTag::NONE)
    }

    fn arp(frame: &Frame) -> ArpFrame {
        match read(frame) {
            ParsedFrame::Arp(arp) => arp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_constructor_builds_its_kind_of_frame() {
        let request = arp(&Frame::request(MAC, ADDRESS, OTHER_ADDRESS));
        assert_eq!(
            (request.oper, request.spa, request.tpa),
            (1, ADDRESS, OTHER_ADDRESS)
        );
        assert_eq!(request.kind(), FrameKind::Claim);

        let reply = arp(&Frame::reply(MAC, ADDRESS, OTHER, OTHER_ADDRESS));
        assert_eq!((reply.oper, reply.eth_dst, reply.tha), (2, OTHER, OTHER));
        assert!(reply.is_unicast() && !reply.is_announcement());

        for announcement in [
            Frame::announcement(MAC, ADDRESS),
            Frame::announcing_reply(MAC, ADDRESS),
        ] {
            let announcement = arp(&announcement);
            assert!(announcement.is_announcement() && !announcement.is_unicast());
            assert_eq!(announcement.kind(), FrameKind::Claim);
        }

        let probe = arp(&Frame::probe(MAC, OTHER_ADDRESS));
        assert_eq!(
            (probe.kind(), probe.subject()),
            (FrameKind::Probe, OTHER_ADDRESS)
        );
    }

    #[test]
    fn tags_are_outer_first() {
        let frame = Frame::probe(MAC, OTHER_ADDRESS)
            .tagged_as(ethertype::QINQ, 0xe064)
            .tagged(200);
        assert_eq!(arp(&frame).vlan().to_string(), "100.200");
    }

    #[test]
    fn setting_the_length_truncates_or_pads() {
        let frame = Frame::request(MAC, ADDRESS, OTHER_ADDRESS);
        assert_eq!(frame.bytes().len(), 42);
        assert_eq!(arp(&frame.clone().of_length(60)), arp(&frame));
        assert_eq!(
            read(&frame.of_length(41)),
            ParsedFrame::Malformed(MalformedReason::Truncated)
        );
    }

    #[test]
    fn each_field_can_be_made_invalid() {
        let frame = Frame::request(MAC, ADDRESS, OTHER_ADDRESS);
        for (wrong, reason) in [
            (frame.clone().htype(6), MalformedReason::HardwareType),
            (frame.clone().ptype(0x86dd), MalformedReason::ProtocolType),
            (frame.clone().hlen(8), MalformedReason::AddressLength),
            (frame.clone().plen(16), MalformedReason::AddressLength),
            (frame.clone().oper(3), MalformedReason::Operation),
            (
                frame.clone().tagged_as(0x9100, 5),
                MalformedReason::VlanProtocol,
            ),
        ] {
            assert_eq!(read(&wrong), ParsedFrame::Malformed(reason));
        }
        let bogus = arp(&frame.sha(MacAddr::BROADCAST));
        assert_eq!(bogus.bogus(), Some(BogusFrameReason::ShaBroadcast));
        assert_eq!(
            bogus.eth_src, MAC,
            "the Ethernet source is independent of sha"
        );
    }
}
