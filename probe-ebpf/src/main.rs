//! The eBPF programs: one path for three hooks.
//!
//! XDP and TC ingress observe frames that this host receives, TC egress those that it sends. Each passes its bytes to
//! the parser of `probe-common` and lets every frame pass unchanged: this crate has no other return value.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
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

/// Continue: `TC_ACT_UNSPEC` for clsact and `TCX_NEXT` for TCX, which are the same number
/// (`include/uapi/linux/pkt_cls.h`, `include/uapi/linux/bpf.h`).
const TC_NEXT: i32 = -1;

/// Observes received frames before the kernel allocates socket buffers for them.
#[xdp]
pub fn arp_xdp(ctx: XdpContext) -> u32 {
    observe_xdp(&ctx)
}

/// The same for interfaces whose MTU requires multi-buffer XDP. Kernels below 5.18 refuse this program, so it is
/// loaded only if an interface requires it.
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

/// Observes received frames where the XDP hook is in use or too expensive.
#[classifier]
pub fn arp_tc_ingress(ctx: TcContext) -> i32 {
    observe_tc(&ctx, Hook::TcIngress)
}

/// Observes frames that this host sends.
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

/// For the host, where this crate is only checked: `cargo check --workspace`.
#[cfg(not(target_arch = "bpf"))]
const fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can reach this loop, so a panic is an error at load time.
    loop {}
}

/// The license, which gives access to the helpers for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The ABI version, which the loader compares with its own.
#[unsafe(link_section = "probe_abi")]
#[unsafe(no_mangle)]
static PROBE_ABI: [u8; 4] = probe_common::event::ABI_VERSION.to_le_bytes();
