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
        step::run(
            host::cargo()
                .args(["rustc", "--release", "--package=probe-user", "--bin=probe"])
                // Static, so that what is tested here runs everywhere, and alone in a container. The flag is
                // for the last step only, where it counts: that is linking.
                .args(["--", "-Ctarget-feature=+crt-static"]),
        )
    })
}
