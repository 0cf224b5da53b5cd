//! The types of ARP over Ethernet: RFC 826, RFC 5227, IEEE 802.1Q.
//!
//! The headers on the wire are those of `network-types` (see [`crate::header`]). This module adds the types that it lacks:
//! a MAC address that is formatted, compared and serialized, a VLAN with up to two tags in host order, and
//! [`ArpFrame`], which is part of the event ABI.

use core::{fmt, str::FromStr};

use bytemuck::{Pod, Zeroable};

use crate::label::label_enum;

/// Ethertypes (IEEE 802), in host order; `network-types` has them in network order.
pub mod ethertype {
    use network_types::eth::EtherType;

    /// ARP.
    pub const ARP: u16 = u16::from_be(EtherType::Arp as u16);
    /// 802.1Q customer tag.
    pub const VLAN: u16 = u16::from_be(EtherType::Ieee8021q as u16);
    /// 802.1ad service tag.
    pub const QINQ: u16 = u16::from_be(EtherType::Ieee8021ad as u16);
    /// IPv4, the only supported protocol type of ARP.
    pub const IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
}

/// ARP hardware type of Ethernet (RFC 826, IANA "Hardware Types").
pub const HTYPE_ETHERNET: u16 = 1;

/// The bits of a TCI that are the VLAN identifier; the upper four bits are priority (PCP) and DEI.
pub const VID_MASK: u16 = 0x0fff;

/// A 48-bit MAC address, in network order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of all zeros: "unknown" in ARP, never an owner.
    pub const ZERO: Self = Self([0; 6]);
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the group bit is set: multicast, broadcast included.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this is the multicast address of a Microsoft NLB cluster (03:bf:…), the only group address that is a valid
    /// owner.
    #[inline(always)]
    pub const fn is_ms_nlb_multicast(self) -> bool {
        self.0[0] == 0x03 && self.0[1] == 0xbf
    }

    /// The address in the low 48 bits of a word, which a BPF program can store at once.
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

/// The text is not a MAC address.
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

    /// Parses `aa:bb:cc:dd:ee:ff`, also with dashes and with one digit per byte.
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

/// A VLAN tag without its priority bits, or no tag if `tpid` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct VlanTag {
    /// The tag protocol identifier, in host order: [`ethertype::VLAN`] or [`ethertype::QINQ`].
    pub tpid: u16,
    /// The VLAN identifier, in host order, 0 to 4095; 0 is a priority tag.
    pub vid: u16,
}

impl VlanTag {
    /// No tag.
    pub const NONE: Self = Self { tpid: 0, vid: 0 };

    /// A tag with this TPID and the VLAN identifier of this TCI.
    #[inline(always)]
    pub const fn new(tpid: u16, tci: u16) -> Self {
        Self {
            tpid,
            vid: tci & VID_MASK,
        }
    }

    /// Whether this is a tag.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.tpid != 0
    }
}

/// The VLAN of a frame: the identifiers of up to two tags, outer first. Priority tags (VID 0) are ignored, so a
/// priority-tagged frame is untagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Vlan(pub [u16; 2]);

impl Vlan {
    /// No VLAN.
    pub const UNTAGGED: Self = Self([0; 2]);

    /// The VLAN of a frame with these tags.
    #[inline(always)]
    pub const fn from_tags(tags: [VlanTag; 2]) -> Self {
        if tags[0].vid == 0 {
            Self([tags[1].vid, 0])
        } else {
            Self([tags[0].vid, tags[1].vid])
        }
    }
}

impl fmt::Display for Vlan {
    /// Writes the value of a `vlan` label: `0` if untagged, `100`, or `100.200` with the outer identifier first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [outer, 0] => write!(f, "{outer}"),
            [outer, inner] => write!(f, "{outer}.{inner}"),
        }
    }
}

/// The text is not a VLAN.
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
    /// An ARP operation (RFC 826 `ar$op`).
    pub enum Operation {
        /// `ares_op$REQUEST`, 1.
        Request = "request",
        /// `ares_op$REPLY`, 2.
        Reply = "reply",
        /// Any other: the frame is malformed, or its operation belongs to another protocol (RARP, InARP).
        Other = "other",
    }
}

