//! `cargo xtask build`: the binary that people run.

use anyhow::Result;

use crate::{
    host,
    step::{self, step},
    toolchain,
};

pub fn run() -> Result<()> {
    toolchain::ensure()?;
    release()
}

/// The release build alone, once the toolchain is there.
pub fn release() -> Result<()> {
    step("release build", || {
        step::run(host::cargo().args(["build", "--release", "--package=probe-user"]))
    })
}
