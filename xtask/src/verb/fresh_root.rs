//! `cargo xtask fresh-root`: runs a command on a clean clone in a minimal Debian system, which shows missing parts
//! of set-up.
//!
//! The system has Debian's minimal base, a C compiler with its library (Rust needs them), git and certificates, and
//! this cargo's toolchain. It uses the kernel of this machine.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    archive::{self, RELEASE},
    host,
    programs::{self, Use},
    step::{self, slow_step},
};

/// Enters the system and runs the command.
const ENTER: &str = include_str!("fresh_root.sh");

/// Packages besides the minimal base.
const PACKAGES: &str = "ca-certificates,gcc,git,libc6-dev";

/// Certificates of this machine, which a package registry may need.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Environment variables that the command inherits.
const INHERITED: [&str; 10] = [
    "CARGO_HTTP_CAINFO",
    "CI",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
];

/// Runs the command and returns its exit status.
pub fn run(keep: Option<PathBuf>, command: &[OsString]) -> Result<ExitCode> {
    ensure!(
        host::is_root(),
        "a minimal system needs mounts, and those need root"
    );
    programs::ensure(&[Use::FreshRoot])?;
    let is_kept = keep.is_some();
    let root = keep.unwrap_or_else(|| format!("/var/tmp/fresh-root.{}", process::id()).into());
    let outcome = make(&root).and_then(|root| enter(&root, command));
    if !is_kept && root.exists() {
        step::run(
            programs::command("rm")?
                .args(["-r", "-f", "--one-file-system"])
                .arg(&root),
        )?;
    }
    outcome
}

/// Creates the system, unless it exists, and clones this repository's HEAD into it.
fn make(root: &Path) -> Result<PathBuf> {
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    let root = fs::canonicalize(root)?;
    if !root.join("etc/debian_version").exists() {
        slow_step("make a minimal Debian system", || bootstrap(&root))?;
    }
    for file in ["/etc/resolv.conf", CERTIFICATES] {
        copy_if_exists(Path::new(file), &root)?;
    }
    let checkout = root.join("src/checkout");
    let built = root.join("src/target");
    // Existing build results are reused.
    if checkout.join("target").exists() {
        host::replace_directory(&checkout.join("target"), &built)?;
    }
    if checkout.exists() {
        fs::remove_dir_all(&checkout)?;
    }
    step::run(
        programs::command("git")?
            .args(["clone", "--quiet", "--no-hardlinks"])
            .arg(host::workspace())
            .arg(&checkout),
    )?;
    if built.exists() {
        fs::rename(&built, checkout.join("target"))?;
    }
    Ok(root)
}

fn bootstrap(root: &Path) -> Result<()> {
    let (_, release) = RELEASE[0];
    let mirror = archive::mirror()?;
    let scripts = programs::find("debootstrap")
        .and_then(|program| Some(program.parent()?.parent()?.join("share/debootstrap")))
        .context("there is no debootstrap")?;
    step::run(
        programs::command("debootstrap")?
            .env("DEBOOTSTRAP_DIR", scripts)
            .args([
                "--variant=minbase",
                &format!("--include={PACKAGES}"),
                release,
            ])
            .arg(root)
            .arg(mirror)
            // The progress is not shown; errors are in the log.
            .stdout(process::Stdio::null()),
    )?;
    fs::write(
        root.join("etc/apt/sources.list"),
        archive::sources(&RELEASE)?,
    )
    .context("cannot write the package sources")
}

/// Copies the contents of a file, which may be a link, to the same path below `root`, if it exists.
fn copy_if_exists(file: &Path, root: &Path) -> Result<()> {
    let Ok(contents) = fs::read(file) else {
        return Ok(());
    };
    let copy = root.join(file.strip_prefix("/").unwrap_or(file));
    if let Some(directory) = copy.parent() {
        fs::create_dir_all(directory)?;
    }
    let _ = fs::remove_file(&copy);
    fs::write(&copy, contents).with_context(|| format!("cannot write {}", copy.display()))
}

fn enter(root: &Path, command: &[OsString]) -> Result<ExitCode> {
    let toolchain = toolchain()?;
    let mut path = OsString::from(toolchain.join("bin"));
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let inherited = INHERITED
        .iter()
        .filter_map(|name| Some((name, env::var_os(name)?)));
    let status = programs::command("unshare")?
        .args(["--mount", "--pid", "--fork", "--kill-child", "--"])
        .args(["sh", "-c", ENTER, "fresh-root"])
        .args([root.as_os_str(), toolchain.as_os_str()])
        .args(command)
        .env_clear()
        .envs(inherited)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("HOME", "/root")
        .env("PATH", path)
        .status()
        .context("cannot run unshare")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The root of the toolchain of this cargo.
fn toolchain() -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = host::output_of(
        Command::new(rustc)
            .args(["--print", "sysroot"])
            .current_dir(host::workspace()),
    )
    .context("rustc does not print its sysroot")?;
    let toolchain = PathBuf::from(sysroot.trim());
    ensure!(
        toolchain != OsStr::new("/usr"),
        "Rust is installed by this system's packages; a minimal system needs one of rustup's toolchains"
    );
    Ok(toolchain)
}
