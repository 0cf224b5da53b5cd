//! Packages of other Debian releases, without a change to the package lists of this machine.
//!
//! apt gets separate lists, caches and sources. All other settings are those of the machine, and so are the
//! addresses: the packages come from the mirror that the machine uses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{apt, host, programs};

/// A part of Debian's archive: its site and name.
pub type Suite = (Site, &'static str);

/// The release of the packages in the tool cache, independent of the machine's release.
pub const RELEASE: [Suite; 2] = [
    (Site::Main, "bookworm"),
    (Site::Security, "bookworm-security"),
];

/// The keys that sign every Debian release; in Debian's `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The two sites of Debian's packages.
#[derive(Clone, Copy)]
pub enum Site {
    Main,
    Security,
}

/// An archive with separate package lists.
pub struct Archive {
    directory: PathBuf,
}

/// The type of a line in apt's sources.
#[derive(Clone, Copy)]
enum Offer {
    /// Binary packages.
    Binary,
    /// Source packages.
    Source,
}

impl Archive {
    /// Downloads the lists of some suites into a directory.
    pub fn open(directory: PathBuf, suites: &[Suite]) -> Result<Self> {
        Self::open_for(directory, suites, &[Offer::Binary])
    }

    /// The same, with source packages.
    pub fn open_with_sources(directory: PathBuf, suites: &[Suite]) -> Result<Self> {
        Self::open_for(directory, suites, &[Offer::Binary, Offer::Source])
    }

    fn open_for(directory: PathBuf, suites: &[Suite], offers: &[Offer]) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let sources = directory.join("sources.list");
        fs::write(&sources, sources_list(&targets()?, suites, offers)?)
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let archive = Self { directory };
        fs::write(archive.directory.join("status"), "")?;
        apt::run(archive.command("apt-get")?.args(["-qq", "update"]))?;
        Ok(archive)
    }

    /// The names of all packages with this prefix.
    pub fn names(&self, start: &str) -> Result<Vec<String>> {
        let names = host::output_of(self.command("apt-cache")?.args(["pkgnames", start]))
            .context("apt-cache does not list packages")?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads packages into a directory.
    pub fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        apt::run(
            self.command("apt-get")?
                .args(["-qq", "download"])
                .args(packages)
                .current_dir(into),
        )
    }

    /// Downloads packages and all their dependencies into a directory.
    pub fn download_with_dependencies(&self, packages: &[String], into: &Path) -> Result<()> {
        let partial = into.join("partial");
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        apt::run(
            self.command("apt-get")?
                .arg("-o")
                .arg(format!("Dir::Cache::Archives={}", into.display()))
                .args(["-qq", "--yes", "--no-install-recommends", "--download-only"])
                .arg("install")
                .args(packages),
        )
    }

    /// Downloads a source package into a directory without unpacking it. apt has verified it against Debian's
    /// signature.
    pub fn download_source(&self, package: &str, into: &Path) -> Result<()> {
        apt::run(
            self.command("apt-get")?
                .args(["-qq", "source", "--download-only", package])
                .current_dir(into),
        )
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = programs::command(program)?;
        let own = |path: &str| self.directory.join(path).display().to_string();
        for (option, value) in [
            ("Dir::Etc::SourceList", own("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State::Lists", own("lists")),
            // Ignore the installed packages: apt would prefer them to those of the suites.
            ("Dir::State::Status", own("status")),
            ("Dir::Cache", own("cache")),
            ("Acquire::Languages", "none".to_owned()),
            // apt's own user cannot write to the directory of these files.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        Ok(command)
    }
}

/// The address of Debian's archive.
pub fn mirror() -> Result<String> {
    site(&targets()?, Site::Main)
        .map(str::to_owned)
        .context("this machine gets no packages from Debian: run this on Debian")
}

/// Lines for apt's sources that name suites at the addresses of this machine.
pub fn sources(suites: &[Suite]) -> Result<String> {
    sources_list(&targets()?, suites, &[Offer::Binary])
}

/// The package sources of this machine: a line of address, suite and origin each.
fn targets() -> Result<String> {
    let list = || {
        host::output_of(programs::command("apt-get")?.args([
            "indextargets",
            "--format",
            "$(SITE) $(RELEASE) $(ORIGIN)",
            "Created-By: Packages",
        ]))
        .context("cannot read the package sources of this machine from apt-get")
    };
    let targets = list()?;
    if site(&targets, Site::Main).is_some() {
        return Ok(targets);
    }
    // The origin is only known once the package lists exist.
    apt::update()?;
    list()
}

fn sources_list(targets: &str, suites: &[Suite], offers: &[Offer]) -> Result<String> {
    let mut lines = Vec::new();
    for &(of, suite) in suites {
        let site = site(targets, of).with_context(|| {
            format!(
                "this machine has no Debian package source, so the location of {suite} is unknown: \
                 run this on Debian"
            )
        })?;
        for offer in offers {
            let start = match offer {
                Offer::Binary => "deb [arch=amd64 ",
                Offer::Source => "deb-src [",
            };
            lines.push(format!("{start}signed-by={KEYRING}] {site} {suite} main\n"));
        }
    }
    Ok(lines.concat())
}

/// The address of Debian's archive, or of its security updates.
fn site(targets: &str, wanted: Site) -> Option<&str> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (site, suite, origin) = (words.next()?, words.next()?, words.next()?);
        let fits = match wanted {
            Site::Main => !suite.contains("security"),
            Site::Security => suite.contains("security"),
        };
        (origin == "Debian" && fits).then_some(site)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITES: [Suite; 2] = [
        (Site::Security, "bullseye-security"),
        (Site::Main, "trixie-backports"),
    ];

    const TARGETS: &str = "\
http://tools.example/apt stable Tools
http://mirror.example/debian bookworm Debian
http://mirror.example/debian bookworm-updates Debian
http://security.example/updates bookworm-security Debian
";

    #[test]
    fn sources_use_the_mirror_of_this_machine() {
        let list = sources_list(TARGETS, &SUITES, &[Offer::Binary]).unwrap();
        let lines: Vec<_> = list.lines().collect();
        assert_eq!(lines.len(), SUITES.len());
        assert!(lines[0].ends_with(" http://security.example/updates bullseye-security main"));
        assert!(lines[1].ends_with(" http://mirror.example/debian trixie-backports main"));
    }

    #[test]
    fn source_packages_use_the_same_mirror() {
        let offers = [Offer::Binary, Offer::Source];
        let list = sources_list(TARGETS, &SUITES[1..], &offers).unwrap();
        let kinds: Vec<_> = list.lines().map(|line| line.split(' ').next()).collect();
        assert_eq!(kinds, [Some("deb"), Some("deb-src")]);
        for line in list.lines() {
            assert!(line.ends_with(" http://mirror.example/debian trixie-backports main"));
        }
    }

    #[test]
    fn a_machine_without_debian_packages_is_an_error() {
        for targets in ["", "http://tools.example/apt stable Tools\n"] {
            let error = sources_list(targets, &SUITES, &[Offer::Binary])
                .unwrap_err()
                .to_string();
            assert!(error.contains("on Debian"), "{error}");
        }
    }
}
