//! Reads a capture.

use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use probe_capture::{CaptureReader, CaptureStatistics, Playback, PlaybackEvent};
use probe_model::{Clock, FindingOrigin};

use super::{WatchArguments, WatchPrinter};
use crate::cli::{Exit, output::print_status};

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// The interval at which the status line is redrawn.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

pub fn run(path: &Path, arguments: &WatchArguments) -> anyhow::Result<Exit> {
    let about = || format!("{}", path.display());
    let (source, size): (Box<dyn Read + Send>, u64) = if path.as_os_str() == STANDARD_INPUT {
        (Box::new(io::stdin()), 0)
    } else {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        (Box::new(file), size)
    };
    let reader = CaptureReader::new(source).with_context(about)?;
    let interrupted = interrupts()?;
    let mut show = WatchPrinter::new(arguments, FindingOrigin::Capture(path.to_owned()))?;
    let mut failed = Ok(());
    let mut drawn = Instant::now();

    let config = arguments.source.detect_config();
    let playback = Playback::new(reader, config, arguments.claims);
    let (statistics, outcome) = playback.run(|progress| {
        let written = match progress {
            PlaybackEvent::Finding(record) => show.finding(&record, None),
            PlaybackEvent::Claim(record) => show.claim(&record),
            PlaybackEvent::Undecided(bindings, end) => {
                show.undecided(&bindings, Clock::Epoch.to_wall_clock(end))
            }
            PlaybackEvent::BytesRead(statistics) => {
                if drawn.elapsed() >= STATUS_INTERVAL {
                    drawn = Instant::now();
                    show.printer.status.show(&progress_text(statistics, size));
                }
                Ok(())
            }
        };
        failed = written;
        if failed.is_err() || show.is_done() || interrupted.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    failed.context("cannot write to standard output")?;
    let for_people = show.printer.is_human_output();
    let exit = show.end().context("cannot write to standard output")?;
    if for_people || outcome.is_err() {
        print_status(&read_text(statistics));
    }
    outcome.with_context(about)?;
    Ok(exit)
}

/// A flag set by Ctrl-C, so that the summary is still printed.
fn interrupts() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())
            .context("cannot wait for signals")?;
    }
    Ok(interrupted)
}

/// Of a file, how much was read; a compressed one has more bytes than its size, and a pipe has no size.
fn progress_text(statistics: CaptureStatistics, size: u64) -> String {
    let read = read_text(statistics);
    match statistics.bytes.saturating_mul(100).checked_div(size) {
        Some(percent @ 0..=100) => format!("{percent} % read: {read}"),
        _ => format!("read: {read}"),
    }
}

fn read_text(statistics: CaptureStatistics) -> String {
    let CaptureStatistics {
        packets,
        frames,
        malformed,
        other_link_type_packets,
        untimed_packets,
        bytes: _,
    } = statistics;
    let parts = [
        (packets, "packets"),
        (frames, "of them ARP"),
        (malformed, "malformed"),
        (other_link_type_packets, "not of Ethernet interfaces"),
        (untimed_packets, "without a time stamp"),
    ];
    // The first two are always shown.
    let shown = parts.iter().enumerate();
    let shown = shown.filter(|(place, (number, _))| *place < 2 || *number > 0);
    let shown: Vec<_> = shown
        .map(|(_, (number, what))| format!("{number} {what}"))
        .collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_for_files_and_pipes() {
        let statistics = CaptureStatistics {
            bytes: 50,
            packets: 7,
            frames: 3,
            malformed: 1,
            other_link_type_packets: 2,
            untimed_packets: 0,
        };
        assert_eq!(
            progress_text(statistics, 200),
            "25 % read: 7 packets, 3 of them ARP, 1 malformed, 2 not of Ethernet interfaces"
        );
        assert!(progress_text(statistics, 0).starts_with("read: 7 packets"));
        // A compressed file.
        assert!(progress_text(statistics, 20).starts_with("read: 7 packets"));
    }
}
