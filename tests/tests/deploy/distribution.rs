//! The output of `cargo xtask dist`. `cargo xtask test` creates it before it runs the tests.

use std::{
    collections::BTreeSet,
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use probe_tests::{binary, deploy, distribution, objects, valid_objects};
use serde_json::Value;
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn file(name: &str) -> PathBuf {
    let path = distribution().unwrap().join(name);
    assert!(
        path.is_file(),
        "there is no {}: run `cargo xtask dist`",
        path.display()
    );
    path
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn unpacked(archive: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    run(Command::new("tar")
        .arg("--extract")
        .arg("--file")
        .arg(file(archive))
        .arg("--directory")
        .arg(directory.path()));
    directory
}

/// The paths of the files below a directory, sorted.
fn files(directory: &Path) -> BTreeSet<String> {
    let listing = run(Command::new("find")
        .arg(directory)
        .args(["-type", "f", "-printf", "%P\n"]));
    let listing = String::from_utf8(listing.stdout).unwrap();
    listing.lines().map(str::to_owned).collect()
}

#[test]
fn the_checksums_cover_all_files() {
    let sums = fs::read_to_string(file("SHA256SUMS")).unwrap();
    let named: BTreeSet<_> = sums
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(str::to_owned)
        .collect();
    let mut packed = files(&distribution().unwrap());
    assert!(packed.remove("SHA256SUMS"));
    assert_eq!(named, packed);
    let expected = [
        format!("arp-monitor-{VERSION}-linux-{ARCH}.tar.gz"),
        format!("arp-monitor-{VERSION}-image-{ARCH}.tar"),
        format!("arp-monitor-{VERSION}.tgz"),
        format!("arp-monitor-{VERSION}.yaml"),
    ];
    assert_eq!(packed, expected.into());
    run(Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(distribution().unwrap()));
}

#[test]
fn the_archive_holds_the_tested_binary_its_pages_completions_and_unit() {
    let name = format!("arp-monitor-{VERSION}-linux-{ARCH}");
    let directory = unpacked(&format!("{name}.tar.gz"));
    let prefix = directory.path().join(name);
    let probe = prefix.join("bin/probe");
    let read = |path: &Path| fs::read(path).unwrap();
    assert!(
        read(&probe) == read(&binary().unwrap()),
        "the archive contains another binary than the tested one"
    );
    let version = run(Command::new(&probe).arg("--version"));
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("probe {VERSION}\n")
    );

    let pages = TempDir::new().unwrap();
    run(Command::new(&probe).arg("man").arg(pages.path()));
    let mut expected: BTreeSet<_> = files(pages.path())
        .into_iter()
        .map(|page| format!("share/man/man1/{page}"))
        .collect();
    assert!(expected.contains("share/man/man1/probe-run.1"));
    expected.extend(
        [
            "bin/probe",
            "lib/systemd/system/arp-monitor.service",
            "share/bash-completion/completions/probe",
            "share/doc/arp-monitor/CHANGELOG.md",
            "share/doc/arp-monitor/LICENSE-APACHE",
            "share/doc/arp-monitor/LICENSE-GPL-2.0",
            "share/doc/arp-monitor/LICENSE-MIT",
            "share/doc/arp-monitor/README.md",
            "share/fish/vendor_completions.d/probe.fish",
            "share/zsh/site-functions/_probe",
        ]
        .map(str::to_owned),
    );
    assert_eq!(files(&prefix), expected);
    for (shell, path) in [
        ("bash", "share/bash-completion/completions/probe"),
        ("fish", "share/fish/vendor_completions.d/probe.fish"),
        ("zsh", "share/zsh/site-functions/_probe"),
    ] {
        let script = run(Command::new(&probe).args(["completions", shell]));
        assert!(script.stdout == read(&prefix.join(path)), "{shell}");
    }
}

#[test]
fn the_image_archive_is_an_image_layout_with_the_version_as_its_tag() {
    let directory = unpacked(&format!("arp-monitor-{VERSION}-image-{ARCH}.tar"));
    let layout = fs::read_to_string(directory.path().join("oci-layout")).unwrap();
    assert!(layout.contains("imageLayoutVersion"), "{layout}");
    let index = fs::read_to_string(directory.path().join("index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let [manifest] = &index["manifests"].as_array().unwrap()[..] else {
        panic!("{index:#}")
    };
    let name = &manifest["annotations"]["org.opencontainers.image.ref.name"];
    assert!(
        name.as_str().unwrap().ends_with(&format!(":{VERSION}")),
        "{name}"
    );
    let digest = manifest["digest"].as_str().unwrap().replace(':', "/");
    assert!(directory.path().join("blobs").join(digest).is_file());
}

#[test]
fn the_chart_and_the_manifest_equal_those_of_the_repository() {
    let manifest = fs::read_to_string(file(&format!("arp-monitor-{VERSION}.yaml"))).unwrap();
    let deployed = fs::read_to_string(deploy().join("kubernetes/arp-monitor.yaml")).unwrap();
    assert_eq!(manifest, deployed);
    assert!(!objects(&manifest).unwrap().is_empty());

    let directory = unpacked(&format!("arp-monitor-{VERSION}.tgz"));
    let chart = directory.path().join("arp-monitor");
    let description = fs::read_to_string(chart.join("Chart.yaml")).unwrap();
    assert!(
        description.contains(&format!("version: {VERSION}")),
        "{description}"
    );
    assert!(valid_objects(&description, &[]).is_ok());
    // The targets of the repository's symbolic links are included.
    for part in ["files/prometheus", "files/grafana"] {
        let part = chart.join(part);
        assert!(!part.is_symlink() && !files(&part).is_empty(), "{part:?}");
    }
}
