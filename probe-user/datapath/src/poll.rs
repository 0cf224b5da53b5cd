//! The one place where a descriptor is given to the runtime.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers something that owns a descriptor, to wait until it is readable. Only for types that keep
/// one descriptor for as long as they live, which those used here (rings, logs, timers) do.
pub fn readable<T: AsFd + AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `AsFd` promises a descriptor that is open while the owner lives, the owner lives inside the
    // `AsyncFd`, and by the condition above it never changes to another one.
    unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) }.map_err(Into::into)
}
