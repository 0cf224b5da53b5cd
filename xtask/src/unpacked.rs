//! Debian packages that are unpacked into the tool cache without being installed.
//!
//! For programs that are large or that the tests need in one version: they come from one Debian release on every
//! machine, conflict with no installed package, and start no services.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result, ensure};
use probe_tests::PROMETHEUS;

use crate::{
    apt,
    archive::{Archive, RELEASE, Site, Suite},
    cache, host,
    step::slow_step,
};

/// Packages that are unpacked into one directory.
pub struct Root {
    /// The directory in the tool cache.
    directory: &'static str,
    /// The packages with the programs.
    packages: &'static [&'static str],
    suites: &'static [Suite],
    /// Whether the programs need more than the C library.
    has_dependencies: bool,
}

/// All directories. Every unpacked package of the table of programs is in one.
const ROOTS: &[Root] = &[
    Root {
        directory: PROMETHEUS,
        packages: &["prometheus", "prometheus-alertmanager"],
        suites: &RELEASE,
        has_dependencies: false,
    },
    Root {
        directory: "qemu",
        packages: &["qemu-system-x86"],
        suites: &RELEASE,
        has_dependencies: true,
    },
    Root {
        directory: "kubectl",
        packages: &["kubectl"],
        // The first release whose kubectl supports kustomize components.
        suites: &[(Site::Main, "trixie")],
        has_dependencies: false,
    },
    Root {
        directory: "debootstrap",
        packages: &["debootstrap"],
        suites: &RELEASE,
        has_dependencies: true,
    },
];

/// The directory that a package is unpacked into.
pub fn root_of(package: &str) -> Option<&'static Root> {
    ROOTS.iter().find(|root| root.packages.contains(&package))
}

impl Root {
    /// The path of the directory, whether or not it exists.
    pub fn path(&self) -> Result<PathBuf> {
        Ok(cache::directory()?.join(self.directory))
    }

    /// The file of a program in the directory.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let root = self.path().ok()?;
        ["usr/bin", "usr/sbin", "bin", "sbin"]
            .iter()
            .map(|directory| root.join(directory).join(name))
            .find(|file| file.is_file())
    }

    /// The environment variables with which the programs find their libraries and each other.
    pub fn environment(&self) -> Result<Vec<(&'static str, OsString)>> {
        if !self.has_dependencies {
            return Ok(Vec::new());
        }
        let root = self.path()?;
        let libraries = library_directories(&root);
        let path = env::var_os("PATH").unwrap_or_default();
        let programs = ["usr/sbin", "usr/bin"].map(|directory| root.join(directory));
        Ok(vec![
            ("LD_LIBRARY_PATH", env::join_paths(libraries)?),
            (
                "PATH",
                env::join_paths(env::split_paths(&path).chain(programs))?,
            ),
        ])
    }

    /// Downloads and unpacks the packages, unless they exist.
    pub fn ensure(&self) -> Result<()> {
        let directory = self.path()?;
        if directory.join("usr").is_dir() {
            return Ok(());
        }
        ensure!(
            apt::exists(),
            "{} cannot be unpacked without apt: install it with this system's package manager",
            self.packages.join(", ")
        );
        slow_step(&format!("unpack {}", self.packages.join(" ")), || {
            // Complete or absent, also after an interruption.
            let unfinished = directory.with_extension(process::id().to_string());
            let [packages, lists] = ["packages", "apt"].map(|part| unfinished.join(part));
            fs::create_dir_all(&packages)
                .with_context(|| format!("cannot make {}", packages.display()))?;
            let archive = Archive::open(lists.clone(), self.suites)?;
            let names: Vec<_> = self.packages.iter().map(ToString::to_string).collect();
            if self.has_dependencies {
                archive.download_with_dependencies(&names, &packages)?;
            } else {
                archive.download(&names, &packages)?;
            }
            apt::unpack(&packages, &unfinished)?;
            for directory in [packages, lists] {
                fs::remove_dir_all(&directory)
                    .with_context(|| format!("cannot remove {}", directory.display()))?;
            }
            host::replace_directory(&unfinished, &directory)
        })
    }
}

/// Every directory below `usr/lib` and `lib` that contains shared libraries of this architecture in Debian.
fn library_directories(root: &Path) -> Vec<PathBuf> {
    let triplet = format!("{}-linux-gnu", env::consts::ARCH);
    ["usr/lib", "lib"]
        .iter()
        .flat_map(|directory| [root.join(directory).join(&triplet), root.join(directory)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::{PROGRAMS, Source};

    #[test]
    fn every_unpacked_program_has_a_root_and_every_root_a_program() {
        let mut packages: Vec<_> = PROGRAMS
            .iter()
            .filter(|program| program.source == Source::Unpacked)
            .map(|program| program.package)
            .collect();
        packages.sort_unstable();
        packages.dedup();
        let mut unpacked: Vec<_> = ROOTS.iter().flat_map(|root| root.packages).collect();
        unpacked.sort_unstable();
        assert_eq!(packages.iter().collect::<Vec<_>>(), unpacked);
    }

    #[test]
    fn libraries_are_found_in_either_directory() {
        let directories = library_directories(Path::new("/r"));
        let triplet = format!("{}-linux-gnu", env::consts::ARCH);
        assert!(directories.contains(&PathBuf::from(format!("/r/usr/lib/{triplet}"))));
        assert!(directories.contains(&PathBuf::from(format!("/r/lib/{triplet}"))));
    }
}
