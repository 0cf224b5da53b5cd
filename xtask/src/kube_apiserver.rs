//! A Kubernetes API server with its etcd, for the tests of the Kubernetes client.
//!
//! Debian packages etcd, but not the API server. Its last source package with the whole server is that of bookworm
//! (Kubernetes 1.20); the later ones (1.32 in trixie, 1.36 in forky and sid) contain kubectl alone. The server is built
//! in the tool cache, with Debian's Go, and only the two programs stay there. Nothing is installed.

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
    archive::{Archive, RELEASE},
    cache, programs,
    step::{self, log, slow_step},
};

/// etcd, the compiler with its library, and a library in the version that matches that compiler.
const PACKAGES: [&str; 4] = [
    "etcd-server",
    "golang-1.19-go",
    "golang-1.19-src",
    "golang-github-modern-go-reflect2-dev",
];

/// A library that depends on the compiler's internals. The server's source has a version from before Go 1.18, with
/// which the server crashes on the first custom resource.
const REFLECT: &str = "github.com/modern-go/reflect2";

/// The root of the Go distribution in its package.
const GO: &str = "usr/lib/go-1.19";

/// The server's import path, and with that its directory in the Go workspace.
const KUBERNETES_PACKAGE: &str = "k8s.io/kubernetes";

/// The only generated package that the source package lacks.
const OPENAPI: &str = "pkg/generated/openapi";

/// Marks the packages whose types are in the `OpenAPI` document.
const OPENAPI_TAG: &str = "+k8s:openapi-gen=";

/// The programs that stay in the cache.
const PROGRAMS: [&str; 2] = ["etcd", "kube-apiserver"];

