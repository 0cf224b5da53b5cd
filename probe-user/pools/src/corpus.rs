//! Helpers for the corpus of manifests, for the tests of this crate and its users.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{AddressPlan, PoolInventory, PoolsEvaluation, check_pools, manifest};

/// The files of a case, relative to it. The files of a cluster are in a directory of its name.
pub fn files(case: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(case, &path));
        } else {
            found.push(path.strip_prefix(case).unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// Reads and evaluates a case.
pub fn evaluated(case: &Path) -> (PoolInventory, AddressPlan, PoolsEvaluation) {
    let mut inventory = PoolInventory::default();
    let mut plan = AddressPlan::default();
    for file in files(case, case) {
        let text = fs::read_to_string(case.join(&file)).unwrap();
        let name = file.to_str().unwrap();
        match file.parent().and_then(Path::to_str) {
            Some("") => plan = AddressPlan::read(&mut inventory, name, &text),
            Some(cluster) => manifest::read(&mut inventory, cluster, name, &text),
            None => panic!("{name}"),
        }
    }
    let evaluation = check_pools(&inventory, &plan, 1000);
    (inventory, plan, evaluation)
}

/// The directories of all cases.
pub fn cases() -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/corpus");
    let entries = fs::read_dir(corpus).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}
