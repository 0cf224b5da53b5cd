//! Every external program that this repository runs, and the Debian package that has it.
//!
//! Set-up installs from this table, `command` finds programs by it, and `cargo xtask test` compares it with the
//! executed programs (`executions`). Rust's own programs are not external: they are needed to build this one.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt,
    toolchain::{choice, linker},
    unpacked,
};

/// A program that is run by its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// The file name.
    pub name: &'static str,
    /// The Debian package.
    pub package: &'static str,
    /// How set-up provides the package.
    pub source: Source,
    /// The reasons for needing the program.
    pub uses: &'static [Use],
}

/// The way a package is provided on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Part of every Debian system: essential, or apt itself.
    Base,
    /// Installed by apt.
    Installed,
    /// Unpacked into the tool cache with the required libraries.
    Unpacked,
}

/// The purpose of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Bench,
    Build,
    Demo,
    FreshRoot,
    Guest,
    Image,
    Manifests,
    PythonTools,
    Test,
}

use Source::{Base, Installed, Unpacked};
use Use::{Bench, Build, Demo, FreshRoot, Guest, Image, Manifests, PythonTools, Test};

const fn program(
    name: &'static str,
    package: &'static str,
    source: Source,
    uses: &'static [Use],
) -> Program {
    Program {
        name,
        package,
        source,
        uses,
    }
}

/// The table.
#[rustfmt::skip]
pub const PROGRAMS: &[Program] = &[
    // Set-up and builds.
    program("apt-cache",          "apt",               Base,      &[Build]),
    program("apt-get",            "apt",               Base,      &[Build]),
    program("cc",                 "gcc",               Installed, &[Build]),
    program("dpkg",               "dpkg",              Base,      &[Build]),
    program("dpkg-query",         "dpkg",              Base,      &[Build]),
    program("dpkg-source",        "dpkg-dev",          Installed, &[Test]),
    program("git",                "git",               Installed, &[Build]),
    program("gzip",               "gzip",              Base,      &[Build]),
    program("ldd",                "libc-bin",          Base,      &[Guest]),
    program("python3",            "python3",           Installed, &[PythonTools]),
    program("sha256sum",          "coreutils",         Base,      &[Build]),
    program("tar",                "tar",               Base,      &[Build, Test]),
    program("xz",                 "xz-utils",          Installed, &[Guest]),
    program("zstd",               "zstd",              Installed, &[Guest]),
    // The network namespaces of the tests.
    program("arping",             "iputils-arping",    Installed, &[Demo, Test, Bench]),
    program("ip",                 "iproute2",          Installed, &[Demo, Test, Bench, Guest]),
    program("ping",               "iputils-ping",      Installed, &[Demo, Test, Bench]),
    program("tc",                 "iproute2",          Installed, &[Test, Guest]),
    program("tcpdump",            "tcpdump",           Installed, &[Demo, Test, Bench]),
    // Tests: programs for comparison, and programs of the scenarios.
    program("arp-scan",           "arp-scan",          Installed, &[Test, Bench]),
    program("bash",               "bash",              Base,      &[Test]),
    program("bpftool",            "bpftool",           Installed, &[Test]),
    program("busybox",            "busybox-static",    Installed, &[Test, Guest]),
    program("curl",               "curl",              Installed, &[Test]),
    program("dnsmasq",            "dnsmasq-base",      Installed, &[Test]),
    program("find",               "findutils",         Base,      &[Test]),
    program("install",            "coreutils",         Base,      &[Test]),
    program("mkfifo",             "coreutils",         Base,      &[Test]),
    program("keepalived",         "keepalived",        Installed, &[Test]),
    program("kill",               "procps",            Installed, &[Test]),
    program("mount",              "mount",             Installed, &[FreshRoot, Test]),
    program("runc",               "runc",              Installed, &[Test]),
    program("setpriv",            "util-linux",        Base,      &[Test]),
    program("sh",                 "dash",              Base,      &[Test]),
    program("sleep",              "coreutils",         Base,      &[Test]),
    program("strace",             "strace",            Installed, &[Test]),
    program("systemd-analyze",    "systemd",           Installed, &[Test]),
    program("true",               "coreutils",         Base,      &[Test]),
    program("tshark",             "tshark",            Installed, &[Test]),
    program("ucarp",              "ucarp",             Installed, &[Test]),
    program("umoci",              "umoci",             Installed, &[Test]),
    program("unshare",            "util-linux",        Base,      &[Test]),
    // Large, or sensitive to their version.
    program("kubectl",                  "kubectl",                 Unpacked, &[Manifests, Test]),
    program("prometheus",               "prometheus",              Unpacked, &[Test]),
    program("prometheus-alertmanager",  "prometheus-alertmanager", Unpacked, &[Test]),
    program("promtool",                 "prometheus",              Unpacked, &[Test]),
    program("qemu-system-x86_64",       "qemu-system-x86",         Unpacked, &[Guest]),
    // The container image, and benchmarks.
    program("buildah",            "buildah",           Installed, &[Image, Test]),
    program("arpalert",           "arpalert",          Installed, &[Bench]),
    program("arpwatch",           "arpwatch",          Installed, &[Bench]),
    program("iperf3",             "iperf3",            Installed, &[Bench]),
    // A minimal Debian system.
    program("debootstrap",        "debootstrap",       Unpacked,  &[FreshRoot]),
    program("pivot_root",         "util-linux",        Base,      &[FreshRoot]),
    program("rm",                 "coreutils",         Base,      &[FreshRoot]),
];