label_enum! {
    /// Why a well-formed ARP frame is bogus: neither a valid claim nor an ARP probe.
    pub enum BogusFrameReason {
        /// The sender hardware address is 00:00:00:00:00:00.
        ShaZero = "sha_zero",
        /// The sender hardware address is ff:ff:ff:ff:ff:ff.
        ShaBroadcast = "sha_broadcast",
        /// The sender hardware address is multicast, and not Microsoft NLB's 03:bf:….
        ShaMulticast = "sha_multicast",
        /// The sender protocol address of a reply is 0.0.0.0, which is only valid in a request (RFC 5227 ARP probe).
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
    /// The kind of an ARP frame, in the terms of RFC 5227.
    pub enum FrameKind {
        /// A claim that spa is at sha: a request or reply with spa ≠ 0.0.0.0.
        Claim = "claim",
        /// An ARP probe: a request for tpa with spa = 0.0.0.0, which claims nothing.
        Probe = "probe",
        /// Neither of the two; see [`BogusFrameReason`].
        Bogus = "bogus",
    }
}

/// A well-formed ARP frame, with the field names of RFC 826. Addresses are bytes in network order; numbers are in host
/// order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ArpFrame {
    /// Ethernet destination address.
    pub eth_dst: MacAddr,
    /// Ethernet source address. It differs from `sha` with proxies, MS NLB, balance-alb and VRRP.
    pub eth_src: MacAddr,
    /// The VLAN tags, outer first.
    pub tags: [VlanTag; 2],
    /// The operation: [`Self::REQUEST`] or [`Self::REPLY`].
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
    /// The operation of a request.
    pub const REQUEST: u16 = 1;
    /// The operation of a reply.
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

    /// The VLAN of the frame.
    #[inline(always)]
    pub const fn vlan(&self) -> Vlan {
        Vlan::from_tags(self.tags)
    }

    /// Whether the frame is an announcement (gratuitous ARP, request or reply): spa = tpa.
    #[inline(always)]
    pub const fn is_announcement(&self) -> bool {
        u32::from_ne_bytes(self.spa) == u32::from_ne_bytes(self.tpa)
    }

    /// Whether the Ethernet destination is a unicast address.
    #[inline(always)]
    pub const fn is_unicast(&self) -> bool {
        !self.eth_dst.is_group()
    }

    /// The claimed or probed address: spa of a claim, tpa of an ARP probe.
    #[inline(always)]
    pub const fn subject(&self) -> [u8; 4] {
        if u32::from_ne_bytes(self.spa) == 0 {
            self.tpa
        } else {
            self.spa
        }
    }

    /// Why the frame is bogus; `None` if it is a claim or an ARP probe.
    ///
    /// The broadcast address of a connected network is bogus too, but only user space knows networks.
    #[inline(always)]
    pub fn bogus(&self) -> Option<BogusFrameReason> {
        if self.sha == MacAddr::ZERO {
            return Some(BogusFrameReason::ShaZero);
        }
        if self.sha.is_group() && !self.sha.is_ms_nlb_multicast() {
            let broadcast = self.sha == MacAddr::BROADCAST;
            return Some(if broadcast {
                BogusFrameReason::ShaBroadcast
            } else {
                BogusFrameReason::ShaMulticast
            });
        }
        let [first, ..] = self.spa;
        match first {
            0 if self.spa == [0; 4] && self.oper == Self::REPLY => {
                Some(BogusFrameReason::SpaUnspecified)
            }
            127 => Some(BogusFrameReason::SpaLoopback),
            224..=239 => Some(BogusFrameReason::SpaMulticast),
            255 if self.spa == [255; 4] => Some(BogusFrameReason::SpaBroadcast),
            _ => None,
        }
    }

    /// The kind of the frame.
    #[inline(always)]
    pub fn kind(&self) -> FrameKind {
        if self.bogus().is_some() {
            FrameKind::Bogus
        } else if self.spa == [0; 4] {
            FrameKind::Probe
        } else {
            FrameKind::Claim
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_of_a_mac_address_parses_to_the_address() {
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
    fn a_vlan_lists_its_tags_outer_first_without_priority_tags() {
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
            assert_eq!(Vlan::from_tags(tags).to_string(), name);
            assert_eq!(name.parse(), Ok(Vlan::from_tags(tags)));
        }
        for bad in ["", "4095", "-1", "0.5", "1.", "1.2.3", "a"] {
            assert_eq!(bad.parse::<Vlan>(), Err(VlanError), "{bad}");
        }
    }

    #[test]
    fn only_sender_addresses_make_a_frame_bogus() {
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
            (with_sha([0; 6]), Some(BogusFrameReason::ShaZero)),
            (with_sha([0xff; 6]), Some(BogusFrameReason::ShaBroadcast)),
            (
                with_sha([1, 0, 0x5e, 0, 0, 1]),
                Some(BogusFrameReason::ShaMulticast),
            ),
            (with_sha([3, 0xbf, 192, 0, 2, 1]), None),
            (with_spa([0; 4]), Some(BogusFrameReason::SpaUnspecified)),
            (with_spa([0, 0, 0, 1]), None),
            (
                with_spa([127, 0, 0, 1]),
                Some(BogusFrameReason::SpaLoopback),
            ),
            (
                with_spa([224, 0, 0, 1]),
                Some(BogusFrameReason::SpaMulticast),
            ),
            (
                with_spa([239, 255, 255, 255]),
                Some(BogusFrameReason::SpaMulticast),
            ),
            (with_spa([240, 0, 0, 1]), None),
            (with_spa([255; 4]), Some(BogusFrameReason::SpaBroadcast)),
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
        assert_eq!(claim.kind(), FrameKind::Claim);
        assert_eq!(
            ArpFrame {
                oper: 1,
                ..with_spa([0; 4])
            }
            .kind(),
            FrameKind::Probe
        );
        assert_eq!(with_sha([0; 6]).kind(), FrameKind::Bogus);
    }
}
