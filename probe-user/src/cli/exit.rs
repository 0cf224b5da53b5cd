//! How the program ends.

use std::{io::Write as _, process::ExitCode};

/// The exit status, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As expected.
    Success = 0,
    /// A conflict was found, or an overlap.
    Conflict = 1,
    /// It was called in a way that makes no sense. Most of that ends before a verb runs.
    Usage = 2,
    /// An expectation was not met.
    ExpectationFailed = 3,
    /// Could not do it, or not completely.
    Failed = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Says on standard error what went wrong, causes included.
pub fn print_error(error: &anyhow::Error) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr().lock(), "probe: {error:#}");
}