/// Packages that are needed for files other than programs, with their purposes.
pub const LIBRARIES: &[(&str, &[Use])] = &[
    // Certificates for the package registries.
    ("ca-certificates", &[Build]),
    // The static C library of the release binary.
    ("libc6-dev", &[Build]),
    // Debian's Python has the module for virtual environments in a package of its own.
    ("python3-venv", &[PythonTools]),
];

/// Debian's newest compiler, which builds the eBPF programs if rustup has no suitable one.
pub const COMPILER_PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "cargo-web", CLIPPY_PACKAGE];

/// The lints that come with that compiler.
pub const CLIPPY_PACKAGE: &str = "rust-web-clippy";

/// The directories in which distributions install programs.
const DISTRIBUTION: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// A command that runs a program of the table.
pub fn command(name: &str) -> Result<Command> {
    let program = entry(name)?;
    let path =
        path(program).with_context(|| format!("there is no {name}: run `cargo xtask setup`"))?;
    let mut command = Command::new(path);
    if let Some(root) = unpacked_root(program) {
        command.envs(root.environment()?);
    }
    Ok(command)
}

/// The file of a program of the table.
pub fn find(name: &str) -> Option<PathBuf> {
    path(entry(name).ok()?)
}

fn entry(name: &str) -> Result<&'static Program> {
    PROGRAMS
        .iter()
        .find(|program| program.name == name)
        .with_context(|| format!("{name} is not in the table of programs"))
}

fn path(program: &Program) -> Option<PathBuf> {
    unpacked_root(program)
        .and_then(|root| root.program(program.name))
        .or_else(|| installed(program.name))
}

/// An installed program; the distribution's comes first, because the table names the distribution's package.
fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    DISTRIBUTION
        .iter()
        .map(PathBuf::from)
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

fn unpacked_root(program: &Program) -> Option<&'static unpacked::Root> {
    (program.source == Source::Unpacked)
        .then(|| unpacked::root_of(program.package))
        .flatten()
}

