//! `cargo xtask test`: what CI runs.

#![allow(
    clippy::print_stdout,
    reason = "the test runner's lines are this verb's result"
)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    host, image, kube_apiserver, manifest_tools, packages,
    step::{self, step},
    tally::Tally,
    toolchain,
    verb::{build, kernels, lint},
};

pub fn run() -> Result<ExitCode> {
    ensure!(
        host::is_root(),
        "the tests make network namespaces and load eBPF programs, which needs root: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask test`"
    );
    let toolchain = toolchain::ensure()?;
    toolchain::ensure_clippy(&toolchain)?;
    packages::ensure_for_tests()?;
    manifest_tools::ensure()?;
    kube_apiserver::ensure()?;
    lint::check(&toolchain)?;

    // Two profiles on purpose. The end-to-end tests run the binary that people run. The tests
    // themselves want the dev profile's overflow and debug assertions; compiling the dependencies
    // for it costs about what linking every test binary with LTO would.
    build::release()?;
    image::build()?;
    step("test build", || step::run(tests().arg("--no-run")))?;
    let (mut tally, mut all_well) = step("tests", run_tests)?;
    all_well &= kernels::matrix(Vec::new(), &mut tally)?;
    println!("{tally}");
    Ok(if all_well && tally.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A run of all tests.
pub fn tests() -> Command {
    let mut command = host::cargo();
    command.args([
        "test",
        "--workspace",
        "--exclude=probe-ebpf",
        "--no-fail-fast",
    ]);
    command
}

/// Runs the tests, passes the runner's lines on, and adds up its results.
fn run_tests() -> Result<(Tally, bool)> {
    let mut runner = tests()
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let mut tally = Tally::default();
    if let Some(stdout) = runner.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what the test runner prints")?;
            println!("{line}");
            tally.observe(&line);
        }
    }
    let status = runner.wait().context("cannot wait for cargo test")?;
    Ok((tally, status.success()))
}
