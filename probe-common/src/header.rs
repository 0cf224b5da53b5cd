//! The protocol headers of `network-types` as plain bytes.
//!
//! `network-types` 0.2 describes the headers and offers no conversion from and to bytes that fits here: its `wincode`
//! feature does not compile for big-endian hosts, because [`EthHdr::ether_type`] and [`VlanHdr::ether_type`] are
//! integers, and its derive macros would have to be built for every build of the kernel side. [`PodHeader`] adds that
//! conversion by `bytemuck`, as [`crate::event::ArpEvent`] does. It is the only `unsafe` code of this crate.

#![allow(
    unsafe_code,
    reason = "the traits of bytemuck can only be derived where a type is defined"
)]

use core::mem::{align_of, offset_of, size_of};

use bytemuck::{Pod, Zeroable};
use network_types::{arp::ArpHdr, eth::EthHdr, vlan::VlanHdr};

/// A header whose bytes can be read and written: an [`EthHdr`], [`VlanHdr`] or [`ArpHdr`]. Integers in it are in
/// network order, as they are in the frame.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct PodHeader<H>(pub H);

/// Implements bytemuck's traits for the header type `$header`, whose fields are listed with their types.
macro_rules! plain_header {
    ($header:ident { $( $field:ident: $type:ty ),+ $(,)? }) => {
        // SAFETY: the function below compiles only if these are all fields with their types, and each of them is
        // valid with all bits zero.
        unsafe impl Zeroable for PodHeader<$header> {}
        // SAFETY: as above, any bits are valid in each field; the assertion below excludes padding.
        unsafe impl Pod for PodHeader<$header> {}

        const _: () = {
            #[expect(dead_code, reason = "it only has to compile")]
            fn has_no_other_fields(header: $header) {
                let $header { $( $field ),+ } = header;
                $( let _: $type = $field; )+
            }
            assert!(size_of::<$header>() == 0 $( + size_of::<$type>() )+);
        };
    };
}

plain_header!(EthHdr {
    dst_addr: [u8; 6],
    src_addr: [u8; 6],
    ether_type: u16
});
plain_header!(VlanHdr {
    tci: [u8; 2],
    ether_type: u16
});
plain_header!(ArpHdr {
    htype: [u8; 2],
    ptype: [u8; 2],
    hlen: u8,
    plen: u8,
    oper: [u8; 2],
    sha: [u8; 6],
    spa: [u8; 4],
    tha: [u8; 6],
    tpa: [u8; 4],
});

// The layout of RFC 826 and IEEE 802.3, which `repr(C)` gives.
const _: () = {
    assert!(size_of::<EthHdr>() == 14 && offset_of!(EthHdr, ether_type) == 12);
    assert!(size_of::<VlanHdr>() == 4 && offset_of!(VlanHdr, ether_type) == 2);
    assert!(size_of::<ArpHdr>() == 28 && align_of::<ArpHdr>() == 1);
    assert!(offset_of!(ArpHdr, sha) == 8 && offset_of!(ArpHdr, tpa) == 24);
};
