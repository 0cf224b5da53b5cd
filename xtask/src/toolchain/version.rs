//! The version of a compiler.

use std::str::FromStr;

use anyhow::{Context as _, Error};

/// The relevant fields of `rustc -vV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The release, such as `1.96.0` or `1.97.0-nightly`.
    pub release: String,
    /// The major version of its LLVM.
    pub llvm: u32,
}

impl Version {
    /// Whether this workspace supports this compiler.
    pub fn is_new_enough(&self) -> bool {
        is_new_enough(&self.release)
    }
}

/// Whether this workspace supports a version of rustc or of its package.
pub fn is_new_enough(version: &str) -> bool {
    major_minor(version) >= major_minor(env!("CARGO_PKG_RUST_VERSION"))
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(verbose: &str) -> Result<Self, Error> {
        let value = |key: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .with_context(|| format!("`rustc -vV` names no {key}"))
        };
        let llvm = value("LLVM version")?;
        Ok(Self {
            release: value("release")?.to_owned(),
            llvm: llvm
                .split('.')
                .next()
                .and_then(|major| major.parse().ok())
                .with_context(|| format!("`{llvm}` is no LLVM version"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "\
rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)
binary: rustc
commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96
commit-date: 2026-05-25
host: x86_64-unknown-linux-gnu
release: 1.96.0
LLVM version: 22.1.8
";

    #[test]
    fn release_and_llvm_are_read() {
        let version: Version = DEBIAN.parse().unwrap();
        assert_eq!(version.release, "1.96.0");
        assert_eq!(version.llvm, 22);
    }

    #[test]
    fn a_compiler_without_llvm_is_refused() {
        let cranelift = DEBIAN.replace("LLVM version: 22.1.8\n", "");
        let error = cranelift.parse::<Version>().unwrap_err();
        assert_eq!(error.to_string(), "`rustc -vV` names no LLVM version");
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(is_new_enough("1.96.0+dfsg1-1~deb12u2"));
        assert!(is_new_enough("1.97.0-nightly"));
        assert!(is_new_enough("1.100.0"));
        assert!(is_new_enough("2.0.0"));
        assert!(!is_new_enough("1.85.0+dfsg3-1~deb12u3"));
        assert!(!is_new_enough("unknown"));
    }
}
