//! `cargo xtask dist`: the release files. The same commit and compiler give the same bytes.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use probe_tests::Chart;

use crate::{
    host, image,
    programs::{self, Use},
    python_tools,
    step::{self, log, step},
    verb::build,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The directories of shell completions, below the prefix.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/probe"),
    ("fish", "share/fish/vendor_completions.d/probe.fish"),
    ("zsh", "share/zsh/site-functions/_probe"),
];

/// Files of the repository with their destinations below the prefix.
const FILES: [(&str, &str); 6] = [
    (
        "deploy/systemd/arp-monitor.service",
        "lib/systemd/system/arp-monitor.service",
    ),
    ("CHANGELOG.md", "share/doc/arp-monitor/CHANGELOG.md"),
    ("README.md", "share/doc/arp-monitor/README.md"),
    ("LICENSE-APACHE", "share/doc/arp-monitor/LICENSE-APACHE"),
    ("LICENSE-GPL-2.0", "share/doc/arp-monitor/LICENSE-GPL-2.0"),
    ("LICENSE-MIT", "share/doc/arp-monitor/LICENSE-MIT"),
];

pub fn run() -> Result<()> {
    programs::ensure(&[Use::Image, Use::Manifests])?;
    python_tools::ensure()?;
    build::run()?;
    assemble()
}

/// Assembles the release files, including the image, from the existing release build.
pub fn assemble() -> Result<()> {
    let image = image::build()?;
    step("distribution", || {
        let directory = host::target_dir().join("dist");
        recreate(&directory)?;
        let scratch = host::target_dir().join("dist.scratch");
        recreate(&scratch)?;

        let name = format!("arp-monitor-{VERSION}-linux-{ARCH}");
        stage(&scratch.join(&name))?;
        pack(&scratch, &name, &directory.join(format!("{name}.tar.gz")))?;
        // In the format of `ctr images import` and `podman load`.
        pack(
            &image.layout,
            ".",
            &directory.join(format!("arp-monitor-{VERSION}-image-{ARCH}.tar")),
        )?;
        pack_chart(&scratch, &directory)?;
        copy(
            &host::workspace().join("deploy/kubernetes/arp-monitor.yaml"),
            &directory.join(format!("arp-monitor-{VERSION}.yaml")),
        )?;
        sum(&directory)?;
        fs::remove_dir_all(&scratch)?;
        log(&format!("{} is ready", directory.display()));
        Ok(())
    })
}

/// Creates the tree that is unpacked below a prefix, such as /usr/local.
fn stage(prefix: &Path) -> Result<()> {
    let binary = prefix.join("bin/probe");
    copy(&host::probe(), &binary)?;
    for (from, to) in FILES {
        copy(&host::workspace().join(from), &prefix.join(to))?;
    }
    for (shell, to) in COMPLETIONS {
        let script = host::output_of(Command::new(&binary).args(["completions", shell]))
            .with_context(|| format!("probe prints no completions for {shell}"))?;
        let path = prefix.join(to);
        make_parent(&path)?;
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let pages = prefix.join("share/man/man1");
    fs::create_dir_all(&pages)?;
    step::run(Command::new(&binary).arg("man").arg(&pages))
}

/// Packs a directory or its contents reproducibly: sorted, with fixed times and owners.
fn pack(base: &Path, what: &str, archive: &Path) -> Result<()> {
    let mut tar = programs::command("tar")?;
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args(["--format=ustar", "--mode=u+rw,go+r,go-w"])
        .arg(format!("--mtime=@{}", host::commit_time()));
    if archive.extension().is_some_and(|kind| kind != "tar") {
        tar.arg("--use-compress-program=gzip --no-name --best");
    }
    step::run(
        tar.arg("--file")
            .arg(archive)
            .arg("--directory")
            .arg(base)
            .arg("--create")
            .arg(what),
    )
}

/// Lets Helm pack the chart, which resolves its symbolic links, and packs the result again, because Helm writes the
/// current date.
fn pack_chart(scratch: &Path, directory: &Path) -> Result<()> {
    let package = Chart::of_this_repository().package(scratch)?;
    step::run(
        programs::command("tar")?
            .arg("--extract")
            .arg("--file")
            .arg(&package)
            .arg("--directory")
            .arg(scratch),
    )?;
    let name = package.file_name().context("Helm's package has no name")?;
    pack(scratch, "arp-monitor", &directory.join(name))
}

/// Writes SHA256SUMS, for `sha256sum --check`.
fn sum(directory: &Path) -> Result<()> {
    let mut names = names_in(directory)?;
    names.sort();
    let output = programs::command("sha256sum")?
        .args(&names)
        .current_dir(directory)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run sha256sum")?;
    ensure!(output.status.success(), "sha256sum failed");
    fs::write(directory.join("SHA256SUMS"), output.stdout).context("cannot write SHA256SUMS")
}

fn names_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name().into())).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))
}

fn recreate(directory: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}
