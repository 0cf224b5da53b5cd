//! The programs that tests, demo and benchmarks run, and where they come from.

use anyhow::{Result, bail};

use crate::{apt, host, monitoring};

/// Command, Debian package.
type Program = (&'static str, &'static str);

/// What the lab is made with.
const LAB: [Program; 4] = [
    ("arping", "iputils-arping"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
];

/// What only the tests run: tools to compare with, and who takes part in the scenarios.
const TESTS: [Program; 13] = [
    ("arp-scan", "arp-scan"),
    ("bpftool", "bpftool"),
    ("busybox", "busybox-static"),
    ("dnsmasq", "dnsmasq-base"),
    ("keepalived", "keepalived"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("runc", "runc"),
    ("strace", "strace"),
    ("systemd-analyze", "systemd"),
    ("tshark", "tshark"),
    ("ucarp", "ucarp"),
    ("umoci", "umoci"),
];

/// What the container image is built with.
const IMAGE: [Program; 1] = [("buildah", "buildah")];

/// What a source package is unpacked and built with; `dpkg-dev` brings patch and make.
const SOURCE: [Program; 2] = [("dpkg-source", "dpkg-dev"), ("make", "make")];

/// What guests with other kernels are made of. Large, so it is installed only for them.
const GUEST_PROGRAMS: [Program; 3] = [
    ("busybox", "busybox-static"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("xz", "xz-utils"),
];

/// What only the benchmarks run.
const BENCH_PROGRAMS: [Program; 4] = [
    ("arp-scan", "arp-scan"),
    ("arpalert", "arpalert"),
    ("arpwatch", "arpwatch"),
    ("iperf3", "iperf3"),
];

/// Installs what the demo misses; where that is not possible, the error says what to do.
pub fn ensure_for_demo() -> Result<()> {
    ensure("the demo", &LAB)
}

/// Installs what the tests miss; where that is not possible, the error says what to do.
pub fn ensure_for_tests() -> Result<()> {
    ensure("the tests", &[&LAB[..], &TESTS, &IMAGE].concat())?;
    monitoring::ensure()
}

/// The same for the benchmarks.
pub fn ensure_for_bench() -> Result<()> {
    ensure("the benchmarks", &[&LAB[..], &BENCH_PROGRAMS].concat())
}

/// The same for the container image.
pub fn ensure_for_image() -> Result<()> {
    ensure("the container image", &IMAGE)
}

/// The same for building what Debian has the source of.
pub fn ensure_for_sources() -> Result<()> {
    ensure("building the API server", &SOURCE)
}

/// The same for guests.
pub fn ensure_for_guests() -> Result<()> {
    ensure("guests", &GUEST_PROGRAMS)
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
