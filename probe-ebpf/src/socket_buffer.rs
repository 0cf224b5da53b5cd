//! A socket buffer as bytes.

use core::{ffi::c_void, mem::size_of, ptr};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use bytemuck::AnyBitPattern;
use probe_common::{parse::FrameBytes, wire::VlanTag};

use crate::xdp_buffer::load_linear;

/// A socket buffer at one of the TC hooks, from its Ethernet header on.
pub struct SocketBuffer<'a>(pub &'a TcContext);

impl SocketBuffer<'_> {
    #[inline(always)]
    fn skb(&self) -> *mut __sk_buff {
        self.0.skb.skb
    }

    /// Index of the interface that the frame is on.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the kernel passes a valid context; the verifier checks the access.
        unsafe { (*self.skb()).ifindex }
    }

    /// The tag that the network card or the kernel moved from the bytes into the metadata of the buffer.
    #[inline(always)]
    pub fn stripped_tag(&self) -> VlanTag {
        // SAFETY: as above.
        let present = unsafe { (*self.skb()).vlan_present };
        if present == 0 {
            return VlanTag::NONE;
        }
        // SAFETY: as above.
        let tpid = unsafe { (*self.skb()).vlan_proto };
        // SAFETY: as above.
        let tci = unsafe { (*self.skb()).vlan_tci };
        // Both are 16 bits wide in the kernel; `vlan_proto` is in network order there.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "16 bits widened by the kernel"
        )]
        let tag = VlanTag::new(u16::from_be(tpid as u16), tci as u16);
        tag
    }
}

impl FrameBytes for SocketBuffer<'_> {
    #[inline(always)]
    fn load<H: AnyBitPattern>(&self, offset: usize, header: &mut H) -> bool {
        // SAFETY: the context is that of the running program, so these are the bounds of its packet.
        let is_linear = unsafe { load_linear(self.0.data(), self.0.data_end(), offset, header) };
        is_linear || self.load_paged(offset, header)
    }
}

impl SocketBuffer<'_> {
    /// Copies a header that is not in the linear part. `bpf_skb_pull_data` would change the buffer.
    #[inline(always)]
    fn load_paged<H: AnyBitPattern>(&self, offset: usize, header: &mut H) -> bool {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "offsets and lengths of headers, below 64"
        )]
        let (offset, length) = (offset as u32, size_of::<H>() as u32);
        let to = ptr::from_mut(header).cast::<c_void>();
        // SAFETY: the helper writes `length` bytes at `to` or fails, `header` has that many, and any bytes
        // are a valid header.
        unsafe { bpf_skb_load_bytes(self.skb().cast(), offset, to, length) == 0 }
    }
}
