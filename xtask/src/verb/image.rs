//! `cargo xtask image`: builds the container image from the tested binary.

use anyhow::Result;

use crate::{
    image,
    programs::{self, Use},
    step::log,
    verb::build,
};

pub fn run() -> Result<()> {
    programs::ensure(&[Use::Image])?;
    build::run()?;
    let image = image::build()?;
    log(&format!(
        "{} is {}: {:.1} MiB to pull, {:.1} MiB unpacked",
        image.name,
        image.layout.display(),
        mebibytes(image.compressed),
        mebibytes(image.unpacked),
    ));
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sizes for a person to read, far below 2^52"
)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
