//! The test binary for guests.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::host;

/// Tests that hold on every kernel, and tests of devices that only guests have.
const TESTS: [&str; 1] = ["guests"];

/// The relevant fields of a message of cargo.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the binaries with `tests`, a `cargo test` of the workspace, and returns their paths.
pub fn build(mut tests: Command) -> Result<Vec<PathBuf>> {
    for test in TESTS {
        tests.args(["--test", test]);
    }
    let messages = host::output_of(
        tests
            .args(["--no-run", "--message-format=json-render-diagnostics"])
            .stderr(std::process::Stdio::inherit()),
    )
    .context("the tests do not build; the compiler's messages are above")?;
    let binaries = executables(&messages);
    ensure!(
        binaries.len() == TESTS.len(),
        "of the tests {TESTS:?} cargo built {binaries:?}"
    );
    Ok(binaries)
}

fn executables(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| {
            message
                .target
                .as_ref()
                .is_some_and(|target| TESTS.contains(&target.name.as_str()))
        })
        .filter_map(|message| message.executable)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_of_these_tests_are_picked() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"anyhow"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"probe"},"executable":"/t/probe"}
{"reason":"compiler-artifact","target":{"name":"guests"},"executable":"/t/guests-1"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executables(messages), [PathBuf::from("/t/guests-1")]);
    }
}
