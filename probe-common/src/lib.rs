//! What the kernel side and user space share: the wire format of ARP, its parser, the event filter that decides which
//! frames become events, the event itself, and the name of every counter.
//!
//! Pure and `no_std`; must not depend on any other crate of this workspace. The code that the verifier checks is the code
//! that the unit tests, the fuzzer and `probe watch --read` run. Only [`header`] contains `unsafe` code.
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
