//! How the kernel side is compiled.
//!
//! One file for both who do it: probe-user's build script, which embeds the object, and
//! `cargo xtask lint`. It therefore uses nothing but the standard library.

use std::{
    env,
    fmt::{self, Display, Formatter},
    fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

/// The file, in the workspace root, in which `cargo xtask setup` writes what it found.
pub const FILE: &str = ".ebpf-toolchain";

/// A compiler that can build `core` for the BPF target, and a linker of the same LLVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    pub rustc: PathBuf,
    pub cargo: PathBuf,
    pub linker: PathBuf,
    /// The compiler's version when it was found.
    pub release: String,
    /// The LLVM major that `linker` was built for.
    pub llvm: u32,
}

impl Toolchain {
    /// Reads the file that setup wrote; an error contains the next step.
    pub fn read(workspace: &Path) -> Result<Self, String> {
        let toolchain: Self = fs::read_to_string(workspace.join(FILE))
            .map_err(|_| "no toolchain for the eBPF programs is set up yet".to_owned())
            .and_then(|text| text.parse())
            .map_err(|why| format!("{why}: run `cargo xtask setup`"))?;
        for path in [&toolchain.rustc, &toolchain.cargo, &toolchain.linker] {
            if !path.exists() {
                let path = path.display();
                return Err(format!("{path} is gone: run `cargo xtask setup`"));
            }
        }
        Ok(toolchain)
    }

    /// `program verb` on probe-ebpf, for hosts of the given kind; more arguments may follow.
    pub fn command(&self, program: &Path, verb: &str, host: Host, target_dir: &Path) -> Command {
        let target = host.bpf_target();
        let mut command = Command::new(program);
        // Variables of an outer cargo or rustup would redirect this one.
        for name in [
            "CARGO_BUILD_RUSTC",
            "CARGO_BUILD_RUSTC_WRAPPER",
            "CARGO_BUILD_TARGET",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTDOC",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            command.env_remove(name);
        }
        command
            .env("CARGO", &self.cargo)
            .env("RUSTC", &self.rustc)
            // Stable compilers refuse `-Z` without it; a nightly ignores it.
            .env("RUSTC_BOOTSTRAP", "1")
            .env(linker_variable(target), &self.linker)
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                [
                    // aya-ebpf lays out `pt_regs` for the machine that the programs run on.
                    format!("--cfg=bpf_target_arch=\"{}\"", host.arch).as_str(),
                    // BTF is generated from debug information.
                    "-Cdebuginfo=2",
                    "-Clink-arg=--btf",
                    // Makes LLVM inline small copies and fills; otherwise each is a call and a loop over bytes.
                    "-Clink-arg=--disable-expand-memcpy-in-order",
                ]
                .join("\x1f"),
            )
            .args([verb, "--quiet", "--package=probe-ebpf", "--release"])
            .args(["-Zbuild-std=core", "--target", target, "--target-dir"])
            .arg(target_dir);
        command
    }
}

/// The machine that will load the programs.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    pub arch: &'a str,
    pub big_endian: bool,
}

impl Host<'_> {
    pub const fn bpf_target(self) -> &'static str {
        if self.big_endian {
            "bpfeb-unknown-none"
        } else {
            "bpfel-unknown-none"
        }
    }
}

/// The target directory of user space.
pub fn cargo_target_dir(workspace: &Path) -> PathBuf {
    // A relative path refers to the directory in which cargo was called, usually the root.
    workspace.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The target directory of the kernel side: one for every profile of user space, so that debug, release and test
/// builds share the object.
pub fn target_dir(workspace: &Path) -> PathBuf {
    cargo_target_dir(workspace).join("ebpf")
}

fn linker_variable(target: &str) -> String {
    let target = target.replace('-', "_").to_uppercase();
    format!("CARGO_TARGET_{target}_LINKER")
}

impl Display for Toolchain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "rustc={}", self.rustc.display())?;
        writeln!(f, "cargo={}", self.cargo.display())?;
        writeln!(f, "linker={}", self.linker.display())?;
        writeln!(f, "release={}", self.release)?;
        writeln!(f, "llvm={}", self.llvm)
    }
}

impl FromStr for Toolchain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find_map(|(name, value)| (name == key).then_some(value))
                .ok_or_else(|| format!("{FILE} has no `{key}`"))
        };
        Ok(Self {
            rustc: value("rustc")?.into(),
            cargo: value("cargo")?.into(),
            linker: value("linker")?.into(),
            release: value("release")?.to_owned(),
            llvm: value("llvm")?
                .parse()
                .map_err(|_| format!("{FILE} has an `llvm` that is no number"))?,
        })
    }
}
