//! Frames as tests want them: right, odd, or wrong in one field.

use std::net::Ipv4Addr;

use probe_common::wire::{ArpFrame, HTYPE_ETHERNET, MacAddr, ethertype};

/// An ARP frame in the making. It starts out right, as a Linux host sends it; each method changes one
/// thing, for better or worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    arp: ArpFrame,
    ethertype: u16,
    htype: u16,
    ptype: u16,
    hlen: u8,
    plen: u8,
    tags: Vec<(u16, u16)>,
    length: Option<usize>,
}

/// Methods that each set one field of the ARP payload, under its name in RFC 826.
macro_rules! fields {
    ($( $(#[$doc:meta])* $name:ident: $type:ty => $($place:ident).+; )+) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$($place).+ = $name.into();
                self
            }
        )+
    };
}

impl Frame {
    /// The least that an Ethernet card puts on a wire, without the checksum.
    pub const MINIMUM: usize = 60;

    fn new(oper: u16, eth_dst: MacAddr, sha: MacAddr, spa: Ipv4Addr) -> Self {
        Self {
            arp: ArpFrame {
                eth_dst,
                eth_src: sha,
                oper,
                sha,
                spa: spa.octets(),
                ..ArpFrame::default()
            },
            ethertype: ethertype::ARP,
            htype: HTYPE_ETHERNET,
            ptype: ethertype::IPV4,
            hlen: 6,
            plen: 4,
            tags: Vec::new(),
            length: None,
        }
    }

    /// "Who has `target`? Tell `spa`": a broadcast request.
    pub fn request(sha: MacAddr, spa: impl Into<Ipv4Addr>, target: impl Into<Ipv4Addr>) -> Self {
        Self::new(ArpFrame::REQUEST, MacAddr::BROADCAST, sha, spa.into()).tpa(target)
    }

    /// "`spa` is at `sha`", said to one station.
    pub fn reply(
        sha: MacAddr,
        spa: impl Into<Ipv4Addr>,
        asker: MacAddr,
        askers_address: impl Into<Ipv4Addr>,
    ) -> Self {
        Self::new(ArpFrame::REPLY, asker, sha, spa.into())
            .tha(asker)
            .tpa(askers_address)
    }

    /// A gratuitous request: "`spa` is at `sha`", said to all (RFC 5227 ARP announcement).
    pub fn announcement(sha: MacAddr, spa: impl Into<Ipv4Addr>) -> Self {
        let spa = spa.into();
        Self::request(sha, spa, spa)
    }

    /// A gratuitous reply: the other form of an announcement.
    pub fn announcing_reply(sha: MacAddr, spa: impl Into<Ipv4Addr>) -> Self {
        let spa = spa.into();
        Self::reply(sha, spa, MacAddr::BROADCAST, spa)
    }

    /// An ARP probe (RFC 5227): asks for an address and claims none.
    pub fn probe(sha: MacAddr, target: impl Into<Ipv4Addr>) -> Self {
        Self::request(sha, Ipv4Addr::UNSPECIFIED, target)
    }

    fields! {
        /// Hardware type; 1 is Ethernet.
        htype: u16 => htype;
        /// Protocol type; 0x0800 is IPv4.
        ptype: u16 => ptype;
        /// Length of a hardware address.
        hlen: u8 => hlen;
        /// Length of a protocol address.
        plen: u8 => plen;
        /// Operation; 1 is a request, 2 a reply.
        oper: u16 => arp.oper;
        /// Sender hardware address.
        sha: MacAddr => arp.sha;
        /// Target hardware address.
        tha: MacAddr => arp.tha;
        /// Source in the Ethernet header.
        eth_src: MacAddr => arp.eth_src;
        /// Destination in the Ethernet header.
        eth_dst: MacAddr => arp.eth_dst;
        /// What the frame says that it carries; 0x0806 is ARP.
        ethertype: u16 => ethertype;
    }

    /// Sender protocol address.
    #[must_use]
    pub fn spa(mut self, spa: impl Into<Ipv4Addr>) -> Self {
        self.arp.spa = spa.into().octets();
        self
    }

    /// Target protocol address.
    #[must_use]
    pub fn tpa(mut self, tpa: impl Into<Ipv4Addr>) -> Self {
        self.arp.tpa = tpa.into().octets();
        self
    }

    /// Adds an 802.1Q tag inside those that are there already. `tci` holds the VLAN in its lower twelve
    /// bits and the priority above them.
    #[must_use]
    pub fn tagged(self, tci: u16) -> Self {
        self.tagged_as(ethertype::VLAN, tci)
    }

    /// Adds a tag of any kind inside those that are there already.
    #[must_use]
    pub fn tagged_as(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.push((tpid, tci));
        self
    }

    /// Makes it exactly this long: cut off, or padded with zeros.
    #[must_use]
    pub fn of_length(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// The bytes that go on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::MINIMUM);
        bytes.extend(self.arp.eth_dst.0);
        bytes.extend(self.arp.eth_src.0);
        for (tpid, tci) in &self.tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend(self.ethertype.to_be_bytes());
        bytes.extend(self.htype.to_be_bytes());
        bytes.extend(self.ptype.to_be_bytes());
        bytes.extend([self.hlen, self.plen]);
        bytes.extend(self.arp.oper.to_be_bytes());
        bytes.extend(self.arp.sha.0);
        bytes.extend(self.arp.spa);
        bytes.extend(self.arp.tha.0);
        bytes.extend(self.arp.tpa);
        if let Some(length) = self.length {
            bytes.resize(length, 0);
        }
        bytes
    }
}

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
