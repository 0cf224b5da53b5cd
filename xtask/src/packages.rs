//! The programs that tests and demo run, and where they come from.

use anyhow::{Result, bail};

use crate::{apt, host};

/// Command, Debian package.
const PROGRAMS: [(&str, &str); 5] = [
    ("arping", "iputils-arping"),
    ("bpftool", "bpftool"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
];

/// Installs what is missing; where that is not possible, the error says what to do.
pub fn ensure() -> Result<()> {
    let (commands, packages) = missing(|command| host::program(command).is_some());
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

fn missing(is_there: impl Fn(&str) -> bool) -> (Vec<&'static str>, Vec<String>) {
    PROGRAMS
        .into_iter()
        .filter(|(command, _)| !is_there(command))
        .map(|(command, package)| (command, package.to_owned()))
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        let (commands, packages) = missing(|command| command != "arping");
        assert_eq!(commands, ["arping"]);
        assert_eq!(packages, ["iputils-arping"]);
    }

    #[test]
    fn nothing_is_installed_twice() {
        assert!(missing(|_| true).1.is_empty());
    }
}
