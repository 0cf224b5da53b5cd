//! `cargo xtask build`: builds the release binary.

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

/// Builds the release binary with an existing toolchain.
pub fn release() -> Result<()> {
    step("release build", || {
        step::run(
            host::cargo()
                .args(["rustc", "--release", "--package=probe-user", "--bin=probe"])
                // Static, so that the tested binary runs everywhere, and alone in a container. The flag is only for
                // the last step, linking.
                .args(["--", "-Ctarget-feature=+crt-static"]),
        )
    })
}
