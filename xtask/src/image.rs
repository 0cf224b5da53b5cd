//! The container image as an OCI image layout.
//!
//! It contains the static binary that the tests run. The images and settings of the machine are neither used nor
//! changed: buildah uses a store in the target directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use probe_tests::image_layout;

use crate::{
    host, programs,
    step::{self, step},
};

/// The image name in the manifests, without the version.
const REPOSITORY: &str = "localhost/arp-monitor";

/// The licence files in the image.
const LICENCES: [&str; 3] = ["LICENSE-APACHE", "LICENSE-GPL-2.0", "LICENSE-MIT"];

/// An image that was built.
pub struct Image {
    /// The name with its tag.
    pub name: String,
    /// The directory of the layout.
    pub layout: PathBuf,
    /// The compressed size in bytes, which a node downloads.
    pub compressed: u64,
    /// The unpacked size in bytes.
    pub unpacked: u64,
}

/// Builds the image from the existing release build.
pub fn build() -> Result<Image> {
    step("container image", || {
        let directory = host::target_dir().join("image");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let layout = image_layout()?;
        let name = format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION"));
        let context = directory.join("context");
        let unpacked = stage(&context)?;

        let buildah = || -> Result<Command> {
            let mut command = programs::command("buildah")?;
            command
                .args(["--log-level=error", "--storage-driver=vfs", "--root"])
                .arg(directory.join("store"))
                .arg("--runroot")
                .arg(directory.join("run"));
            Ok(command)
        };
        step::run(
            buildah()?
                .args(["build", "--quiet", "--isolation=chroot", "--layers=false"])
                // The same binary gives the same image.
                .arg(format!("--timestamp={}", host::commit_time()))
                .arg(format!("--build-arg=VERSION={}", env!("CARGO_PKG_VERSION")))
                .arg(format!("--build-arg=REVISION={}", host::revision()))
                .arg("--file")
                .arg(host::workspace().join("deploy/Containerfile"))
                .arg("--tag")
                .arg(&name)
                .arg(&context)
                .stdout(std::process::Stdio::null()),
        )?;
        // buildah would add to an existing layout.
        remove(&layout)?;
        step::run(
            buildah()?
                .args(["push", "--quiet", &name])
                .arg(format!("oci:{}:{name}", layout.display())),
        )?;
        step::run(
            buildah()?
                .args(["rmi", &name])
                .stdout(std::process::Stdio::null()),
        )?;
        remove(&directory.join("store"))?;
        Ok(Image {
            compressed: size_below(&layout)?,
            name,
            layout,
            unpacked,
        })
    })
}

/// Creates the build context of the Containerfile and returns its size.
fn stage(context: &Path) -> Result<u64> {
    remove(context)?;
    fs::create_dir_all(context.join("target/release"))
        .with_context(|| format!("cannot make {}", context.display()))?;
    let licences = LICENCES.map(|name| (host::workspace().join(name), context.join(name)));
    let binary = (host::probe(), context.join("target/release/probe"));
    let mut size = 0;
    for (from, to) in licences.iter().chain([&binary]) {
        size += fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(size)
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn size_below(directory: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() {
            size_below(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(size)
}
