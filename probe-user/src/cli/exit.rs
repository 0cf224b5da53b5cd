//! The exit status of the program.

use std::{io::Write as _, process::ExitCode};

/// The exit status, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As expected.
    Success = 0,
    /// A conflict was found, or an overlap.
    Conflict = 1,
    /// A usage error. Most usage errors are reported before a command runs.
    Usage = 2,
    /// An expectation was not met.
    ExpectationFailed = 3,
    /// The command failed, or is incomplete.
    Failed = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Prints an error with its causes on standard error.
pub fn print_error(error: &anyhow::Error) {
    // Errors are ignored: standard error may be closed.
    let _ = writeln!(std::io::stderr().lock(), "probe: {error:#}");
}
