//! The metadata of an event beyond its frame, as a packet comment.
//!
//! The comment is text, so that it is readable in Wireshark. Times are nanoseconds since 1970, like the time of the packet.

use std::{fmt, str::FromStr};

use probe_common::{
    event::{ArpEvent, ClaimObservation, Hook},
    wire::MacAddr,
};

/// The prefix of comments of this program.
const COMMENT_PREFIX: &str = "probe:";

/// The fields of an [`ArpEvent`] beyond its frame, its time and its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameComment {
    /// The hook that observed the frame.
    pub hook: Hook,
    /// The time of the request that the frame replies to, or 0.
    pub request_ns: u64,
    /// The previous claim.
    pub previous: ClaimObservation,
}

impl FrameComment {
    /// The comment for an event.
    pub fn from_event(event: &ArpEvent) -> Self {
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
            write!(f, " request={}", self.request_ns)?;
        }
        let previous = &self.previous;
        if previous.is_some() {
            write!(
                f,
                " previous={} previous_mac={} previous_flags={}",
                previous.ktime_ns, previous.mac, previous.flags
            )?;
            if previous.request_ns != 0 {
                write!(f, " previous_request={}", previous.request_ns)?;
            }
        }
        Ok(())
    }
}

/// The comment is not a frame comment of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFrameComment;

impl FromStr for FrameComment {
    type Err = InvalidFrameComment;

    fn from_str(text: &str) -> Result<Self, InvalidFrameComment> {
        let mut hook = None;
        let mut request_ns = 0;
        let mut previous = ClaimObservation::default();
        for word in text
            .strip_prefix(COMMENT_PREFIX)
            .ok_or(InvalidFrameComment)?
            .split_ascii_whitespace()
        {
            let (name, value) = word.split_once('=').ok_or(InvalidFrameComment)?;
            match name {
                "hook" => hook = Hook::ALL.iter().copied().find(|hook| hook.label() == value),
                "request" => request_ns = number(value)?,
                "previous" => previous.ktime_ns = number(value)?,
                "previous_mac" => {
                    previous.mac = value.parse::<MacAddr>().map_err(|_| InvalidFrameComment)?;
                }
                "previous_flags" => previous.flags = number(value)?,
                "previous_request" => previous.request_ns = number(value)?,
                // Newer versions may add fields.
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
        fn the_text_form_of_a_comment_parses_to_the_comment(
            hook in prop::sample::select(Hook::ALL), request_ns: u64, ktime_ns: u64, mac: [u8; 6],
            flags: u8, previous_request: u64,
        ) {
            let previous = if ktime_ns == 0 {
                ClaimObservation::default()
            } else {
                ClaimObservation {
                    ktime_ns,
                    request_ns: previous_request,
                    mac: MacAddr(mac),
                    flags,
                    padding: 0,
                }
            };
            let comment = FrameComment { hook, request_ns, previous };
            prop_assert_eq!(comment.to_string().parse(), Ok(comment));
        }

        #[test]
        fn no_other_comment_causes_a_panic(text: String) {
            let _: Result<FrameComment, InvalidFrameComment> = text.parse();
            let _: Result<FrameComment, InvalidFrameComment> = format!("{COMMENT_PREFIX} {text}").parse();
        }
    }
}
