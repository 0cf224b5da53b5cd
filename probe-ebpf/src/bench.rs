//! Programs that only benchmarks load: an empty program as the baseline, and a generator of frames.
//!
//! Only `cargo xtask bench` builds them (feature `bench`); they are not shipped.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(
    missing_docs,
    clippy::needless_pass_by_value,
    reason = "aya's macros make public items without documentation, and pass the context by value"
)]

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS},
    btf_maps::Array,
    helpers::generated::bpf_redirect,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// `TC_ACT_UNSPEC`, `TCX_NEXT`
const TC_NEXT: i32 = -1;

#[xdp]
pub fn empty_xdp(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    TC_NEXT
}

/// The parameters and the state of the generator, as indexes into an array that user space writes and reads.
mod storm {
    /// The egress interface.
    pub const INTERFACE: usize = 0;
    /// The number of addresses, which are announced in turn; 0 makes every address a random one.
    pub const ADDRESSES: usize = 1;
    /// The number of addresses, from the first, that two owners announce alternately.
    pub const CONFLICTING: usize = 2;
    /// The number of generated frames.
    pub const GENERATED: usize = 3;
    pub const WORDS: usize = 4;
}

#[btf_map]
static STORM: Array<[u64; storm::WORDS], 1> = Array::new();

/// Offsets in an untagged ARP frame.
const ETH_SRC: usize = 6;
const SHA: usize = 22;
const SPA: usize = 28;
const TPA: usize = 38;
const END: usize = 42;

/// Rewrites each frame into the next announcement and redirects it to the interface. For `BPF_PROG_TEST_RUN` with
/// live frames.
#[xdp]
pub fn storm(ctx: XdpContext) -> u32 {
    let Some(state) = STORM.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: the value of an array stays allocated, and any bits are valid numbers.
    let mut words = unsafe { state.read() };
    let number = words[storm::GENERATED];
    words[storm::GENERATED] = number + 1;
    // SAFETY: as above. One `BPF_PROG_TEST_RUN` at a time runs this program, so no frame is counted twice.
    unsafe { state.write(words) };

    let addresses = words[storm::ADDRESSES];
    let (address, second_owner) = match number.checked_div(addresses) {
        None => (scatter(number), false),
        Some(turn) => {
            let address = number % addresses;
            (
                address,
                address < words[storm::CONFLICTING] && turn % 2 == 1,
            )
        }
    };
    // An address in 10.0.0.0/8, and a MAC derived from it.
    #[expect(clippy::cast_possible_truncation, reason = "24 bits")]
    let [_, high, middle, low] = (address as u32).to_be_bytes();
    let mac = [2, u8::from(second_owner), 0, high, middle, low];
    let ip = [10, high, middle, low];

    // Read once: the verifier tracks the bounds of each pointer separately.
    let data = ctx.data();
    if data + END > ctx.data_end() {
        return XDP_ABORTED;
    }
    for (offset, bytes) in [(ETH_SRC, mac), (SHA, mac)] {
        // SAFETY: the frame has END bytes, as checked above, and this is within them.
        unsafe { ((data + offset) as *mut [u8; 6]).write(bytes) };
    }
    for offset in [SPA, TPA] {
        // SAFETY: as above.
        unsafe { ((data + offset) as *mut [u8; 4]).write(ip) };
    }
    #[expect(clippy::cast_possible_truncation, reason = "an interface index")]
    let interface = words[storm::INTERFACE] as u32;
    // SAFETY: the helper only takes numbers.
    let action = unsafe { bpf_redirect(interface, 0) };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an XDP action"
    )]
    let action = action as u32;
    action
}

/// A pseudorandom permutation of 64-bit numbers (splitmix64's, Steele, Lea and Flood 2014).
#[inline(always)]
const fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// For the host, where this crate is only checked: `cargo check --workspace`.
#[cfg(not(target_arch = "bpf"))]
const fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The license, which gives access to the helpers for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
