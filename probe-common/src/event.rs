//! The ring-buffer ABI: the event with which a BPF program reports one frame to user space.
//!
//! Integers and byte arrays only; padding is explicit and zero, offsets are asserted. A change of a layout here requires
//! a new [`ABI_VERSION`]; the loader rejects an object that was built with another one.

use core::mem::{offset_of, size_of};

use bytemuck::{Pod, Zeroable};

use crate::{
    counter::Direction,
    label::label_enum,
    wire::{ArpFrame, BogusFrameReason, FrameKind, MacAddr},
};

/// The version of all layouts that the BPF programs and user space share.
pub const ABI_VERSION: u32 = 3;

label_enum! {
    /// The hook at which a BPF program observed a frame.
    pub enum Hook {
        /// XDP, in the driver or generic.
        Xdp = "xdp",
        /// TC ingress: TCX or clsact.
        TcIngress = "tc_ingress",
        /// TC egress: TCX or clsact.
        TcEgress = "tc_egress",
    }
}

impl Hook {
    /// The direction of the frames at this hook.
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Xdp | Self::TcIngress => Direction::Ingress,
            Self::TcEgress => Direction::Egress,
        }
    }

    /// The name of the program that runs at this hook.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "arp_xdp",
            Self::TcIngress => "arp_tc_ingress",
            Self::TcEgress => "arp_tc_egress",
        }
    }
}

/// Properties of a claim, as bits of [`ClaimObservation::flags`].
pub mod claim_flags {
    /// The frame is a reply; if unset, a request.
    pub const REPLY: u8 = 1 << 0;
    /// The frame is an announcement: spa = tpa.
    pub const ANNOUNCEMENT: u8 = 1 << 1;
    /// The Ethernet destination is a unicast address.
    pub const UNICAST: u8 = 1 << 2;
    /// This host sent the frame.
    pub const EGRESS: u8 = 1 << 3;
    /// The rate limit dropped this claim or another one after the last emitted claim.
    pub const RATE_LIMITED: u8 = 1 << 4;
}

/// An observed claim: its MAC, time and properties, and the request that it replies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ClaimObservation {
    /// The time of observation, `CLOCK_MONOTONIC` in nanoseconds; 0 if there was no claim.
    pub ktime_ns: u64,
    /// The time at which the request was observed that the claim replies to; 0 if it replies to no known request.
    pub request_ns: u64,
    /// Sender hardware address of the claim.
    pub mac: MacAddr,
    /// Bits of [`claim_flags`].
    pub flags: u8,
    /// Zero.
    pub padding: u8,
}

impl ClaimObservation {
    /// No claim.
    pub const NONE: Self = Self {
        ktime_ns: 0,
        request_ns: 0,
        mac: MacAddr([0; 6]),
        flags: 0,
        padding: 0,
    };

    /// The claim of `frame`, observed at `ktime_ns` on a hook of this direction.
    #[inline(always)]
    pub const fn from_frame(
        frame: &ArpFrame,
        direction: Direction,
        ktime_ns: u64,
        request_ns: u64,
    ) -> Self {
        let mut flags = 0;
        if frame.oper == ArpFrame::REPLY {
            flags |= claim_flags::REPLY;
        }
        if frame.is_announcement() {
            flags |= claim_flags::ANNOUNCEMENT;
        }
        if frame.is_unicast() {
            flags |= claim_flags::UNICAST;
        }
        if matches!(direction, Direction::Egress) {
            flags |= claim_flags::EGRESS;
        }
        Self {
            ktime_ns,
            request_ns,
            mac: frame.sha,
            flags,
            padding: 0,
        }
    }

    /// Whether there was a claim.
    pub const fn is_some(&self) -> bool {
        self.ktime_ns != 0
    }

    /// Whether all of these [`claim_flags`] are set.
    pub const fn has_flags(&self, bits: u8) -> bool {
        self.flags & bits == bits
    }
}

/// An observed frame that a BPF program reports to user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ArpEvent {
    /// The time at which the frame was observed, `CLOCK_MONOTONIC` in nanoseconds.
    pub ktime_ns: u64,
    /// The time at which the request was observed that this frame replies to; 0 if it replies to no known request. It
    /// identifies the request: frames with the same `request_ns` reply to the same request.
    pub request_ns: u64,
    /// The previous claim on the same address, whether or not it was emitted.
    pub previous: ClaimObservation,
    /// Index of the interface.
    pub ifindex: u32,
    /// The number of a [`FrameKind`].
    pub kind: u8,
    /// The number of a [`Hook`].
    pub hook: u8,
    /// The frame.
    pub frame: ArpFrame,
}

const _: () = {
    assert!(size_of::<ArpFrame>() == 42);
    assert!(size_of::<ClaimObservation>() == 24);
    assert!(size_of::<ArpEvent>() == 88);
    assert!(offset_of!(ArpEvent, request_ns) == 8);
    assert!(offset_of!(ArpEvent, previous) == 16);
    assert!(offset_of!(ArpEvent, ifindex) == 40);
    assert!(offset_of!(ArpEvent, kind) == 44);
    assert!(offset_of!(ArpEvent, hook) == 45);
    assert!(offset_of!(ArpEvent, frame) == 46);
};

impl ArpEvent {
    /// The kind of the frame; `None` if the number is unknown.
    pub fn kind(&self) -> Option<FrameKind> {
        FrameKind::from_number(self.kind)
    }

    /// The hook that observed the frame; `None` if the number is unknown.
    pub fn hook(&self) -> Option<Hook> {
        Hook::from_number(self.hook)
    }

    /// Why the frame is bogus; `None` if it is not.
    pub fn bogus(&self) -> Option<BogusFrameReason> {
        self.frame.bogus()
    }

    /// The claim of this frame, as the event of a later claim contains it in `previous`.
    pub fn claim_observation(&self) -> ClaimObservation {
        let direction = self.hook().map_or(Direction::Ingress, Hook::direction);
        ClaimObservation::from_frame(&self.frame, direction, self.ktime_ns, self.request_ns)
    }
}
