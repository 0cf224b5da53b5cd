//! ARP over Ethernet as a value: RFC 826, RFC 5227, IEEE 802.1Q.
//!
//! The headers on the wire are those of `network-types` (see [`crate::header`]). The types here are what it lacks:
//! a MAC address that is formatted, compared and serialized, a VLAN with up to two tags in host order, and
//! [`ArpFrame`], which is part of the event ABI.

use core::{fmt, str::FromStr};

use bytemuck::{Pod, Zeroable};

use crate::label::label_enum;

/// Ethertypes (IEEE 802) in host order; `network-types` has them in network order.
pub mod ethertype {
    use network_types::eth::EtherType;

    /// ARP.
    pub const ARP: u16 = u16::from_be(EtherType::Arp as u16);
    /// 802.1Q customer tag.
    pub const VLAN: u16 = u16::from_be(EtherType::Ieee8021q as u16);
    /// 802.1ad service tag.
    pub const QINQ: u16 = u16::from_be(EtherType::Ieee8021ad as u16);
    /// IPv4, the only protocol type whose ARP is read.
    pub const IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
}

/// ARP hardware type of Ethernet (RFC 826, IANA "Hardware Types").
pub const HTYPE_ETHERNET: u16 = 1;

/// The largest VLAN identifier; the upper four bits of a tag are priority (PCP) and DEI.
pub const VID_MASK: u16 = 0x0fff;

/// A 48-bit MAC address, in network order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All zeros: "unknown" in ARP, never an owner.
    pub const ZERO: Self = Self([0; 6]);
    /// All ones.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the group bit is set: multicast, broadcast included.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this is the multicast address of a Microsoft NLB cluster (03:bf:…), the one group
    /// address that is a legitimate owner.
    #[inline(always)]
    pub const fn is_ms_nlb_multicast(self) -> bool {
        self.0[0] == 0x03 && self.0[1] == 0xbf
    }

    /// The address in the low 48 bits, so that the kernel side can store it in one piece.
    #[inline(always)]
    pub const fn to_u64(self) -> u64 {
        let bytes = &self.0;
        u64::from_be_bytes([
            0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5],
        ])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(formatter, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Why a text is not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddrError;

impl fmt::Display for MacAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address: six hexadecimal bytes like 02:00:5e:10:00:01")
    }
}

impl core::error::Error for MacAddrError {}

impl FromStr for MacAddr {
    type Err = MacAddrError;

    /// Reads `aa:bb:cc:dd:ee:ff`, also with dashes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or(MacAddrError)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacAddrError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacAddrError)?;
        }
        if parts.next().is_some() {
            return Err(MacAddrError);
        }
        Ok(Self(bytes))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::from_text::deserialize(deserializer, "a MAC address", |text| text.parse().ok())
    }
}

/// One VLAN tag without its priority bits. A `tpid` of 0 means that there is no tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct VlanTag {
    /// Tag protocol identifier, host order: [`ethertype::VLAN`] or [`ethertype::QINQ`].
    pub tpid: u16,
    /// VLAN identifier, host order, 0 to 4095; 0 is a priority tag.
    pub vid: u16,
}

impl VlanTag {
    /// No tag.
    pub const NONE: Self = Self { tpid: 0, vid: 0 };

    /// A tag from its two fields as they are on the wire; PCP and DEI are masked.
    #[inline(always)]
    pub const fn new(tpid: u16, tci: u16) -> Self {
        Self {
            tpid,
            vid: tci & VID_MASK,
        }
    }

    /// Whether there is a tag.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.tpid != 0
    }
}

/// The VLAN part of a segment's name: the identifiers of up to two tags, outer first. Tags with
/// VID 0 only carry a priority and are left out, so a priority-tagged frame is untagged here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Vlan(pub [u16; 2]);

impl Vlan {
    /// No VLAN.
    pub const UNTAGGED: Self = Self([0; 2]);

    /// The VLAN that a frame with these tags is in.
    #[inline(always)]
    pub const fn of(tags: [VlanTag; 2]) -> Self {
        if tags[0].vid == 0 {
            Self([tags[1].vid, 0])
        } else {
            Self([tags[0].vid, tags[1].vid])
        }
    }
}

impl fmt::Display for Vlan {
    /// `0` untagged, `100`, or `100.200` outer first: the value of every `vlan` label.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [outer, 0] => write!(f, "{outer}"),
            [outer, inner] => write!(f, "{outer}.{inner}"),
        }
    }
}

/// Why a text is not a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanError;

impl fmt::Display for VlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a VLAN: 0 for untagged, an identifier from 1 to 4094, or two like 100.200")
    }
}

