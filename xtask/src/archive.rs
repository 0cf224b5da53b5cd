//! Packages of other Debian releases than this machine's, without a trace in its package lists.
//!
//! apt is given lists, a cache and sources of its own. The rest of its configuration is the machine's, and so
//! are the addresses: what this machine gets its packages through, these come through as well.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{apt, host, programs};

/// A part of Debian's archive: where it is, and its name.
pub type Suite = (Site, &'static str);

/// The release whose packages the tool cache holds, whatever release this machine has.
pub const RELEASE: [Suite; 2] = [
    (Site::Main, "bookworm"),
    (Site::Security, "bookworm-security"),
];

/// Signs every Debian release; in Debian's `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The two places from which Debian's packages come.
#[derive(Clone, Copy)]
pub enum Site {
    Main,
    Security,
}

/// An archive with lists of its own.
pub struct Archive {
    directory: PathBuf,
}

/// What a line of apt's sources may offer.
#[derive(Clone, Copy)]
enum Offer {
    /// Packages to install.
    Binary,
    /// What they are built from.
    Source,
}

impl Archive {
    /// Fetches the lists of some suites into a directory.
    pub fn open(directory: PathBuf, suites: &[Suite]) -> Result<Self> {
        Self::open_for(directory, suites, &[Offer::Binary])
    }

    /// The same, with the packages' sources.
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

    /// The names of all packages that start like this.
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

    /// Downloads packages into a directory, with all that they depend on.
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

    /// Downloads a package's source into a directory, and unpacks none of it. apt has compared it with what Debian
    /// signed.
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
            // Without what is installed here: apt would rather have that than what the suites have.
            ("Dir::State::Status", own("status")),
            ("Dir::Cache", own("cache")),
            ("Acquire::Languages", "none".to_owned()),
            // apt's own user cannot write where the files of this one are.
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

/// Lines for apt that name suites at the addresses of this machine.
pub fn sources(suites: &[Suite]) -> Result<String> {
    sources_list(&targets()?, suites, &[Offer::Binary])
}

/// Where this machine gets its packages: a line of address, suite and origin each.
fn targets() -> Result<String> {
    let ask = || {
        host::output_of(programs::command("apt-get")?.args([
            "indextargets",
            "--format",
            "$(SITE) $(RELEASE) $(ORIGIN)",
            "Created-By: Packages",
        ]))
        .context("apt-get does not say where this machine gets its packages")
    };
    let targets = ask()?;
    if site(&targets, Site::Main).is_some() {
        return Ok(targets);
    }
    // Whose packages they are is known once the lists are there.
    apt::update()?;
    ask()
}

fn sources_list(targets: &str, suites: &[Suite], offers: &[Offer]) -> Result<String> {
    let mut lines = Vec::new();
    for &(of, suite) in suites {
        let site = site(targets, of).with_context(|| {
            format!(
                "this machine gets no packages from Debian that would tell where {suite} is: \
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
    fn the_sources_are_the_suites_at_this_machines_addresses() {
        let list = sources_list(TARGETS, &SUITES, &[Offer::Binary]).unwrap();
        let lines: Vec<_> = list.lines().collect();
        assert_eq!(lines.len(), SUITES.len());
        assert!(lines[0].ends_with(" http://security.example/updates bullseye-security main"));
        assert!(lines[1].ends_with(" http://mirror.example/debian trixie-backports main"));
    }

    #[test]
    fn sources_come_from_where_the_packages_do() {
        let offers = [Offer::Binary, Offer::Source];
        let list = sources_list(TARGETS, &SUITES[1..], &offers).unwrap();
        let kinds: Vec<_> = list.lines().map(|line| line.split(' ').next()).collect();
        assert_eq!(kinds, [Some("deb"), Some("deb-src")]);
        for line in list.lines() {
            assert!(line.ends_with(" http://mirror.example/debian trixie-backports main"));
        }
    }

    #[test]
    fn a_machine_without_debians_packages_is_told_so() {
        for targets in ["", "http://tools.example/apt stable Tools\n"] {
            let error = sources_list(targets, &SUITES, &[Offer::Binary])
                .unwrap_err()
                .to_string();
            assert!(error.contains("on Debian"), "{error}");
        }
    }
}
