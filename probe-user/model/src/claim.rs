//! A claim with the names and times that the world outside knows.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
};

use jiff::Timestamp;
use probe_common::{
    counter::Direction,
    event::{ArpEvent, Hook},
    label_enum,
    wire::{ArpFrame, Kind, MacAddr, Vlan},
};
use serde::{Deserialize, Serialize};

use super::vendor::vendor;

label_enum! {
    /// The forms of a claim.
    pub enum ClaimForm {
        /// Its sender asks for another address, and says its own with it.
        Request = "request",
        /// Its sender answers.
        Reply = "reply",
        /// Nobody asked: spa = tpa (gratuitous ARP), as request or reply.
        Announcement = "announcement",
    }
}

/// One claim: a line of JSON. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// When it was seen.
    pub time: Timestamp,
    /// What it looked like.
    pub claim: ClaimForm,
    /// On which interface.
    pub interface: String,
    /// In which VLAN: `0` untagged, `100`, `100.200`.
    pub vlan: Vlan,
    /// Whether this host received (`ingress`) or sent (`egress`) it.
    pub direction: Direction,
    /// spa: the address that is claimed.
    pub ip: IpAddr,
    /// sha: who claims it.
    pub mac: MacAddr,
    /// The registered maker of `mac`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'static, str>>,
    /// tpa: the address that is asked for, or whose owner is answered.
    pub target: IpAddr,
    /// The Ethernet source.
    pub eth_src: MacAddr,
    /// The Ethernet destination.
    pub eth_dst: MacAddr,
}

impl ClaimRecord {
    /// The claim that an event tells of, if it does.
    pub fn new(event: &ArpEvent, interface: String, time: Timestamp) -> Option<Self> {
        let frame = &event.frame;
        if event.kind() != Some(Kind::Claim) {
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
