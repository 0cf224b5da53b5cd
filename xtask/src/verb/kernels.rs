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
    tally::Tally,
    toolchain,
    verb::{build, test},
};

pub fn run(versions: Vec<String>) -> Result<ExitCode> {
    toolchain::ensure()?;
    programs::ensure(&[Use::Test])?;
    build::release()?;
    let mut tally = Tally::default();
    let all_well = matrix(versions, &mut tally)?;
    println!("{tally}");
    Ok(if all_well && tally.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The tests on these kernels, or else on all of the matrix; the release build is there.
pub fn matrix(mut versions: Vec<String>, tally: &mut Tally) -> Result<bool> {
    programs::ensure(&[Use::Guest])?;
    let tests = step("test build for guests", || binaries::build(test::tests()))?;
    if versions.is_empty() {
        versions.extend(MATRIX.map(str::to_owned));
    }
    kernels::run(&versions, &tests, tally)
}
