//! Installed packages and their files, as dpkg lists them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result};

use crate::{host, programs};

/// The format of a package: name, essential flag, dependencies, provided names.
const FORMAT: &str = "${Package}\t${Essential}\t${Pre-Depends}, ${Depends}\t${Provides}\n";

/// The directories that were merged into `/usr`. Packages still list their files in the old ones.
const MERGED: [&str; 4] = ["/bin", "/lib", "/lib64", "/sbin"];

/// Installed packages, and the owners of some files.
#[derive(Debug, Default)]
pub struct Database {
    essential: BTreeSet<String>,
    /// The alternatives of all dependencies of a package.
    dependencies: BTreeMap<String, BTreeSet<String>>,
    /// The packages that provide a name, including the package itself.
    providers: BTreeMap<String, BTreeSet<String>>,
    owners: BTreeMap<PathBuf, String>,
}

impl Database {
    /// Reads the packages, and the owners of these files.
    pub fn read(files: &BTreeSet<PathBuf>) -> Result<Self> {
        let packages = host::output_of(
            programs::command("dpkg-query")?.args(["--show", &format!("--showformat={FORMAT}")]),
        )
        .context("dpkg-query does not list packages")?;
        let output = programs::command("dpkg-query")?
            .arg("--search")
            .args(files.iter().flat_map(|file| spellings(file)))
            .env("LC_ALL", "C")
            // dpkg fails if one of the files has no owner, and still prints the others.
            .stderr(Stdio::null())
            .output()
            .context("cannot run dpkg-query")?;
        Ok(Self::parse(
            &packages,
            &String::from_utf8_lossy(&output.stdout),
        ))
    }

    /// Reads the output of both queries.
    pub fn parse(packages: &str, owners: &str) -> Self {
        let mut database = Self::default();
        for line in packages.lines() {
            let mut fields = line.split('\t');
            let (Some(name), Some(essential)) = (fields.next(), fields.next()) else {
                continue;
            };
            let depends = fields.next().map(names).unwrap_or_default();
            let provides = fields.next().map(names).unwrap_or_default();
            if essential == "yes" {
                database.essential.insert(name.to_owned());
            }
            for provided in provides.into_iter().chain([name.to_owned()]) {
                let providers = database.providers.entry(provided).or_default();
                providers.insert(name.to_owned());
            }
            // A package may be installed for several architectures.
            let known = database.dependencies.entry(name.to_owned());
            known.or_default().extend(depends);
        }
        for line in owners.lines() {
            // `name, other:amd64: /path`; diversions name no package.
            if let Some((packages, path)) = line.split_once(": ")
                && !packages.starts_with("diversion ")
            {
                let package = packages.split([',', ':']).next().unwrap_or(packages);
                database.owners.insert(path.into(), package.to_owned());
            }
        }
        database
    }

    /// The package that owns a file.
    pub fn owner(&self, file: &Path) -> Option<&str> {
        spellings(file)
            .iter()
            .find_map(|file| self.owners.get(file))
            .map(String::as_str)
    }

    /// These packages and the essential ones, with all installed dependencies.
    pub fn with_dependencies(&self, packages: &[String]) -> BTreeSet<&str> {
        let mut names: Vec<&str> = packages
            .iter()
            .flat_map(|name| self.providers_of(name))
            .collect();
        names.extend(self.essential.iter().map(String::as_str));
        let mut all = BTreeSet::new();
        while let Some(name) = names.pop() {
            if all.insert(name)
                && let Some(dependencies) = self.dependencies.get(name)
            {
                names.extend(dependencies.iter().flat_map(|name| self.providers_of(name)));
            }
        }
        all
    }

    fn providers_of(&self, name: &str) -> impl Iterator<Item = &str> {
        let providers = self.providers.get(name).into_iter().flatten();
        providers.map(String::as_str)
    }
}

/// The names in a field of relations: `a (>= 1) | b, c:any`.
fn names(relations: &str) -> Vec<String> {
    relations
        .split([',', '|'])
        .filter_map(|relation| relation.trim().split([' ', ':', '(']).next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The paths under which packages may list a file.
fn spellings(file: &Path) -> Vec<PathBuf> {
    let mut spellings = vec![file.to_owned()];
    if let Ok(below) = file.strip_prefix("/usr") {
        let old = Path::new("/").join(below);
        if MERGED.iter().any(|directory| old.starts_with(directory)) {
            spellings.push(old);
        }
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &str = "\
base-files\tyes\tawk, \t
mawk\tno\t, libc6 (>= 2.34)\tawk
gcc\tno\t, gcc-12 (>= 12.2), cpp (= 4:12)\tc-compiler
gcc-12\tno\t, binutils (>= 2.40) | other\t
binutils\tno\t, \t
libc6\tno\t, \tlibc6-2.36
rsync\tno\t, \t
";

    #[test]
    fn dependencies_of_packages_are_installed() {
        let database = Database::parse(PACKAGES, "");
        let all = database.with_dependencies(&["gcc".to_owned()]);
        for package in ["gcc", "gcc-12", "binutils"] {
            assert!(all.contains(package), "{package}: {all:?}");
        }
        assert!(!all.contains("rsync"), "{all:?}");
    }

    #[test]
    fn dependencies_of_essential_packages_are_always_installed() {
        let database = Database::parse(PACKAGES, "");
        let all = database.with_dependencies(&[]);
        assert_eq!(all, ["base-files", "libc6", "mawk"].into());
    }

    #[test]
    fn the_owner_of_a_file_is_found() {
        let database = Database::parse(
            PACKAGES,
            "rsync: /usr/bin/rsync\nlibc6:amd64, libc6:i386: /lib/x/ld.so\ndiversion by a from: /usr/bin/b\n",
        );
        assert_eq!(database.owner(Path::new("/usr/bin/rsync")), Some("rsync"));
        assert_eq!(database.owner(Path::new("/usr/lib/x/ld.so")), Some("libc6"));
        assert_eq!(database.owner(Path::new("/usr/bin/b")), None);
    }
}
