//! The corpus of manifests, for the tests of this crate and of those above it.

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

use crate::{AddressPlan, PoolInventory, PoolsVerdict, check_pools, manifest};

/// The files of a case, as paths below it: those of a cluster are in a folder of its name.
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

/// Reads and judges a case.
pub fn judged(case: &Path) -> (PoolInventory, AddressPlan, PoolsVerdict) {
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
    let verdict = check_pools(&inventory, &plan, 1000);
    (inventory, plan, verdict)
}

/// The folders of all cases.
pub fn cases() -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/corpus");
    let entries = fs::read_dir(corpus).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}
