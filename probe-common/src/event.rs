//! The ring-buffer ABI: what the kernel side tells user space about one frame.
//!
//! Integers and byte arrays only, padding explicit and zero, offsets asserted. Whoever changes a layout
//! here raises [`ABI_VERSION`]; the loader refuses an object that was built with another one.

use core::mem::{offset_of, size_of};

use bytemuck::{Pod, Zeroable};

use crate::{
    counter::Direction,
    label::label_enum,
    wire::{ArpFrame, Bogus, Kind, MacAddr},
};

/// Version of every layout that kernel and user space share.
pub const ABI_VERSION: u32 = 3;

label_enum! {
    /// Where the kernel side saw a frame.
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
    /// Which way the frames of this hook go.
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

/// What a claim looked like, as bits of [`Sighting::form`].
pub mod form {
    /// A reply; without it, a request.
    pub const REPLY: u8 = 1 << 0;
    /// spa = tpa.
    pub const ANNOUNCEMENT: u8 = 1 << 1;
    /// Sent to one station.
    pub const UNICAST: u8 = 1 << 2;
    /// Sent by this host.
    pub const EGRESS: u8 = 1 << 3;
    /// It, or a claim after the last emitted one, was not emitted because of the rate limit.
    pub const RATE_LIMITED: u8 = 1 << 4;
}

/// A claim as the kernel side remembers it: who, when, how, and in answer to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sighting {
    /// When it was seen, `CLOCK_MONOTONIC` in nanoseconds; 0 if there was none.
    pub ktime_ns: u64,
    /// When the request was seen that it answered; 0 if it answered none that is known.
    pub request_ns: u64,
    /// Sender hardware address of the claim.
    pub mac: MacAddr,
    /// Bits of [`form`].
    pub form: u8,
    /// Zero.
    pub padding: u8,
}

impl Sighting {
    /// No claim.
    pub const NONE: Self = Self {
        ktime_ns: 0,
        request_ns: 0,
        mac: MacAddr([0; 6]),
        form: 0,
        padding: 0,
    };

    /// The sighting of `frame` at `ktime_ns` on a hook of this direction.
    #[inline(always)]
    pub const fn of(
        frame: &ArpFrame,
        direction: Direction,
        ktime_ns: u64,
        request_ns: u64,
    ) -> Self {
        let mut bits = 0;
        if frame.oper == ArpFrame::REPLY {
            bits |= form::REPLY;
        }
        if frame.is_announcement() {
            bits |= form::ANNOUNCEMENT;
        }
        if frame.is_unicast() {
            bits |= form::UNICAST;
        }
        if matches!(direction, Direction::Egress) {
            bits |= form::EGRESS;
        }
        Self {
            ktime_ns,
            request_ns,
            mac: frame.sha,
            form: bits,
            padding: 0,
        }
    }

    /// Whether there was a claim at all.
    pub const fn is_some(&self) -> bool {
        self.ktime_ns != 0
    }

    /// Whether all of these [`form`] bits are set.
    pub const fn has_form(&self, bits: u8) -> bool {
        self.form & bits == bits
    }
}

/// One frame that user space gets to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ArpEvent {
    /// When the frame was seen, `CLOCK_MONOTONIC` in nanoseconds.
    pub ktime_ns: u64,
    /// When the request was seen that this reply answers; 0 if it answers none that is known. It
    /// identifies the request: two replies with one `request_ns` answer the same one.
    pub request_ns: u64,
    /// The claim on the same address seen before this one, whether or not it was emitted.
    pub previous: Sighting,
    /// Index of the interface.
    pub ifindex: u32,
    /// Number of a [`Kind`].
    pub kind: u8,
    /// Number of a [`Hook`].
    pub hook: u8,
    /// The frame.
    pub frame: ArpFrame,
}

const _: () = {
    assert!(size_of::<ArpFrame>() == 42);
    assert!(size_of::<Sighting>() == 24);
    assert!(size_of::<ArpEvent>() == 88);
    assert!(offset_of!(ArpEvent, request_ns) == 8);
    assert!(offset_of!(ArpEvent, previous) == 16);
    assert!(offset_of!(ArpEvent, ifindex) == 40);
    assert!(offset_of!(ArpEvent, kind) == 44);
    assert!(offset_of!(ArpEvent, hook) == 45);
    assert!(offset_of!(ArpEvent, frame) == 46);
};

impl ArpEvent {
    /// What the frame does.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind)
    }

    /// The hook that saw the frame.
    pub fn hook(&self) -> Option<Hook> {
        Hook::from_number(self.hook)
    }

    /// Why the frame makes no valid claim.
    pub fn bogus(&self) -> Option<Bogus> {
        self.frame.bogus()
    }

    /// This frame as a sighting: what a later claim's `previous` would say of it.
    pub fn sighting(&self) -> Sighting {
        let direction = self.hook().map_or(Direction::Ingress, Hook::direction);
        Sighting::of(&self.frame, direction, self.ktime_ns, self.request_ns)
    }
}