/// Ensures that both programs are in the tool cache.
pub fn ensure() -> Result<()> {
    if exist() {
        return Ok(());
    }
    ensure!(
        apt::exists(),
        "the tests need a Kubernetes API server, which is built from Debian's sources: put etcd and \
         kube-apiserver 1.20 into {}",
        cache::directory()?.join(KUBERNETES).join("bin").display()
    );
    let cache = cache::directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let build_directory = cache.join(format!("{KUBERNETES}.unfinished"));
    // Two concurrent builds would take twice as long for the same result.
    let lock = File::create(build_directory.with_extension("lock"))?;
    lock.lock().context("cannot wait for another build")?;
    if exist() {
        return Ok(());
    }
    slow_step("build kube-apiserver (about 3 min)", || {
        make(&build_directory)
    })?;
    // Complete or absent, also after an interruption.
    let directory = cache.join(KUBERNETES);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::rename(build_directory.join("finished"), &directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    discard(&build_directory)?;
    log(&format!("kube-apiserver is in {}", directory.display()));
    Ok(())
}

fn exist() -> bool {
    PROGRAMS.iter().all(|name| kubernetes_program(name).is_ok())
}

/// Downloads and builds everything below `build_directory`, with the programs in its subdirectory `finished`.
fn make(build_directory: &Path) -> Result<()> {
    // Left by an interrupted build.
    discard(build_directory)?;
    let [packages, root, finished] =
        ["packages", "root", "finished/bin"].map(|part| build_directory.join(part));
    for directory in [&packages, &root, &finished] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let archive = Archive::open_with_sources(build_directory.join("apt"), &RELEASE)?;
    archive.download(&PACKAGES.map(str::to_owned), &packages)?;
    archive.download_source("kubernetes", &packages)?;
    apt::unpack(&packages, &root)?;

    let build = Build {
        go: root.join(GO),
        workspace: build_directory.join("go"),
        home: build_directory.to_owned(),
    };
    let source = build.source();
    unpack_source(&packages, &source)?;
    replace(
        &source.join("vendor").join(REFLECT),
        &root.join("usr/share/gocode/src").join(REFLECT),
    )?;
    build.generate_openapi()?;
    build.compile(
        &["-tags=providerless"],
        &finished.join("kube-apiserver"),
        "./cmd/kube-apiserver",
    )?;
    let etcd = root.join("usr/bin/etcd");
    fs::copy(&etcd, finished.join("etcd"))
        .with_context(|| format!("there is no {}", etcd.display()))?;
    for name in PROGRAMS {
        step::run(Command::new(finished.join(name)).arg("--version"))?;
    }
    Ok(())
}

fn unpack_source(packages: &Path, source: &Path) -> Result<()> {
    let parent = source.parent().unwrap_or(source);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let [description] = with_extension(packages, "dsc")?
        .try_into()
        .map_err(|found| anyhow::anyhow!("not one source package but {found:?}"))?;
    step::run(
        programs::command("dpkg-source")?
            // apt has verified the signature, with keys that this program may not have.
            .args(["-q", "--no-check", "-x"])
            .arg(&description)
            .arg(source),
    )
}

/// A build in Go's GOPATH mode, which this version of Kubernetes expects.
struct Build {
    go: PathBuf,
    workspace: PathBuf,
    home: PathBuf,
}

impl Build {
    fn source(&self) -> PathBuf {
        self.workspace.join("src").join(KUBERNETES_PACKAGE)
    }

    /// Generates the `OpenAPI` definitions, as `make generated_files` does. The other generated files are in the
    /// source package, and `make` would take minutes to check that.
    fn generate_openapi(&self) -> Result<()> {
        let generator = self.workspace.join("openapi-gen");
        self.compile(
            &[],
            &generator,
            "./vendor/k8s.io/kube-openapi/cmd/openapi-gen",
        )?;
        let mut generate = Command::new(&generator);
        generate
            .arg("--logtostderr")
            .arg("--input-dirs")
            .arg(self.openapi_packages()?.join(","))
            .arg("--output-package")
            .arg(format!("{KUBERNETES_PACKAGE}/{OPENAPI}"))
            .args(["--output-file-base", "zz_generated.openapi"])
            .args([
                "--go-header-file",
                "hack/boilerplate/boilerplate.generatego.txt",
            ])
            .arg("--report-filename")
            .arg(self.home.join("openapi-violations"));
        self.run(&mut generate)
    }

    /// The import paths of all packages with the tag. Vendored packages of Kubernetes are links into `staging`.
    fn openapi_packages(&self) -> Result<Vec<String>> {
        let source = self.source();
        let mut packages = Vec::new();
        for (directory, prefix) in [
            ("pkg", "pkg"),
            ("plugin", "plugin"),
            ("staging/src/k8s.io", "vendor/k8s.io"),
        ] {
            find_tagged(&source.join(directory), prefix, &mut packages)?;
        }
        packages.retain(|package| {
            !["code-generator", "sample-apiserver"]
                .iter()
                .any(|example| package.starts_with(&format!("vendor/k8s.io/{example}")))
        });
        packages.sort();
        Ok(packages
            .iter()
            .map(|package| format!("{KUBERNETES_PACKAGE}/{package}"))
            .collect())
    }

    fn compile(&self, options: &[&str], output: &Path, package: &str) -> Result<()> {
        let mut build = Command::new(self.go.join("bin/go"));
        build
            .arg("build")
            .args(options)
            .arg("-o")
            .arg(output)
            .arg(package);
        self.run(&mut build)
    }

    fn run(&self, command: &mut Command) -> Result<()> {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(
            [self.go.join("bin")]
                .into_iter()
                .chain(env::split_paths(&path)),
        )?;
        let output = command
            .current_dir(self.source())
            // Ignore the settings of an installed Go.
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.home)
            .env("GOROOT", &self.go)
            .env("GOPATH", &self.workspace)
            .env("CGO_ENABLED", "0")
            // All dependencies are in the source package.
            .env("GO111MODULE", "off")
            .env("GOPROXY", "off")
            .output()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        if !output.status.success() {
            bail!(
                "kube-apiserver does not build:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

/// Adds every directory below `directory` with the tag in one of its Go files, as a path below `prefix`.
fn find_tagged(directory: &Path, prefix: &str, found: &mut Vec<String>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut is_tagged = false;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            find_tagged(&entry.path(), &format!("{prefix}/{name}"), found)?;
        } else if kind.is_file() && name.ends_with(".go") && !is_tagged {
            is_tagged = fs::read_to_string(entry.path())
                .with_context(|| format!("cannot read {}", entry.path().display()))?
                .contains(OPENAPI_TAG);
        }
    }
    if is_tagged {
        found.push(prefix.to_owned());
    }
    Ok(())
}

/// Replaces the files of one directory by those of another.
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

fn discard(build_directory: &Path) -> Result<()> {
    if !build_directory.exists() {
        return Ok(());
    }
    fs::remove_dir_all(build_directory)
        .with_context(|| format!("cannot remove {}", build_directory.display()))
}
