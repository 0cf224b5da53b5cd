//! Prints the running step and its duration.

#![allow(
    clippy::print_stderr,
    reason = "progress goes to the terminal; stdout belongs to the commands"
)]

use std::{
    ffi::OsStr,
    path::Path,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// Runs a named step and prints its result and duration.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    log(name);
    let started = Instant::now();
    let outcome = work();
    let result = if outcome.is_ok() { "done" } else { "failed" };
    log(&format!(
        "{name}: {result} in {:.1} s",
        started.elapsed().as_secs_f32()
    ));
    outcome
}

/// Runs a long step and prints its progress periodically.
pub fn slow_step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    const SILENCE: Duration = Duration::from_secs(10);
    step(name, || {
        thread::scope(|scope| {
            let started = Instant::now();
            let (finished, wait) = mpsc::channel::<()>();
            scope.spawn(move || {
                while wait.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
                    log(&format!("{name}: {} s", started.elapsed().as_secs()));
                }
            });
            let outcome = work();
            drop(finished);
            outcome
        })
    })
}

/// Prints a line with an arrow, which distinguishes it from the output of tools.
pub fn log(line: &str) {
    eprintln!("==> {line}");
}

/// Runs a command whose output is for the person at the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// The command line as a user would type it.
fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words: Vec<_> = program
        .file_name()
        .into_iter()
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}
