//! The programs that tests and demo run, and where they come from.

use anyhow::{Result, bail};

use crate::{apt, host};

/// Command, Debian package.
type Program = (&'static str, &'static str);

/// What the tests and the demo run.
const PROGRAMS: [Program; 6] = [
    ("arping", "iputils-arping"),
    ("bpftool", "bpftool"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
];

/// What guests with other kernels are made of. Large, so it is installed only for them.
const GUEST_PROGRAMS: [Program; 3] = [
    ("busybox", "busybox-static"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("xz", "xz-utils"),
];

/// Installs what the tests and the demo lack; where that is not possible, the error says what to do.
pub fn ensure() -> Result<()> {
    install(&PROGRAMS)
}

/// The same for guests.
pub fn ensure_for_guests() -> Result<()> {
    install(&GUEST_PROGRAMS)
}

fn install(programs: &[Program]) -> Result<()> {
    let (commands, packages) = missing(programs, |command| host::program(command).is_some());
    if packages.is_empty() {
        Ok(())
    } else if apt::exists() {
        apt::install(&packages)
    } else {
        bail!(
            "the tests need {}: install them with this system's package manager and try again",
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
