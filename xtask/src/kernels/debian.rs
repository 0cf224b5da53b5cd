//! A Debian kernel, unpacked in the tool cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::release;
use crate::{
    apt,
    archive::{Archive, Site, Suite},
    step::{log, step},
};

/// The suites with the kernels of the matrix. Those of security updates are small and have the newest versions.
const SUITES: [Suite; 3] = [
    (Site::Security, "bullseye-security"),
    (Site::Security, "bookworm-security"),
    (Site::Main, "trixie-backports"),
];

/// The files of a kernel.
pub struct Kernel {
    version: String,
    directory: PathBuf,
    files: Vec<PathBuf>,
}

impl Kernel {
    /// Returns the kernel from the cache, or downloads it.
    pub fn find_or_fetch(version: &str, cache: &Path) -> Result<Self> {
        let directory = cache.join(version);
        if !directory.is_dir() {
            step(&format!("fetch Linux {version}"), || {
                fetch(version, cache, &directory)
            })?;
        }
        Ok(Self {
            version: version.to_owned(),
            files: files_below(&directory)?,
            directory,
        })
    }

    /// The requested version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The bootable image.
    pub fn bootable(&self) -> Result<&Path> {
        self.find(|name| name.starts_with("vmlinuz"))
    }

    /// The file of a module, by its name with underscores, possibly compressed.
    pub fn module(&self, module: &str) -> Option<&Path> {
        self.find(|name| {
            name.split_once(".ko")
                .is_some_and(|(stem, _)| stem.replace('-', "_") == module)
        })
        .ok()
    }

    /// The list of built-in modules.
    pub fn built_in(&self) -> Result<String> {
        let path = self.find(|name| name == "modules.builtin")?;
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> Result<&Path> {
        self.files
            .iter()
            .find(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(&wanted)
            })
            .map(PathBuf::as_path)
            .with_context(|| {
                let directory = self.directory.display();
                format!(
                    "the kernel in {directory} is not complete: remove the directory, \
                     and it is fetched anew"
                )
            })
    }
}

fn fetch(version: &str, cache: &Path, directory: &Path) -> Result<()> {
    ensure!(
        apt::exists(),
        "the kernels are Debian's, and here is no apt-get to fetch them with: unpack the packages of \
         a Debian cloud kernel {version} into {}",
        directory.display()
    );
    let archive = Archive::open(cache.join("apt"), &SUITES)?;
    let names = archive.names("linux-")?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let Some(newest) = release::newest(version, names.iter().copied()) else {
        bail!("Debian has no cloud kernel {version}: the versions are like 6.12");
    };
    log(&format!("newest is {newest}"));
    let mut packages = release::packages(newest);
    packages.retain(|package| names.contains(&package.as_str()));

    // Complete or absent, also after an interruption.
    let unfinished = cache.join(format!("{version}.{}", process::id()));
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    archive.download(&packages, &unfinished)?;
    apt::unpack(&unfinished, &unfinished)?;
    // A concurrent run may have created the same directory first.
    if fs::rename(&unfinished, directory).is_err() {
        ensure!(directory.is_dir(), "cannot make {}", directory.display());
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(())
}

/// Every file below a directory.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            // A symbolic link is neither: its target is elsewhere.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
