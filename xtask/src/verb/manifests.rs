//! `cargo xtask manifests`: writes what is generated from the Helm chart.

use std::fs;

use anyhow::{Context as _, Result};
use probe_tests::{Chart, deploy};

use crate::{
    manifests,
    programs::{self, Use},
    python_tools,
    step::say,
};

pub fn run() -> Result<()> {
    programs::ensure(&[Use::Manifests])?;
    python_tools::ensure()?;
    for (place, text) in manifests::generate(&Chart::of_this_repository())? {
        let path = deploy().join(place);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}
