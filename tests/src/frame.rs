//! ARP frames for tests: valid, unusual, or invalid in one field.

use std::net::Ipv4Addr;

use bytemuck::bytes_of;
use network_types::{
    arp::ArpHdr,
    eth::{EthHdr, EtherType},
    vlan::VlanHdr,
};
use probe_common::{
    header::Header,
    wire::{ArpFrame, HTYPE_ETHERNET, MacAddr, ethertype},
};

/// A builder of ARP frames. The frame is valid at first, as a Linux host sends it; each method changes one field.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its `ether_type` is that of the ARP header, also where tags precede that.
    ethernet: EthHdr,
    /// Each with its own TPID as `ether_type`; in the frame, that is the `ether_type` of the header before it.
    tags: Vec<VlanHdr>,
    arp: ArpHdr,
    length: Option<usize>,
}

/// Methods that each set one field of the headers. ARP fields have their names in RFC 826.
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

    /// A broadcast request: "who has `target`? Tell `spa`".
    pub fn request(sha: MacAddr, spa: impl Into<Ipv4Addr>, target: impl Into<Ipv4Addr>) -> Self {
        Self::new(ArpFrame::REQUEST, MacAddr::BROADCAST, sha, spa.into()).tpa(target)
    }

    /// A unicast reply to the requester: "`spa` is at `sha`".
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

    /// A gratuitous reply, broadcast: the other form of an announcement.
    pub fn announcing_reply(sha: MacAddr, spa: impl Into<Ipv4Addr>) -> Self {
        let spa = spa.into();
        Self::reply(sha, spa, MacAddr::BROADCAST, spa)
    }

    /// An ARP probe (RFC 5227): requests an address and claims none.
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

    /// Adds an 802.1Q tag behind the tags that the frame has. `tci` is the VLAN in the lower twelve bits and the
    /// priority above them.
    #[must_use]
    pub fn tagged(self, tci: u16) -> Self {
        self.tagged_as(ethertype::VLAN, tci)
    }

    /// Adds a tag with any TPID behind the tags that the frame has.
    #[must_use]
    pub fn tagged_as(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.push(VlanHdr {
            tci: tci.to_be_bytes(),
            ether_type: tpid.to_be(),
        });
        self
    }

    /// Sets the length of the frame: it is truncated or padded with zeros.
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
        bytes.extend(bytes_of(&Header(ethernet)));
        for (number, tag) in self.tags.iter().enumerate() {
            let ether_type = next(self.tags.get(number + 1));
            bytes.extend(bytes_of(&Header(VlanHdr { ether_type, ..*tag })));
        }
        bytes.extend(bytes_of(&Header(self.arp)));
        if let Some(length) = self.length {
            bytes.resize(length, 0);
        }
        bytes
    }
}

/// The headers of `network-types` cannot be compared; their bytes can.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Frame {}

#[cfg(test)]
mod tests {
    use probe_common::{
        parse::{Malformed, Parsed, parse},
        wire::{Bogus, Kind, VlanTag},
    };

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const HERE: [u8; 4] = [192, 0, 2, 1];
    const THERE: [u8; 4] = [192, 0, 2, 2];

    fn read(frame: &Frame) -> Parsed {
        parse(&frame.bytes().as_slice(), VlanTag::NONE)
    }

    fn arp(frame: &Frame) -> ArpFrame {
        match read(frame) {
            Parsed::Arp(arp) => arp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_kind_of_frame_is_what_its_name_says() {
        let request = arp(&Frame::request(MAC, HERE, THERE));
        assert_eq!((request.oper, request.spa, request.tpa), (1, HERE, THERE));
        assert_eq!(request.kind(), Kind::Claim);

        let reply = arp(&Frame::reply(MAC, HERE, OTHER, THERE));
        assert_eq!((reply.oper, reply.eth_dst, reply.tha), (2, OTHER, OTHER));
        assert!(reply.is_unicast() && !reply.is_announcement());

        for announcement in [
            Frame::announcement(MAC, HERE),
            Frame::announcing_reply(MAC, HERE),
        ] {
            let announcement = arp(&announcement);
            assert!(announcement.is_announcement() && !announcement.is_unicast());
            assert_eq!(announcement.kind(), Kind::Claim);
        }

        let probe = arp(&Frame::probe(MAC, THERE));
        assert_eq!((probe.kind(), probe.subject()), (Kind::Probe, THERE));
    }

    #[test]
    fn tags_are_outer_first() {
        let frame = Frame::probe(MAC, THERE)
            .tagged_as(ethertype::QINQ, 0xe064)
            .tagged(200);
        assert_eq!(arp(&frame).vlan().to_string(), "100.200");
    }

    #[test]
    fn a_length_cuts_or_pads() {
        let frame = Frame::request(MAC, HERE, THERE);
        assert_eq!(frame.bytes().len(), 42);
        assert_eq!(arp(&frame.clone().of_length(60)), arp(&frame));
        assert_eq!(
            read(&frame.of_length(41)),
            Parsed::Malformed(Malformed::Truncated)
        );
    }

    #[test]
    fn one_field_at_a_time_can_be_wrong() {
        let frame = Frame::request(MAC, HERE, THERE);
        for (wrong, reason) in [
            (frame.clone().htype(6), Malformed::HardwareType),
            (frame.clone().ptype(0x86dd), Malformed::ProtocolType),
            (frame.clone().hlen(8), Malformed::AddressLength),
            (frame.clone().plen(16), Malformed::AddressLength),
            (frame.clone().oper(3), Malformed::Operation),
            (frame.clone().tagged_as(0x9100, 5), Malformed::VlanProtocol),
        ] {
            assert_eq!(read(&wrong), Parsed::Malformed(reason));
        }
        let bogus = arp(&frame.sha(MacAddr::BROADCAST));
        assert_eq!(bogus.bogus(), Some(Bogus::ShaBroadcast));
        assert_eq!(
            bogus.eth_src, MAC,
            "the Ethernet header is a matter of its own"
        );
    }
}
