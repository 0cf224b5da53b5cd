//! The outputs of a check: standard output, or the records for another command.

use std::{io, net::Ipv4Addr};

use probe_common::{
    event::{ArpEvent, Hook},
    wire::FrameKind,
};
use probe_model::{CheckRecord, Timestamp};
use probe_prober::ReceivedFrame;

use crate::cli::output::Printer;

/// Maximum number of kept frames; more for a few addresses are a flood.
const MAX_FRAMES: usize = 4096;

/// The output of a check.
pub enum CheckOutput {
    /// Prints to standard output.
    Printer(Printer),
    /// Keeps the records for another command.
    Collector(CheckCollector),
}

/// The records of a check for another command.
#[derive(Debug, Default)]
pub struct CheckCollector {
    /// The record of each address.
    pub records: Vec<CheckRecord>,
    /// The address whose frames are kept too.
    pub frames_of: Option<Ipv4Addr>,
    /// Its frames, probes included, with the monotonic time of each.
    pub frames: Vec<ArpEvent>,
}

impl CheckOutput {
    /// Prints or keeps a record.
    pub fn check(&mut self, record: CheckRecord, expected: &str, brief: bool) -> io::Result<()> {
        match self {
            Self::Printer(printer) => printer.check(&record, expected, brief),
            Self::Collector(collector) => {
                collector.records.push(record);
                Ok(())
            }
        }
    }

    /// Keeps a received frame if it is about the address `frames_of`.
    pub fn record_frame(&mut self, received: &ReceivedFrame, now: Timestamp) {
        let Self::Collector(collector) = self else {
            return;
        };
        let is_wanted = collector.frames_of.is_some_and(|ip| {
            let ip = ip.octets();
            received.frame.spa == ip || received.frame.tpa == ip
        });
        if is_wanted && collector.frames.len() < MAX_FRAMES {
            collector.frames.push(event(received, now));
        }
    }

    /// Whether the records are printed.
    pub const fn is_printed(&self) -> bool {
        matches!(self, Self::Printer(_))
    }

    /// Whether the output is text for people.
    pub fn is_human_output(&self) -> bool {
        match self {
            Self::Printer(printer) => printer.is_human_output(),
            Self::Collector(_) => false,
        }
    }

    /// Flushes what was printed.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Printer(printer) => printer.flush(),
            Self::Collector(_) => Ok(()),
        }
    }

    /// Whether a status line is shown.
    pub fn shows_status(&self) -> bool {
        match self {
            Self::Printer(printer) => printer.status.is_possible(),
            Self::Collector(_) => false,
        }
    }

    /// Shows the status line.
    pub fn show_status(&mut self, text: &str) {
        if let Self::Printer(printer) = self {
            printer.status.show(text);
        }
    }

    /// Clears the status line.
    pub fn clear_status(&mut self) {
        if let Self::Printer(printer) = self {
            printer.status.clear();
        }
    }
}

/// The event that the kernel side would have emitted for the frame.
fn event(received: &ReceivedFrame, now: Timestamp) -> ArpEvent {
    let hook = if received.is_outgoing {
        Hook::TcEgress
    } else {
        Hook::TcIngress
    };
    let kind: FrameKind = received.frame.kind();
    ArpEvent {
        ktime_ns: now.0,
        ifindex: received.ifindex,
        kind: kind.number(),
        hook: hook.number(),
        frame: received.frame,
        ..ArpEvent::default()
    }
}
