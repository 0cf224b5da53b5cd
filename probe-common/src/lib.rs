//! What the kernel and user space have in common: the wire format of ARP, its parser, the economy
//! that decides which frames become events, the event itself, and the names of every counter.
//!
//! Everything here is pure and `no_std`, so the code that the verifier checks is the code that the unit
//! tests, the fuzzer and `probe watch --read` run. Only [`header`] contains `unsafe` code.
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
