//! An XDP buffer as bytes.

use core::{mem::size_of, ptr};

use aya_ebpf::programs::XdpContext;
use bytemuck::AnyBitPattern;
use probe_common::parse::FrameBytes;

/// The linear part of an XDP buffer. It contains all headers, also if the frame has fragments.
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
        // SAFETY: the context is that of the running program, so these are the bounds of its packet.
        unsafe { load_linear(self.0.data(), self.0.data_end(), offset, header) }
    }
}

/// Copies the header at `offset` of the packet memory between `data` and `data_end`. Returns `false` if the packet
/// ends before the header does.
///
/// # Safety
///
/// `data` and `data_end` are the bounds of memory that is readable during the call, and `offset` is small enough that
/// `data + offset` does not overflow. (The verifier checks both for the packet of the running program.)
#[inline(always)]
pub unsafe fn load_linear<H: AnyBitPattern>(
    data: usize,
    data_end: usize,
    offset: usize,
    header: &mut H,
) -> bool {
    if data + offset + size_of::<H>() > data_end {
        return false;
    }
    // SAFETY: `data..data_end` is readable, as the caller guarantees, and the check above keeps the header
    // within it. Any bytes are a valid header.
    *header = unsafe { ptr::read_unaligned((data + offset) as *const H) };
    true
}
