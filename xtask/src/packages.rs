//! The programs that tests and demo run, and where they come from.

use anyhow::{Result, bail};

use crate::{apt, host};

/// Command, Debian package.
type Program = (&'static str, &'static str);

/// What the lab is made with.
const LAB: [Program; 4] = [
    ("arping", "iputils-arping"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
];

/// What takes part in the scenarios of the tests.
const ACTORS: [Program; 4] = [
    ("busybox", "busybox"),
    ("dnsmasq", "dnsmasq-base"),
    ("keepalived", "keepalived"),
    ("ucarp", "ucarp"),
];

/// Installs what the demo misses; where that is not possible, the error says what to do.
pub fn ensure_for_demo() -> Result<()> {
    ensure("the demo", &LAB)
}

/// Installs what the tests miss; where that is not possible, the error says what to do.
pub fn ensure_for_tests() -> Result<()> {
    ensure("the tests", &[LAB, ACTORS].concat())
}

fn ensure(who: &str, programs: &[Program]) -> Result<()> {
    let (commands, packages) = missing(programs, |command| host::program(command).is_some());
    if packages.is_empty() {
        Ok(())
    } else if apt::exists() {
        apt::install(&packages)
    } else {
        bail!(
            "{who} cannot do without {}: install them with this system's package manager and try again",
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
        let (commands, packages) = missing(&LAB, |command| command != "arping");
        assert_eq!(commands, ["arping"]);
        assert_eq!(packages, ["iputils-arping"]);
    }

    #[test]
    fn nothing_is_installed_twice() {
        assert!(missing(&LAB, |_| true).1.is_empty());
    }
}
