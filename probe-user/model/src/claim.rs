//! The JSON form of a claim.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
};

use jiff::Timestamp;
use probe_common::{
    counter::Direction,
    event::{ArpEvent, Hook},
    label_enum,
    wire::{ArpFrame, FrameKind, MacAddr, Vlan},
};
use serde::{Deserialize, Serialize};

use super::vendor::vendor;

label_enum! {
    /// The form of a claim.
    pub enum ClaimForm {
        /// An ARP request for another address, which contains the sender's own.
        Request = "request",
        /// An ARP reply.
        Reply = "reply",
        /// An announcement (gratuitous ARP): a request or reply with spa = tpa.
        Announcement = "announcement",
    }
}

/// A claim as a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// The time at which it was observed.
    pub time: Timestamp,
    /// The form of the claim.
    pub claim: ClaimForm,
    /// The name of the interface.
    pub interface: String,
    /// The VLAN: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// Whether this host received (`ingress`) or sent (`egress`) it.
    pub direction: Direction,
    /// The claimed address (spa).
    pub ip: IpAddr,
    /// The MAC that claims it (sha).
    pub mac: MacAddr,
    /// The vendor of `mac`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'static, str>>,
    /// The target address (tpa): the requested one, or in a reply that of the requester.
    pub target: IpAddr,
    /// The Ethernet source address.
    pub eth_src: MacAddr,
    /// The Ethernet destination address.
    pub eth_dst: MacAddr,
}

impl ClaimRecord {
    /// The claim of an event; `None` if the event is no claim.
    pub fn new(event: &ArpEvent, interface: String, time: Timestamp) -> Option<Self> {
        let frame = &event.frame;
        if event.kind() != Some(FrameKind::Claim) {
            return None;
        }
        Some(Self {
            time,
            claim: if frame.is_announcement() {
                ClaimForm::Announcement
            } else if frame.oper == ArpFrame::REPLY {
                ClaimForm::Reply
            } else {
                ClaimForm::Request
            },
            interface,
            vlan: frame.vlan(),
            direction: event.hook().map_or(Direction::Ingress, Hook::direction),
            ip: Ipv4Addr::from(frame.spa).into(),
            mac: frame.sha,
            vendor: vendor(frame.sha),
            target: Ipv4Addr::from(frame.tpa).into(),
            eth_src: frame.eth_src,
            eth_dst: frame.eth_dst,
        })
    }
}
