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
    step::{self, say},
    tally::Tally,
    toolchain,
    verb::{build, dist, kernels, lint, setup},
};

/// What the verb does, in this order.
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

/// Runs in a PID namespace of its own, in which executed programs are recorded.
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

    // Two profiles on purpose. The end-to-end tests run the binary that people run. The tests
    // themselves want the dev profile's overflow and debug assertions; compiling the dependencies
    // for it costs about what linking every test binary with LTO would.
    stages.next(build::release)?;
    stages.next(dist::assemble)?;
    stages.next(|| step::run(tests().arg("--no-run")))?;
    let (mut tally, mut all_well) = stages.next(run_tests)?;
    all_well &= stages.next(|| kernels::matrix(Vec::new(), &mut tally))?;
    println!("{tally}");
    recording.map_or(Ok(()), Recording::finish)?;
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
            if line.starts_with("test result: ") {
                say(&format!("{tally} so far"));
            }
        }
    }
    let status = runner.wait().context("cannot wait for cargo test")?;
    Ok((tally, status.success()))
}
