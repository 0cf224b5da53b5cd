//! A Kubernetes API server with its etcd, for the tests of what asks one.
//!
//! Debian has etcd as a package and of Kubernetes only the source of its server, with all that it is made of; the
//! compiler that fits is Debian's as well. All of it is unpacked and built in the tool cache, and only the two
//! programs stay there: nothing is installed, and nothing but Debian's archive is asked.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use probe_tests::{KUBERNETES, kubernetes_program};

use crate::{
    apt,
    archive::{Archive, Site, Suite},
    cache, packages,
    step::{self, say, slow_step},
};

/// The release that has this Kubernetes, and the Go that builds it.
const SUITE: Suite = (Site::Main, "bookworm");

/// etcd, the compiler with its library, and a library in the version that fits that compiler.
const PACKAGES: [&str; 4] = [
    "etcd-server",
    "golang-1.19-go",
    "golang-1.19-src",
    "golang-github-modern-go-reflect2-dev",
];

/// That library, which knows the compiler's insides by heart. The server's source has it from before those changed in
/// Go 1.18; with that one, the server dies of the first custom resource.
const REFLECT: &str = "github.com/modern-go/reflect2";

/// Where the compiler's package has its root.
const GO: &str = "usr/lib/go-1.19";

/// What is kept.
const PROGRAMS: [&str; 2] = ["etcd", "kube-apiserver"];

/// Makes sure that they are there.
pub fn ensure() -> Result<()> {
    if are_there() {
        return Ok(());
    }
    ensure!(
        apt::exists(),
        "the tests cannot do without an API server, which is built from Debian's sources: put etcd and \
         kube-apiserver 1.20 into {}",
        cache::directory()?.join(KUBERNETES).join("bin").display()
    );
    packages::ensure_for_sources()?;
    let cache = cache::directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let place = cache.join(format!("{KUBERNETES}.unfinished"));
    // Two at a time would take the machine twice as long, for the same.
    let lock = File::create(place.with_extension("lock"))?;
    lock.lock().context("cannot wait for another build")?;
    if are_there() {
        return Ok(());
    }
    slow_step("build kube-apiserver (several minutes)", || make(&place))?;
    // Complete or not there at all, also when this is interrupted.
    let directory = cache.join(KUBERNETES);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::rename(place.join("kept"), &directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    discard(&place)?;
    say(&format!("kube-apiserver is in {}", directory.display()));
    Ok(())
}

fn are_there() -> bool {
    PROGRAMS.iter().all(|name| kubernetes_program(name).is_ok())
}

/// Fetches and builds it all in one place, and leaves what is kept in a directory there.
fn make(place: &Path) -> Result<()> {
    // What an interrupted build has left.
    discard(place)?;
    let [packages, root, kept] = ["packages", "root", "kept/bin"].map(|part| place.join(part));
    for directory in [&packages, &root, &kept] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let archive = Archive::open_with_sources(place.join("apt"), &[SUITE])?;
    archive.download(&PACKAGES.map(str::to_owned), &packages)?;
    archive.download_source("kubernetes", &packages)?;
    for package in with_extension(&packages, "deb")? {
        step::run(Command::new("dpkg").arg("-x").arg(&package).arg(&root))?;
    }
    let [description] = with_extension(&packages, "dsc")?
        .try_into()
        .map_err(|found| anyhow::anyhow!("not one source package but {found:?}"))?;
    let source = place.join("source");
    step::run(
        Command::new("dpkg-source")
            // apt has seen to that, with keys that this program may not have.
            .args(["-q", "--no-check", "-x"])
            .arg(&description)
            .arg(&source),
    )?;
    replace(
        &source.join("vendor").join(REFLECT),
        &root.join("usr/share/gocode/src").join(REFLECT),
    )?;
    build(&source, &root.join(GO), place)?;
    for (program, name) in [
        (source.join("_output/bin/kube-apiserver"), "kube-apiserver"),
        (root.join("usr/bin/etcd"), "etcd"),
    ] {
        fs::copy(&program, kept.join(name))
            .with_context(|| format!("there is no {}", program.display()))?;
        step::run(Command::new(kept.join(name)).arg("--version"))?;
    }
    Ok(())
}

fn build(source: &Path, go: &Path, place: &Path) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([go.join("bin")].into_iter().chain(env::split_paths(&path)))?;
    let output = Command::new("make")
        .arg("WHAT=cmd/kube-apiserver")
        .current_dir(source)
        // Nobody's own Go, nor what it is told to do elsewhere.
        .env_clear()
        .env("PATH", path)
        .env("HOME", place)
        .env("GOROOT", go)
        .env("CGO_ENABLED", "0")
        // All that it is made of came with it.
        .env("GOFLAGS", "-mod=vendor")
        .env("GOPROXY", "off")
        .output()
        .context("cannot run make")?;
    if !output.status.success() {
        bail!(
            "kube-apiserver does not build:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Puts the files of one directory into another, instead of what is there.
fn replace(old: &Path, new: &Path) -> Result<()> {
    ensure!(old.is_dir(), "the source has no {}", old.display());
    discard(old)?;
    fs::create_dir(old)?;
    for entry in fs::read_dir(new).with_context(|| format!("cannot read {}", new.display()))? {
        let file = entry?;
        if file.file_type()?.is_file() {
            fs::copy(file.path(), old.join(file.file_name()))?;
        }
    }
    Ok(())
}

fn with_extension(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|its| its == extension) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn discard(place: &Path) -> Result<()> {
    if !place.exists() {
        return Ok(());
    }
    fs::remove_dir_all(place).with_context(|| format!("cannot remove {}", place.display()))
}
