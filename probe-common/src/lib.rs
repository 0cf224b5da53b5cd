//! Shared by the BPF programs and user space: the wire format of ARP, its parser, the event filter that decides which
//! frames are emitted as events, the event ABI, and the counters.
//!
//! Pure and `no_std`; must not depend on any other crate of this workspace. The kernel runs the same code as the unit
//! tests, the fuzzer and `probe watch --read`. Only [`header`] contains `unsafe` code.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod counter;
pub mod encode;
pub mod event;
pub mod event_filter;
#[cfg(feature = "serde")]
#[doc(hidden)]
pub mod from_text;
pub mod header;
mod label;
pub mod parse;
pub mod wire;

#[cfg(feature = "serde")]
#[doc(hidden)]
pub use serde;