impl core::error::Error for VlanError {}

impl FromStr for Vlan {
    type Err = VlanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let vid = |text: &str, range: core::ops::RangeInclusive<u16>| {
            text.parse()
                .ok()
                .filter(|vid| range.contains(vid))
                .ok_or(VlanError)
        };
        match text.split_once('.') {
            None => Ok(Self([vid(text, 0..=4094)?, 0])),
            Some((outer, inner)) => Ok(Self([vid(outer, 1..=4094)?, vid(inner, 1..=4094)?])),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Vlan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Vlan {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::from_text::deserialize(deserializer, "a VLAN", |text| text.parse().ok())
    }
}

label_enum! {
    /// The ARP operations that are read (RFC 826 `ar$op`), and everything else.
    pub enum Operation {
        /// `ares_op$REQUEST`, 1.
        Request = "request",
        /// `ares_op$REPLY`, 2.
        Reply = "reply",
        /// Unknown, because the frame is malformed or the operation is another protocol's (RARP, InARP).
        Other = "other",
    }
}

label_enum! {
    /// Why a well-formed ARP frame is no valid claim.
    pub enum Bogus {
        /// The sender hardware address is 00:00:00:00:00:00.
        ShaZero = "sha_zero",
        /// The sender hardware address is ff:ff:ff:ff:ff:ff.
        ShaBroadcast = "sha_broadcast",
        /// The sender hardware address is multicast, and not Microsoft NLB's 03:bf:….
        ShaMulticast = "sha_multicast",
        /// A reply from 0.0.0.0: only a request may say that (RFC 5227 ARP probe).
        SpaUnspecified = "spa_unspecified",
        /// The sender protocol address is 255.255.255.255.
        SpaBroadcast = "spa_broadcast",
        /// The sender protocol address is in 224.0.0.0/4.
        SpaMulticast = "spa_multicast",
        /// The sender protocol address is in 127.0.0.0/8.
        SpaLoopback = "spa_loopback",
    }
}

label_enum! {
    /// What an ARP frame does, in the terms of RFC 5227.
    pub enum Kind {
        /// "spa is at sha": spa ≠ 0.0.0.0, request and reply alike.
        Claim = "claim",
        /// ARP probe: a request with spa = 0.0.0.0; asks for tpa and claims nothing.
        Probe = "probe",
        /// No valid claim; see [`Bogus`].
        Bogus = "bogus",
    }
}

/// A well-formed ARP frame. Addresses are bytes in network order; numbers are in host order.
/// Field names are RFC 826's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ArpFrame {
    /// Ethernet destination.
    pub eth_dst: MacAddr,
    /// Ethernet source; differs from `sha` in proxies, MS NLB, balance-alb and VRRP.
    pub eth_src: MacAddr,
    /// The VLAN tags, outer first.
    pub tags: [VlanTag; 2],
    /// 1 request, 2 reply.
    pub oper: u16,
    /// Sender hardware address.
    pub sha: MacAddr,
    /// Sender protocol address.
    pub spa: [u8; 4],
    /// Target hardware address.
    pub tha: MacAddr,
    /// Target protocol address.
    pub tpa: [u8; 4],
}

impl ArpFrame {
    /// `oper` of a request.
    pub const REQUEST: u16 = 1;
    /// `oper` of a reply.
    pub const REPLY: u16 = 2;

    /// The operation as an enum.
    #[inline(always)]
    pub const fn operation(&self) -> Operation {
        match self.oper {
            Self::REQUEST => Operation::Request,
            Self::REPLY => Operation::Reply,
            _ => Operation::Other,
        }
    }

    /// The VLAN that the frame is in.
    #[inline(always)]
    pub const fn vlan(&self) -> Vlan {
        Vlan::of(self.tags)
    }

    /// Whether the frame announces (gratuitous ARP, request or reply form): spa = tpa.
    #[inline(always)]
    pub const fn is_announcement(&self) -> bool {
        u32::from_ne_bytes(self.spa) == u32::from_ne_bytes(self.tpa)
    }

    /// Whether the Ethernet destination is one station.
    #[inline(always)]
    pub const fn is_unicast(&self) -> bool {
        !self.eth_dst.is_group()
    }

    /// The address that the frame is about: spa of a claim, tpa of an ARP probe.
    #[inline(always)]
    pub const fn subject(&self) -> [u8; 4] {
        if u32::from_ne_bytes(self.spa) == 0 {
            self.tpa
        } else {
            self.spa
        }
    }

