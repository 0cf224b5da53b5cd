//! The status line at the bottom of a terminal, which shows activity while there are no findings.

use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use probe_render::layout;

use crate::daemon::serve::StatusRecord;

/// Moves to the start of the line and clears it.
const CLEAR: &str = "\r\u{1b}[2K";

/// A line on standard error that is cleared before other output. Without a terminal it is never shown.
#[derive(Debug)]
pub struct StatusLine {
    terminal: bool,
    shown: bool,
}

impl Default for StatusLine {
    fn default() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            terminal: io::stderr().is_terminal() && !dumb,
            shown: false,
        }
    }
}

impl StatusLine {
    /// Whether it can be shown.
    pub fn is_possible(&self) -> bool {
        self.terminal
    }

    /// Shows this text instead of the previous one.
    pub fn show(&mut self, text: &str) {
        if !self.terminal {
            return;
        }
        let size = terminal_size::terminal_size_of(io::stderr());
        let width = size.map_or(80, |(width, _)| usize::from(width.0));
        // A full line would make some terminals wrap.
        let text = layout::truncate_to_width(text, width.saturating_sub(1));
        let mut out = io::stderr().lock();
        let _ = write!(out, "{CLEAR}{text}").and_then(|()| out.flush());
        self.shown = true;
    }

    /// Clears the line.
    pub fn clear(&mut self) {
        if self.shown {
            let mut out = io::stderr().lock();
            let _ = write!(out, "{CLEAR}").and_then(|()| out.flush());
            self.shown = false;
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The status of the monitor in one line.
pub fn text(status: &StatusRecord, now: Timestamp) -> String {
    let interfaces = status.interfaces.iter().map(|interface| {
        let mode = interface.mode.as_deref().unwrap_or("NOT WATCHED");
        format!("{} ({mode})", interface.interface)
    });
    let interfaces: Vec<_> = interfaces.collect();
    let interfaces = if interfaces.is_empty() {
        "no interface".to_owned()
    } else {
        interfaces.join(", ")
    };
    let last = match status.last_frame {
        Some(last) => format!("last frame {} ago", age(now.duration_since(last))),
        None => "no frame yet".to_owned(),
    };
    format!(
        "{interfaces}: {}, {}, {last}",
        pluralise(status.addresses, "address", "addresses"),
        pluralise(status.conflicts, "conflict", "conflicts"),
    )
}

fn pluralise(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A time span in its largest unit.
pub fn age(span: jiff::SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::serve::{InterfaceRecord, LinkState};

    fn interface(name: &str, mode: Option<&str>) -> InterfaceRecord {
        InterfaceRecord {
            interface: name.to_owned(),
            index: 1,
            mode: mode.map(str::to_owned),
            vlan_visible: None,
            link: LinkState::Up,
            error: None,
            received: 0,
            sent: 0,
        }
    }

    #[test]
    fn status_line_shows_interfaces_and_age_of_the_last_frame() {
        let now: Timestamp = "2026-11-20T02:13:07Z".parse().unwrap();
        let mut status = StatusRecord {
            interfaces: vec![interface("eth0", Some("native")), interface("eth1", None)],
            addresses: 17,
            conflicts: 1,
            last_frame: "2026-11-20T02:13:05.2Z".parse().ok(),
        };
        assert_eq!(
            text(&status, now),
            "eth0 (native), eth1 (NOT WATCHED): 17 addresses, 1 conflict, last frame 1 s ago"
        );
        status.last_frame = None;
        status.interfaces.clear();
        assert_eq!(
            text(&status, now),
            "no interface: 17 addresses, 1 conflict, no frame yet"
        );
    }

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, expected) in [
            (-5, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7200, "2 h"),
            (200_000, "2 days"),
        ] {
            assert_eq!(age(jiff::SignedDuration::from_secs(seconds)), expected);
        }
    }
}