/// Installs or unpacks the missing packages for these purposes; if that is not possible, the error contains the
/// next step.
pub fn ensure(uses: &[Use]) -> Result<()> {
    let needed = |its: &[Use]| its.iter().any(|its| uses.contains(its));
    let (names, packages) = missing(uses, |name| installed(name).is_some());
    let libraries = LIBRARIES
        .iter()
        .filter(|(_, uses)| needed(uses))
        .map(|&(package, _)| package)
        .filter(|package| apt::exists() && !apt::is_installed(package));
    let mut packages: Vec<String> = packages
        .into_iter()
        .chain(libraries)
        .map(str::to_owned)
        .collect();
    packages.sort();
    packages.dedup();
    if apt::exists() {
        if !packages.is_empty() {
            apt::install(&packages)?;
        }
    } else if !names.is_empty() {
        bail!(
            "these programs are missing: {}; install them with this system's package manager and try again",
            names.join(", ")
        );
    }
    for program in PROGRAMS.iter().filter(|program| needed(program.uses)) {
        if let Some(root) = unpacked_root(program)
            // On systems other than Debian, an installed one is used.
            && (apt::exists() || path(program).is_none())
        {
            root.ensure()?;
        }
    }
    Ok(())
}

/// Names and packages of missing programs.
fn missing(
    uses: &[Use],
    is_installed: impl Fn(&str) -> bool,
) -> (Vec<&'static str>, Vec<&'static str>) {
    PROGRAMS
        .iter()
        .filter(|program| program.source != Source::Unpacked)
        .filter(|program| program.uses.iter().any(|its| uses.contains(its)))
        .filter(|program| !is_installed(program.name))
        .map(|program| (program.name, program.package))
        .unzip()
}

/// The packages that set-up installs.
pub fn packages() -> Vec<String> {
    let programs = PROGRAMS
        .iter()
        .filter(|program| program.source != Source::Unpacked)
        .map(|program| program.package);
    programs
        .chain(LIBRARIES.iter().map(|&(package, _)| package))
        .chain(COMPILER_PACKAGES)
        .map(str::to_owned)
        .chain(linker::SUPPORTED_LLVM.map(choice::llvm_package))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::host;

    #[test]
    fn only_missing_packages_are_installed() {
        let (names, packages) = missing(&[Use::Demo], |name| name != "arping");
        assert_eq!(names, ["arping"]);
        assert_eq!(packages, ["iputils-arping"]);
        assert!(missing(&[Use::Test], |_| true).1.is_empty());
    }

    #[test]
    fn every_program_is_listed_once() {
        let names: BTreeSet<_> = PROGRAMS.iter().map(|program| program.name).collect();
        assert_eq!(names.len(), PROGRAMS.len());
    }

    #[test]
    fn an_unlisted_program_is_not_run() {
        let error = command("rsync").unwrap_err().to_string();
        assert!(error.contains("not in the table"), "{error}");
    }

    /// Program names in the sources of the tests and of this program: the first argument of a command.
    #[test]
    fn every_program_that_the_sources_name_is_in_the_table() {
        let mut unlisted = BTreeSet::new();
        for directory in ["xtask/src", "tests/src", "tests/tests", "tests/benches"] {
            for (file, text) in sources(&host::workspace().join(directory)) {
                for name in named_programs(&text) {
                    if entry(name).is_err() && !OTHERS.contains(&name) {
                        unlisted.insert(format!("{name} ({})", file.display()));
                    }
                }
            }
        }
        assert!(unlisted.is_empty(), "not in the table: {unlisted:#?}");
    }

    /// Rust's programs, which are needed to build this one, and the name of a program that does not exist.
    const OTHERS: [&str; 4] = ["cargo", "rustup", "rsync", "x"];

    #[test]
    fn a_program_is_named_by_the_first_word_of_a_command() {
        let text =
            "Command::new(\"a\").arg(\"b\"); host.spawn([\n    \"c\", \"d\"]); run([\"e/f\"])";
        assert_eq!(named_programs(text), ["a", "c"]);
    }

    fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
        found
    }

    fn named_programs(text: &str) -> Vec<&str> {
        ["Command::new(", "spawn([", "run(["]
            .iter()
            .flat_map(|start| text.split(start).skip(1))
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
            .filter(|name| !name.is_empty())
            .filter(|name| {
                name.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            })
            .collect()
    }
}
