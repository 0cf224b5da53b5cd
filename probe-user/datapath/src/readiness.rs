//! Registers file descriptors with the async runtime.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor to wait until it is readable.
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has one descriptor, which is open as long as it lives.
    unsafe { readable_owner(descriptor) }
}

/// Registers the descriptor of `owner` to wait until it is readable.
///
/// # Safety
///
/// Both traits return the same descriptor as long as `owner` lives. (`AsFd` guarantees that it is open.)
pub(crate) unsafe fn readable_owner<T: AsFd + AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the owner lives inside the `AsyncFd`, and the caller guarantees the rest.
    unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) }.map_err(Into::into)
}
