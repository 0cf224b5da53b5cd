//! The programs that tests, demo and benchmarks run, and where they come from.

use anyhow::{Result, bail};

use crate::{apt, host};

/// Command, Debian package.
type Program = (&'static str, &'static str);

/// What tests and demo run.
const PROGRAMS: [Program; 4] = [
    ("arping", "iputils-arping"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
];

/// What only the benchmarks run.
const BENCH_PROGRAMS: [Program; 3] = [
    ("arpalert", "arpalert"),
    ("arpwatch", "arpwatch"),
    ("iperf3", "iperf3"),
];

/// Installs what the tests need; where that is not possible, the error says what to do.
pub fn ensure() -> Result<()> {
    ensure_all(&PROGRAMS)
}

/// The same for the benchmarks.
pub fn ensure_for_bench() -> Result<()> {
    ensure()?;
    ensure_all(&BENCH_PROGRAMS)
}

fn ensure_all(programs: &[Program]) -> Result<()> {
    let (commands, packages) = missing(programs, |command| host::program(command).is_some());
    if packages.is_empty() {
        Ok(())
    } else if apt::exists() {
        apt::install(&packages)
    } else {
        bail!(
            "{} must be installed: use this system's package manager and try again",
            commands.join(", ")
        )
    }
}

fn missing(
    programs: &[Program],
    is_there: impl Fn(&str) -> bool,
) -> (Vec<&'static str>, Vec<String>) {
    programs
        .iter()
        .filter(|(command, _)| !is_there(command))
        .map(|&(command, package)| (command, package.to_owned()))
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        let (commands, packages) = missing(&PROGRAMS, |command| command != "arping");
        assert_eq!(commands, ["arping"]);
        assert_eq!(packages, ["iputils-arping"]);
    }

    #[test]
    fn nothing_is_installed_twice() {
        assert!(missing(&PROGRAMS, |_| true).1.is_empty());
    }
}
