//! Compiles the eBPF programs and leaves the object at `$OUT_DIR/probe-ebpf.o`, to be embedded.
//!
//! Cargo cannot compile them as a dependency, because they require another compiler, target and linker than the rest of
//! the workspace. `cargo xtask setup` finds these.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a build script communicates with cargo by its output"
)]

#[path = "../../xtask/src/ebpf.rs"]
mod ebpf;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use ebpf::{Host, Toolchain};

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nerror: {why}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir.ancestors().nth(2).unwrap_or(&manifest_dir);
    for input in [
        "probe-ebpf",
        "probe-common",
        "Cargo.toml",
        "Cargo.lock",
        ebpf::FILE,
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(input).display()
        );
    }
    let object = compile(workspace)?;
    let destination = Path::new(&variable("OUT_DIR")?).join("probe-ebpf.o");
    fs::copy(&object, &destination)
        .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    Ok(())
}

fn compile(workspace: &Path) -> Result<PathBuf, String> {
    let toolchain = Toolchain::read(workspace)?;
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let host = Host {
        arch: &arch.to_string_lossy(),
        big_endian: variable("CARGO_CFG_TARGET_ENDIAN")? == "big",
    };
    let target_dir = ebpf::target_dir(workspace);
    // The compiler's messages go to this script's stderr, which cargo shows when it fails.
    let status = toolchain
        .command(&toolchain.cargo, "build", host, &target_dir)
        .current_dir(workspace)
        .status()
        .map_err(|error| format!("cannot run {}: {error}", toolchain.cargo.display()))?;
    if !status.success() {
        return Err(
            "the eBPF programs do not build; the messages of their compiler are above. If the compiler was \
             upgraded, run `cargo xtask setup`"
                .to_owned(),
        );
    }
    Ok(target_dir
        .join(host.bpf_target())
        .join("release")
        .join("probe-ebpf"))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo has not set {name}"))
}
