//! Who is told what was found out: somebody who reads it line by line, or a verb that has more to do with it.

use std::{io, net::Ipv4Addr};

use probe_common::{
    event::{ArpEvent, Hook},
    wire::Kind,
};
use probe_model::{CheckRecord, Timestamp};
use probe_prober::ReceivedFrame;

use crate::cli::output::Printer;

/// Frames that are kept: of a handful of addresses more is a flood.
const MAX_FRAMES: usize = 4096;

/// Who is told.
pub enum CheckOutput {
    /// Whoever reads standard output.
    Printer(Printer),
    /// Another verb.
    Collector(CheckCollector),
}

/// What is kept for another verb.
#[derive(Debug, Default)]
pub struct CheckCollector {
    /// What was found out of each address.
    pub records: Vec<CheckRecord>,
    /// The address whose frames are kept as well.
    pub frames_of: Option<Ipv4Addr>,
    /// They, questions included, with the monotonic time of each.
    pub frames: Vec<ArpEvent>,
}

impl CheckOutput {
    /// Takes what was found out.
    pub fn check(&mut self, record: CheckRecord, expected: &str, brief: bool) -> io::Result<()> {
        match self {
            Self::Printer(printer) => printer.check(&record, expected, brief),
            Self::Collector(keeper) => {
                keeper.records.push(record);
                Ok(())
            }
        }
    }

    /// Takes a frame that was heard where it is asked.
    pub fn record_frame(&mut self, heard: &ReceivedFrame, now: Timestamp) {
        let Self::Collector(keeper) = self else {
            return;
        };
        let is_wanted = keeper.frames_of.is_some_and(|ip| {
            let ip = ip.octets();
            heard.frame.spa == ip || heard.frame.tpa == ip
        });
        if is_wanted && keeper.frames.len() < MAX_FRAMES {
            keeper.frames.push(event(heard, now));
        }
    }

    /// Whether people read it.
    pub fn is_human_output(&self) -> bool {
        match self {
            Self::Printer(printer) => printer.is_human_output(),
            Self::Collector(_) => false,
        }
    }

    /// Makes sure that the reader has it.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Printer(printer) => printer.flush(),
            Self::Collector(_) => Ok(()),
        }
    }

    /// Whether somebody sees how it goes.
    pub fn shows_status(&self) -> bool {
        match self {
            Self::Printer(printer) => printer.status.is_possible(),
            Self::Collector(_) => false,
        }
    }

    /// Shows how it goes.
    pub fn show_status(&mut self, text: &str) {
        if let Self::Printer(printer) = self {
            printer.status.show(text);
        }
    }

    /// Makes room for a line.
    pub fn clear_status(&mut self) {
        if let Self::Printer(printer) = self {
            printer.status.clear();
        }
    }
}

/// As the kernel side would have told of it.
fn event(heard: &ReceivedFrame, now: Timestamp) -> ArpEvent {
    let hook = if heard.is_outgoing {
        Hook::TcEgress
    } else {
        Hook::TcIngress
    };
    let kind: Kind = heard.frame.kind();
    ArpEvent {
        ktime_ns: now.0,
        ifindex: heard.ifindex,
        kind: kind.number(),
        hook: hook.number(),
        frame: heard.frame,
        ..ArpEvent::default()
    }
}
