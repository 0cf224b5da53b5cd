//! The kernel side: three hooks, one path.
//!
//! XDP and TC ingress see what arrives, TC egress what this host says itself. Each hands its bytes to
//! the parser of `probe-common` and lets every frame go on its way, unchanged, whatever it holds: there
//! is no other return value in this crate.
#![no_std]
#![no_main]
#![allow(
    missing_docs,
    clippy::needless_pass_by_value,
    reason = "aya's macros make public items without documentation, and pass the context by value"
)]

mod maps;
mod observe;
mod socket_buffer;
mod xdp_buffer;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use probe_common::{event::Hook, wire::VlanTag};
use socket_buffer::SocketBuffer;
use xdp_buffer::XdpBuffer;

/// "Go on": `TC_ACT_UNSPEC` for clsact and `TCX_NEXT` for TCX, which are the same number
/// (`include/uapi/linux/pkt_cls.h`, `include/uapi/linux/bpf.h`).
const TC_NEXT: i32 = -1;

/// Frames that arrive, before the kernel makes socket buffers of them.
#[xdp]
pub fn arp_xdp(ctx: XdpContext) -> u32 {
    observe_xdp(&ctx)
}

/// The same for interfaces whose MTU needs multi-buffer XDP. Kernels below 5.18 refuse this one, so it
/// is loaded only where it is wanted.
#[xdp(frags)]
pub fn arp_xdp_frags(ctx: XdpContext) -> u32 {
    observe_xdp(&ctx)
}

#[inline(always)]
fn observe_xdp(ctx: &XdpContext) -> u32 {
    let buffer = XdpBuffer(ctx);
    observe::frame(&buffer, ctx, VlanTag::NONE, buffer.ifindex(), Hook::Xdp);
    XDP_PASS
}

/// Frames that arrive, where XDP is not free or costs too much.
#[classifier]
pub fn arp_tc_ingress(ctx: TcContext) -> i32 {
    observe_tc(&ctx, Hook::TcIngress)
}

/// Frames that this host sends.
#[classifier]
pub fn arp_tc_egress(ctx: TcContext) -> i32 {
    observe_tc(&ctx, Hook::TcEgress)
}

#[inline(always)]
fn observe_tc(ctx: &TcContext, hook: Hook) -> i32 {
    let buffer = SocketBuffer(ctx);
    observe::frame(&buffer, ctx, buffer.stripped_tag(), buffer.ifindex(), hook);
    TC_NEXT
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable, and if it were not, the verifier would refuse the loop: a panic is a load error, never
    // undefined behaviour.
    loop {}
}

/// Lets the kernel call the helpers that it reserves for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// What the loader compares with its own version before it trusts an event.
#[unsafe(link_section = "probe_abi")]
#[unsafe(no_mangle)]
static PROBE_ABI: [u8; 4] = probe_common::event::ABI_VERSION.to_le_bytes();
