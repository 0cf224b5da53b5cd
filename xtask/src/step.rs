//! Tells the person waiting what runs and how long it took.

#![allow(
    clippy::print_stderr,
    reason = "progress is for the person at the terminal; stdout belongs to what is run"
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

/// Does one named thing and says how it went.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(name);
    let started = Instant::now();
    let outcome = work();
    let verdict = if outcome.is_ok() { "done" } else { "failed" };
    say(&format!(
        "{name}: {verdict} in {:.1} s",
        started.elapsed().as_secs_f32()
    ));
    outcome
}

/// A step that says nothing for long: shows that it is still at work.
pub fn slow_step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    const SILENCE: Duration = Duration::from_secs(10);
    step(name, || {
        thread::scope(|scope| {
            let started = Instant::now();
            let (finished, wait) = mpsc::channel::<()>();
            scope.spawn(move || {
                while wait.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
                    say(&format!("{name}: {} s", started.elapsed().as_secs()));
                }
            });
            let outcome = work();
            drop(finished);
            outcome
        })
    })
}

/// A line among what the tools print, told apart by its arrow.
pub fn say(line: &str) {
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

/// As a person would type it.
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
