//! The stages of a long verb, with their estimated and elapsed time.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::step::{log, step};

/// A part of a verb.
pub struct Stage {
    pub name: &'static str,
    /// Its duration on two idle cores, with nothing built before.
    pub minutes: u32,
}

/// The progress of a verb through its stages.
pub struct Stages {
    all: &'static [Stage],
    done: usize,
    started: Instant,
}

impl Stages {
    /// Prints the stages with their estimates.
    pub fn start(all: &'static [Stage]) -> Self {
        log(&overview(all));
        Self {
            all,
            done: 0,
            started: Instant::now(),
        }
    }

    /// Runs the next stage.
    pub fn next<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(stage) = self.all.get(self.done) else {
            return work();
        };
        log(&announcement(self.all, self.done, self.started.elapsed()));
        self.done += 1;
        step(stage.name, work)
    }
}

fn overview(all: &[Stage]) -> String {
    let mut line = format!("{} stages, estimated for two idle cores:", all.len());
    for stage in all {
        // Writing to a string cannot fail.
        let _ = write!(line, " {} {} min,", stage.name, stage.minutes);
    }
    let total: u32 = all.iter().map(|stage| stage.minutes).sum();
    line + &format!(" together {total} min")
}

fn announcement(all: &[Stage], number: usize, elapsed: Duration) -> String {
    let left: u32 = all[number..].iter().map(|stage| stage.minutes).sum();
    format!(
        "stage {} of {}: {} (started after {} min, about {left} min left)",
        number + 1,
        all.len(),
        all[number].name,
        elapsed.as_secs() / 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Stage; 2] = [
        Stage {
            name: "lint",
            minutes: 3,
        },
        Stage {
            name: "tests",
            minutes: 8,
        },
    ];

    #[test]
    fn stages_are_printed_with_their_estimates() {
        assert_eq!(
            overview(&ALL),
            "2 stages, estimated for two idle cores: lint 3 min, tests 8 min, together 11 min"
        );
        assert_eq!(
            announcement(&ALL, 1, Duration::from_secs(200)),
            "stage 2 of 2: tests (started after 3 min, about 8 min left)"
        );
    }
}