    /// Why the frame is no valid claim, or `None` where it is a claim or an ARP probe.
    ///
    /// The broadcast address of a connected network is bogus too, but only user space knows networks.
    #[inline(always)]
    pub fn bogus(&self) -> Option<Bogus> {
        if self.sha == MacAddr::ZERO {
            return Some(Bogus::ShaZero);
        }
        if self.sha.is_group() && !self.sha.is_ms_nlb_multicast() {
            let broadcast = self.sha == MacAddr::BROADCAST;
            return Some(if broadcast {
                Bogus::ShaBroadcast
            } else {
                Bogus::ShaMulticast
            });
        }
        let [first, ..] = self.spa;
        match first {
            0 if self.spa == [0; 4] && self.oper == Self::REPLY => Some(Bogus::SpaUnspecified),
            127 => Some(Bogus::SpaLoopback),
            224..=239 => Some(Bogus::SpaMulticast),
            255 if self.spa == [255; 4] => Some(Bogus::SpaBroadcast),
            _ => None,
        }
    }

    /// What the frame does.
    #[inline(always)]
    pub fn kind(&self) -> Kind {
        if self.bogus().is_some() {
            Kind::Bogus
        } else if self.spa == [0; 4] {
            Kind::Probe
        } else {
            Kind::Claim
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_read_back_what_they_print() {
        let mac = MacAddr([0x02, 0, 0x5e, 0x10, 0, 0xff]);
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        assert_eq!("02:00:5e:10:00:ff".parse(), Ok(mac));
        assert_eq!("02-00-5E-10-0-FF".parse(), Ok(mac));
        for bad in [
            "",
            "02",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:01",
            "02:00:5e:10:00:+f",
            "é2:0:0:0:0:0",
        ] {
            assert_eq!(bad.parse::<MacAddr>(), Err(MacAddrError), "{bad}");
        }
    }

    #[test]
    fn a_vlan_names_its_tags_outer_first_and_leaves_out_priority_tags() {
        let tag = |vid| VlanTag::new(ethertype::VLAN, vid);
        for (tags, name) in [
            ([VlanTag::NONE; 2], "0"),
            ([tag(0), VlanTag::NONE], "0"),
            ([tag(100), VlanTag::NONE], "100"),
            ([tag(0xe064), VlanTag::NONE], "100"),
            ([tag(100), tag(200)], "100.200"),
            ([tag(0), tag(200)], "200"),
            ([tag(100), tag(0)], "100"),
        ] {
            assert_eq!(Vlan::of(tags).to_string(), name);
            assert_eq!(name.parse(), Ok(Vlan::of(tags)));
        }
        for bad in ["", "4095", "-1", "0.5", "1.", "1.2.3", "a"] {
            assert_eq!(bad.parse::<Vlan>(), Err(VlanError), "{bad}");
        }
    }

    #[test]
    fn validity_is_judged_by_sender_addresses_only() {
        let claim = ArpFrame {
            oper: ArpFrame::REPLY,
            sha: MacAddr([2, 0, 0, 0, 0, 1]),
            spa: [192, 0, 2, 1],
            ..ArpFrame::default()
        };
        let with_sha = |sha| ArpFrame {
            sha: MacAddr(sha),
            ..claim
        };
        let with_spa = |spa| ArpFrame { spa, ..claim };
        for (frame, expected) in [
            (claim, None),
            (with_sha([0; 6]), Some(Bogus::ShaZero)),
            (with_sha([0xff; 6]), Some(Bogus::ShaBroadcast)),
            (with_sha([1, 0, 0x5e, 0, 0, 1]), Some(Bogus::ShaMulticast)),
            (with_sha([3, 0xbf, 192, 0, 2, 1]), None),
            (with_spa([0; 4]), Some(Bogus::SpaUnspecified)),
            (with_spa([0, 0, 0, 1]), None),
            (with_spa([127, 0, 0, 1]), Some(Bogus::SpaLoopback)),
            (with_spa([224, 0, 0, 1]), Some(Bogus::SpaMulticast)),
            (with_spa([239, 255, 255, 255]), Some(Bogus::SpaMulticast)),
            (with_spa([240, 0, 0, 1]), None),
            (with_spa([255; 4]), Some(Bogus::SpaBroadcast)),
            (
                ArpFrame {
                    oper: ArpFrame::REQUEST,
                    ..with_spa([0; 4])
                },
                None,
            ),
        ] {
            assert_eq!(frame.bogus(), expected, "{frame:?}");
        }
        assert_eq!(claim.kind(), Kind::Claim);
        assert_eq!(
            ArpFrame {
                oper: 1,
                ..with_spa([0; 4])
            }
            .kind(),
            Kind::Probe
        );
        assert_eq!(with_sha([0; 6]).kind(), Kind::Bogus);
    }
}
