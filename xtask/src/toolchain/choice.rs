//! Chooses a compiler, or the packages to install if none is suitable. Pure: the machine is a parameter.

use std::fmt::{self, Display, Formatter};

use super::{candidate::Candidate, linker, version};
use crate::programs::COMPILER_PACKAGES;

/// The LLVM version of that compiler today. If it changes, setup installs the right one next.
const DISTRIBUTION_LLVM: u32 = 22;

/// The reason for which a compiler is not suitable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionReason {
    TooOld,
    NoCargo,
    NoSources,
    UnsupportedLlvm,
    /// The linker cannot be built without this LLVM's shared library.
    NoLlvm,
}

impl Display for RejectionReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOld => write!(f, "older than {}", env!("CARGO_PKG_RUST_VERSION")),
            Self::NoCargo => write!(f, "has no cargo beside it"),
            Self::NoSources => write!(f, "has no library sources (rust-src)"),
            Self::UnsupportedLlvm => {
                write!(f, "bpf-linker supports LLVM {:?}", linker::SUPPORTED_LLVM)
            }
            Self::NoLlvm => write!(f, "the libLLVM.so of that LLVM is not installed"),
        }
    }
}

/// Rejected candidates with their reasons.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected(pub Vec<(Candidate, RejectionReason)>);

impl Display for Rejected {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "    no Rust compiler but the pinned one");
        }
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(candidate, why)| format!("    {candidate}: {why}"))
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Returns the first suitable candidate. `has_linker` returns whether a linker for an LLVM major version exists or
/// can be built.
pub fn choose(
    candidates: Vec<Candidate>,
    has_linker: impl Fn(u32) -> bool,
) -> Result<Candidate, Rejected> {
    let mut rejected = Vec::new();
    for candidate in candidates {
        match rejection(&candidate, &has_linker) {
            None => return Ok(candidate),
            Some(why) => rejected.push((candidate, why)),
        }
    }
    Err(Rejected(rejected))
}

fn rejection(candidate: &Candidate, has_linker: impl Fn(u32) -> bool) -> Option<RejectionReason> {
    let llvm = candidate.version.llvm;
    if !candidate.version.is_new_enough() {
        Some(RejectionReason::TooOld)
    } else if !candidate.has_cargo {
        Some(RejectionReason::NoCargo)
    } else if !candidate.has_sources {
        Some(RejectionReason::NoSources)
    } else if has_linker(llvm) {
        None
    } else if linker::SUPPORTED_LLVM.contains(&llvm) {
        Some(RejectionReason::NoLlvm)
    } else {
        Some(RejectionReason::UnsupportedLlvm)
    }
}

/// The Debian packages to install: the LLVM of a candidate that lacks only that, or, unless the compiler is
/// overridden, another compiler with everything. `available` returns a package's version, if there is one.
pub fn remedy(
    rejected: &Rejected,
    compiler_is_given: bool,
    available: impl Fn(&str) -> Option<String>,
) -> Option<Vec<String>> {
    let missing_llvm = rejected
        .0
        .iter()
        .filter(|(_, why)| *why == RejectionReason::NoLlvm)
        .map(|(candidate, _)| llvm_package(candidate.version.llvm))
        .find(|package| available(package).is_some());
    if let Some(package) = missing_llvm {
        return Some(vec![package]);
    }
    let is_new_enough =
        || available(COMPILER_PACKAGES[0]).is_some_and(|version| version::is_new_enough(&version));
    (!compiler_is_given && is_new_enough()).then(distribution_packages)
}

/// The packages of Debian's own compiler with everything that the kernel side needs.
pub fn distribution_packages() -> Vec<String> {
    COMPILER_PACKAGES
        .map(str::to_owned)
        .into_iter()
        .chain([llvm_package(DISTRIBUTION_LLVM)])
        .collect()
}

