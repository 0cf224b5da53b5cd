//! `cargo xtask manifests`: writes the files that are generated from the Helm chart.

use std::fs;

use anyhow::{Context as _, Result};
use probe_tests::{Chart, deploy};

use crate::{
    manifests,
    programs::{self, Use},
    python_tools,
    step::log,
};

pub fn run() -> Result<()> {
    programs::ensure(&[Use::Manifests])?;
    python_tools::ensure()?;
    for (relative, text) in manifests::generate(&Chart::of_this_repository())? {
        let path = deploy().join(relative);
        if fs::read_to_string(&path).is_ok_and(|existing| existing == text) {
            continue;
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        log(&format!("wrote {}", path.display()));
    }
    Ok(())
}
