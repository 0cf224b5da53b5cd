//! `cargo xtask kernels`: the tests of the kernel matrix alone.

#![allow(
    clippy::print_stdout,
    reason = "the sum of the results is this verb's result"
)]

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    kernels::{self, MATRIX, binaries},
    programs::{self, Use},
    step::step,
    test_totals::TestTotals,
    toolchain,
    verb::{build, test},
};

pub fn run(versions: Vec<String>) -> Result<ExitCode> {
    toolchain::ensure()?;
    programs::ensure(&[Use::Test])?;
    build::release()?;
    let mut test_totals = TestTotals::default();
    let all_well = matrix(versions, &mut test_totals)?;
    println!("{test_totals}");
    Ok(if all_well && test_totals.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the tests on these kernels, or on the whole matrix, with the existing release build.
pub fn matrix(mut versions: Vec<String>, test_totals: &mut TestTotals) -> Result<bool> {
    programs::ensure(&[Use::Guest])?;
    let tests = step("test build for guests", || binaries::build(test::tests()))?;
    if versions.is_empty() {
        versions.extend(MATRIX.map(str::to_owned));
    }
    kernels::run(&versions, &tests, test_totals)
}
