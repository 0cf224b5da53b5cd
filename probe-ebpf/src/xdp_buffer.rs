//! An XDP buffer as bytes.

use core::ptr;

use aya_ebpf::programs::XdpContext;
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
    fn load<const N: usize>(&self, offset: usize, bytes: &mut [u8; N]) -> bool {
        load_linear(self.0.data(), self.0.data_end(), offset, bytes)
    }
}

/// Copies the bytes at `offset` of the packet memory between `data` and `data_end`.
#[inline(always)]
pub fn load_linear<const N: usize>(
    data: usize,
    data_end: usize,
    offset: usize,
    bytes: &mut [u8; N],
) -> bool {
    if data + offset + N > data_end {
        return false;
    }
    // SAFETY: `data..data_end` is the packet, readable while the program runs, and the check above keeps
    // the N bytes inside of it; the verifier proves the same before it lets the program run.
    *bytes = unsafe { ptr::read_unaligned((data + offset) as *const [u8; N]) };
    true
}
