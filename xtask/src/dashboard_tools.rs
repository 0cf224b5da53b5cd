//! The tools that check the dashboard: TypeScript and Grafana's schema from npm's registry, in the tool cache.
//! Their versions are pinned in `tests/dashboard`.

use std::{fs, path::Path, process};

use anyhow::{Context as _, Result};
use probe_tests::DASHBOARD;

use crate::{
    cache, host, python_tools,
    step::{self, slow_step},
};

/// The files that pin the versions.
const LOCK: [&str; 2] = ["package.json", "package-lock.json"];

/// Fetches them, unless they are there.
pub fn ensure() -> Result<()> {
    let directory = cache::directory()?.join(DASHBOARD);
    let pinned = host::workspace().join("tests/dashboard");
    if LOCK
        .iter()
        .all(|file| is_same(&pinned.join(file), &directory.join(file)))
    {
        return Ok(());
    }
    slow_step("npm ci", || {
        // Complete or absent, also after an interruption.
        let unfinished = directory.with_extension(process::id().to_string());
        fs::create_dir_all(&unfinished)
            .with_context(|| format!("cannot make {}", unfinished.display()))?;
        for file in LOCK {
            fs::copy(pinned.join(file), unfinished.join(file))
                .with_context(|| format!("cannot copy {file}"))?;
        }
        step::run(
            python_tools::command("npm")?
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .arg("--loglevel=error")
                .current_dir(&unfinished),
        )?;
        host::replace_directory(&unfinished, &directory)
    })
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}
