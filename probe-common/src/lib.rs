//! What the kernel and user space have in common: the wire format of ARP, its parser, the economy
//! that decides which frames become events, the event itself, and the names of every counter.
//!
//! Everything here is pure, `no_std` and free of `unsafe`, so the code that the verifier judges is the
//! code that the unit tests, the fuzzer and `probe watch --read` run.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod counter;
pub mod economy;
pub mod event;
#[cfg(feature = "serde")]
#[doc(hidden)]
pub mod from_text;
mod label;
pub mod parse;
pub mod wire;

#[cfg(feature = "serde")]
#[doc(hidden)]
pub use serde;
