//! What the kernel side added to a frame, as a comment on its packet.
//!
//! Words and numbers, so that people can read it in Wireshark; times are nanoseconds since 1970, like the
//! packet's own.

use std::{fmt, str::FromStr};

use probe_common::{
    event::{ArpEvent, Hook, Sighting},
    wire::MacAddr,
};

/// How a comment of ours begins.
const COMMENT_PREFIX: &str = "probe:";

/// What an [`ArpEvent`] has beyond its frame, its time and its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameComment {
    /// Where the frame was seen.
    pub hook: Hook,
    /// When the request was seen that it answers, or 0.
    pub request_ns: u64,
    /// The claim before it.
    pub previous: Sighting,
}

impl FrameComment {
    /// What is to be noted of an event.
    pub fn of(event: &ArpEvent) -> Self {
        Self {
            hook: event.hook().unwrap_or(Hook::TcIngress),
            request_ns: event.request_ns,
            previous: event.previous,
        }
    }
}

impl fmt::Display for FrameComment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{COMMENT_PREFIX} hook={}", self.hook)?;
        if self.request_ns != 0 {
            write!(f, " answers={}", self.request_ns)?;
        }
        let previous = &self.previous;
        if previous.is_some() {
            write!(
                f,
                " previous={} previous_mac={} previous_kind={}",
                previous.ktime_ns, previous.mac, previous.form
            )?;
            if previous.request_ns != 0 {
                write!(f, " previous_request={}", previous.request_ns)?;
            }
        }
        Ok(())
    }
}

/// The comment is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFrameComment;

impl FromStr for FrameComment {
    type Err = InvalidFrameComment;

    fn from_str(text: &str) -> Result<Self, InvalidFrameComment> {
        let mut hook = None;
        let mut request_ns = 0;
        let mut previous = Sighting::default();
        for word in text
            .strip_prefix(COMMENT_PREFIX)
            .ok_or(InvalidFrameComment)?
            .split_ascii_whitespace()
        {
            let (name, value) = word.split_once('=').ok_or(InvalidFrameComment)?;
            match name {
                "hook" => hook = Hook::ALL.iter().copied().find(|hook| hook.label() == value),
                "answers" => request_ns = number(value)?,
                "previous" => previous.ktime_ns = number(value)?,
                "previous_mac" => {
                    previous.mac = value.parse::<MacAddr>().map_err(|_| InvalidFrameComment)?;
                }
                "previous_kind" => previous.form = number(value)?,
                "previous_request" => previous.request_ns = number(value)?,
                // A newer version may have more to say.
                _ => {}
            }
        }
        Ok(Self {
            hook: hook.ok_or(InvalidFrameComment)?,
            request_ns,
            previous,
        })
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, InvalidFrameComment> {
    text.parse().map_err(|_| InvalidFrameComment)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_note_reads_back_what_it_says(
            hook in prop::sample::select(Hook::ALL), request_ns: u64, ktime_ns: u64, mac: [u8; 6],
            form: u8, previous_request: u64,
        ) {
            let previous = if ktime_ns == 0 {
                Sighting::default()
            } else {
                Sighting {
                    ktime_ns,
                    request_ns: previous_request,
                    mac: MacAddr(mac),
                    form,
                    padding: 0,
                }
            };
            let note = FrameComment { hook, request_ns, previous };
            prop_assert_eq!(note.to_string().parse(), Ok(note));
        }

        #[test]
        fn other_comments_are_none(text: String) {
            let _: Result<FrameComment, InvalidFrameComment> = text.parse();
            let _: Result<FrameComment, InvalidFrameComment> = format!("{COMMENT_PREFIX} {text}").parse();
        }
    }
}
