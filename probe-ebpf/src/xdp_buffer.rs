//! An XDP buffer as bytes.

use core::{mem::size_of, ptr};

use aya_ebpf::programs::XdpContext;
use bytemuck::AnyBitPattern;
use probe_common::parse::FrameBytes;

/// The linear part of an XDP buffer. Headers are always in it, also where the frame spans several
/// buffers.
pub struct XdpBuffer<'a>(pub &'a XdpContext);

impl XdpBuffer<'_> {
    /// Index of the interface that received the frame.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // A u32 in the kernel (`struct xdp_md`), which aya widens.
        #[expect(clippy::cast_possible_truncation, reason = "it is a u32 underneath")]
        let ifindex = self.0.ingress_ifindex() as u32;
        ifindex
    }
}

impl FrameBytes for XdpBuffer<'_> {
    #[inline(always)]
    fn load<H: AnyBitPattern>(&self, offset: usize, header: &mut H) -> bool {
        load_linear(self.0.data(), self.0.data_end(), offset, header)
    }
}

/// Copies the header at `offset` of the packet memory between `data` and `data_end`.
#[inline(always)]
pub fn load_linear<H: AnyBitPattern>(
    data: usize,
    data_end: usize,
    offset: usize,
    header: &mut H,
) -> bool {
    if data + offset + size_of::<H>() > data_end {
        return false;
    }
    // SAFETY: `data..data_end` is the packet, readable while the program runs, and the check above keeps
    // the header inside of it; the verifier proves the same before it lets the program run. Any bytes
    // are a valid header.
    *header = unsafe { ptr::read_unaligned((data + offset) as *const H) };
    true
}