/// The package of an LLVM with its shared library.
pub fn llvm_package(major: u32) -> String {
    format!("llvm-{major}-dev")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::version::Version;

    fn compiler(name: &str, release: &str, llvm: u32) -> Candidate {
        Candidate {
            rustc: name.into(),
            cargo: "cargo".into(),
            version: Version {
                release: release.to_owned(),
                llvm,
            },
            has_cargo: true,
            has_sources: true,
        }
    }

    fn nightly() -> Candidate {
        compiler("nightly", "1.99.0-nightly", 23)
    }

    fn distribution() -> Candidate {
        compiler("distribution", "1.96.0", 22)
    }

    fn reasons(rejected: &Rejected) -> Vec<RejectionReason> {
        rejected.0.iter().map(|(_, why)| *why).collect()
    }

    /// Packages of Debian 12 with its security updates.
    fn bookworm(package: &str) -> Option<String> {
        match package {
            "rustc-web" => Some("1.96.0+dfsg1-1~deb12u2".to_owned()),
            "llvm-22-dev" => Some("1:22.1.8-1~deb12u1".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn the_first_suitable_compiler_is_chosen() {
        let chosen = choose(vec![nightly(), distribution()], |_| true);
        assert_eq!(chosen, Ok(nightly()));
    }

    #[test]
    fn a_compiler_without_installed_llvm_is_skipped() {
        let chosen = choose(vec![nightly(), distribution()], |llvm| llvm == 22);
        assert_eq!(chosen, Ok(distribution()));
    }

    #[test]
    fn every_reason_is_given() {
        let candidates = vec![
            compiler("old", "1.85.0", 19),
            Candidate {
                has_cargo: false,
                ..nightly()
            },
            Candidate {
                has_sources: false,
                ..nightly()
            },
            compiler("future", "1.120.0", 26),
            nightly(),
        ];
        let rejected = choose(candidates, |_| false).unwrap_err();
        assert_eq!(
            reasons(&rejected),
            [
                RejectionReason::TooOld,
                RejectionReason::NoCargo,
                RejectionReason::NoSources,
                RejectionReason::UnsupportedLlvm,
                RejectionReason::NoLlvm
            ]
        );
    }

    #[test]
    fn an_existing_linker_needs_no_llvm() {
        let chosen = choose(vec![compiler("future", "1.120.0", 26)], |_| true);
        assert!(chosen.is_ok());
    }

    #[test]
    fn a_minimal_debian_gets_the_compiler_with_all_packages() {
        let packages = remedy(&Rejected(Vec::new()), false, bookworm).unwrap();
        assert_eq!(
            packages.join(" "),
            "rustc-web rust-web-src cargo-web rust-web-clippy llvm-22-dev"
        );
    }

    #[test]
    fn a_compiler_without_llvm_gets_only_llvm() {
        let rejected = Rejected(vec![(distribution(), RejectionReason::NoLlvm)]);
        assert_eq!(remedy(&rejected, false, bookworm).unwrap(), ["llvm-22-dev"]);
    }

    #[test]
    fn an_llvm_that_debian_lacks_is_no_remedy() {
        let rejected = Rejected(vec![(nightly(), RejectionReason::NoLlvm)]);
        assert_eq!(
            remedy(&rejected, false, bookworm),
            Some(distribution_packages())
        );
    }

    #[test]
    fn no_other_compiler_is_installed_when_one_is_given() {
        let without_sources = Rejected(vec![(nightly(), RejectionReason::NoSources)]);
        assert_eq!(remedy(&without_sources, true, bookworm), None);
        let without_llvm = Rejected(vec![(distribution(), RejectionReason::NoLlvm)]);
        assert!(remedy(&without_llvm, true, bookworm).is_some());
    }

    #[test]
    fn a_debian_whose_compiler_is_too_old_has_no_remedy() {
        let old = |package: &str| (package == "rustc-web").then(|| "1.85.0+dfsg3-1".to_owned());
        assert_eq!(remedy(&Rejected(Vec::new()), false, old), None);
    }

    #[test]
    fn a_rejection_names_compiler_and_reason() {
        let rejected = Rejected(vec![(distribution(), RejectionReason::NoSources)]);
        assert_eq!(
            rejected.to_string(),
            "    distribution (1.96.0, LLVM 22): has no library sources (rust-src)"
        );
    }
}
