//! The required packages of this project: each is a direct dependency of a crate that is shipped, and that crate's
//! source uses it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::host;

/// The packages, as Cargo names them.
const REQUIRED: [&str; 8] = [
    "anyhow",
    "aya",
    "aya-log",
    "bytes",
    "clap",
    "network-types",
    "prometheus",
    "tokio",
];

/// Workspace members that are not shipped: their dependencies do not count.
const NOT_SHIPPED: [&str; 2] = ["probe-tests", "xtask"];

/// The relevant fields of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for an ordinary dependency, else `dev` or `build`.
    kind: Option<String>,
}

/// Checks all required packages.
///
/// # Errors
///
/// Names the packages that no shipped crate uses.
pub fn check() -> Result<()> {
    let output = host::cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(host::workspace())
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let unused = unused(&metadata.packages)?;
    ensure!(
        unused.is_empty(),
        "no shipped crate depends on these packages and uses them: {}",
        unused.join(", ")
    );
    Ok(())
}

/// The required packages that no shipped crate depends on and uses.
fn unused(packages: &[Package]) -> Result<Vec<&'static str>> {
    let mut unused = REQUIRED.to_vec();
    for package in packages {
        if NOT_SHIPPED.contains(&package.name.as_str()) {
            continue;
        }
        let source = package
            .manifest_path
            .parent()
            .context("a manifest without a directory")?
            .join("src");
        let depends_on = |name: &str| {
            let mut dependencies = package.dependencies.iter();
            dependencies.any(|dependency| dependency.name == name && dependency.kind.is_none())
        };
        let mut remaining = Vec::new();
        for name in unused {
            if !depends_on(name) || !directory_uses(&source, name)? {
                remaining.push(name);
            }
        }
        unused = remaining;
    }
    Ok(unused)
}

/// Whether a source file below this directory, other than its tests, uses the package.
fn directory_uses(directory: &Path, package: &str) -> Result<bool> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_test = stem == "tests" || stem.ends_with("_tests");
        let uses = if is_test {
            false
        } else if path.is_dir() {
            directory_uses(&path, package)?
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            source_uses(&source, package)
        } else {
            false
        };
        if uses {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether Rust source, without its comments and its module of tests, has a path that begins with the package.
fn source_uses(source: &str, package: &str) -> bool {
    let identifier = package.replace('-', "_");
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    source
        .lines()
        .take_while(|line| *line != "mod tests {")
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .any(|code| {
            code.match_indices(&identifier).any(|(start, _)| {
                let (before, after) = (&code[..start], &code[start + identifier.len()..]);
                // Neither the end of a longer name nor an item of another path.
                let begins_a_path = !before.ends_with(is_name) && !before.ends_with("::");
                begins_a_path && after.starts_with("::")
            })
        })
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn this_workspace_uses_every_required_package() {
        check().unwrap();
    }

    #[test]
    fn only_a_path_in_code_is_a_use() {
        for source in [
            "use bytes::Bytes;",
            "let body: bytes::Bytes = body;",
            "    Encode(#[from] bytes::Error),",
        ] {
            assert!(source_uses(source, "bytes"), "{source}");
        }
        for source in [
            "",
            "// use bytes::Bytes;",
            "/// See [`bytes::Bytes`].",
            "let bytes = frame.bytes();",
            "use crate::bytes::encode;",
            "raw_bytes::encode();",
            "#[cfg(test)]\nmod tests {\n    use bytes::Bytes;\n}",
        ] {
            assert!(!source_uses(source, "bytes"), "{source}");
        }
        assert!(source_uses(
            "use network_types::arp::ArpHdr;",
            "network-types"
        ));
    }

    /// A crate directory, removed on drop.
    struct Crate(PathBuf);

    impl Crate {
        fn new(name: &str, source: &str) -> Self {
            let directory =
                env::temp_dir().join(format!("required-packages.{}.{name}", process::id()));
            fs::create_dir_all(directory.join("src")).unwrap();
            fs::write(directory.join("src/lib.rs"), source).unwrap();
            Self(directory)
        }

        fn package(&self, name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
            let dependency = |&(name, kind): &(&str, Option<&str>)| Dependency {
                name: name.to_owned(),
                kind: kind.map(str::to_owned),
            };
            Package {
                name: name.to_owned(),
                manifest_path: self.0.join("Cargo.toml"),
                dependencies: dependencies.iter().map(dependency).collect(),
            }
        }
    }

    impl Drop for Crate {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_package_needs_a_shipped_crate_that_depends_on_it_and_uses_it() {
        let with_use = Crate::new("with-use", "use tokio::net;\n");
        let without_use = Crate::new("without-use", "// tokio::net\n");
        let missing = |package: Package| unused(&[package]).unwrap().contains(&"tokio");
        let dependency = [("tokio", None)];
        assert!(!missing(with_use.package("probe-user", &dependency)));
        assert!(missing(without_use.package("probe-user", &dependency)));
        assert!(missing(with_use.package("probe-user", &[])));
        assert!(missing(
            with_use.package("probe-user", &[("tokio", Some("dev"))])
        ));
        assert!(missing(with_use.package("xtask", &dependency)));
    }
}
