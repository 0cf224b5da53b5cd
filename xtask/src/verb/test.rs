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
    executions::{self, Recording},
    host,
    stages::{Stage, Stages},
    step::{self, log},
    test_totals::TestTotals,
    toolchain,
    verb::{build, dist, kernels, lint, setup},
};

/// The stages of the verb, in this order.
const STAGES: [Stage; 7] = [
    Stage {
        name: "set-up",
        minutes: 1,
    },
    Stage {
        name: "lint",
        minutes: 4,
    },
    Stage {
        name: "release build",
        minutes: 4,
    },
    Stage {
        name: "distribution",
        minutes: 1,
    },
    Stage {
        name: "test build",
        minutes: 4,
    },
    Stage {
        name: "tests",
        minutes: 7,
    },
    Stage {
        name: "tests on other kernels",
        minutes: 2,
    },
];

/// Runs in a separate PID namespace, in which executed programs are recorded.
pub fn run(in_namespace: bool) -> Result<ExitCode> {
    ensure!(
        host::is_root(),
        "the tests make network namespaces and load eBPF programs, which needs root: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask test`"
    );
    if !in_namespace {
        executions::enter_namespace(&["test", "--in-namespace"])?;
    }
    let mut stages = Stages::start(&STAGES);
    let recording = Recording::start()?;
    let toolchain = stages.next(|| {
        let toolchain = toolchain::ensure()?;
        toolchain::ensure_clippy(&toolchain)?;
        setup::ensure_for_tests()?;
        Ok(toolchain)
    })?;
    stages.next(|| lint::check(&toolchain))?;

    // Two profiles on purpose: the end-to-end tests run the release binary, while the tests themselves use the
    // overflow and debug assertions of the dev profile. Compiling the dependencies for it costs about as much as
    // linking every test binary with LTO.
    stages.next(build::release)?;
    stages.next(dist::assemble)?;
    stages.next(|| step::run(tests().arg("--no-run")))?;
    let (mut test_totals, mut all_well) = stages.next(run_tests)?;
    all_well &= stages.next(|| kernels::matrix(Vec::new(), &mut test_totals))?;
    println!("{test_totals}");
    recording.map_or(Ok(()), Recording::finish)?;
    Ok(if all_well && test_totals.is_success() {
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

/// Runs the tests, prints the runner's lines, and sums up its results.
fn run_tests() -> Result<(TestTotals, bool)> {
    let mut runner = tests()
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let mut test_totals = TestTotals::default();
    if let Some(stdout) = runner.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what the test runner prints")?;
            println!("{line}");
            test_totals.observe(&line);
            if line.starts_with("test result: ") {
                log(&format!("{test_totals} so far"));
            }
        }
    }
    let status = runner.wait().context("cannot wait for cargo test")?;
    Ok((test_totals, status.success()))
}
