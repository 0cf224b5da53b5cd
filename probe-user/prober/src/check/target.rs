//! The targets of a check, as given on the command line.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;

/// A target of a check: `192.0.2.7`, `192.0.2.0/24`, `192.0.2.10-192.0.2.20` or `192.0.2.10-20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One address.
    Address(Ipv4Addr),
    /// A range, from the first to the last address.
    Range(Ipv4Addr, Ipv4Addr),
}

/// Why a text is not a valid target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// An IPv6 address.
    #[error("{0} is IPv6, which has no ARP: only IPv4 addresses can be checked")]
    Ipv6(String),
    /// A range whose end is before its start.
    #[error("the end of {0} is before its start")]
    Reversed(String),
    /// Any other text.
    #[error(
        "{0:?} is not an address, network (192.0.2.0/24), range (192.0.2.10-192.0.2.20, 192.0.2.10-20) or file"
    )]
    Malformed(String),
    /// A target with addresses that no host can have.
    #[error("{target} includes {address}, which no host can own: it is {what}")]
    Special {
        /// The text of the target.
        target: String,
        /// The first such address.
        address: Ipv4Addr,
        /// The kind of address.
        what: &'static str,
    },
}

/// The maximum number of characters of an invalid target in an error.
const MAX_SHOWN_CHARS: usize = 60;

/// The ranges of addresses that no host on a segment can own (RFC 1122 section 3.2.1.3, RFC 5771).
const SPECIAL: [(u32, u32, &str); 4] = [
    (0x0000_0000, 0x00ff_ffff, "of \"this network\", 0.0.0.0/8"),
    (0x7f00_0000, 0x7fff_ffff, "a loopback address"),
    (0xe000_0000, 0xefff_ffff, "a group address"),
    (0xffff_ffff, 0xffff_ffff, "the broadcast address"),
];

impl Target {
    /// The first and the last address, as numbers.
    pub fn bounds(self) -> (u32, u32) {
        let (first, last) = match self {
            Self::Address(address) => (address, address),
            Self::Range(first, last) => (first, last),
        };
        (first.into(), last.into())
    }

    fn from_bounds(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        if first == last {
            Self::Address(first)
        } else {
            Self::Range(first, last)
        }
    }

    fn parse(text: &str) -> Option<Result<Self, InvalidTarget>> {
        if let Ok(address) = text.parse() {
            return Some(Ok(Self::Address(address)));
        }
        if let Ok(network) = text.parse::<Ipv4Net>() {
            return Some(Ok(Self::from_bounds(
                network.network(),
                network.broadcast(),
            )));
        }
        let (first, last) = text.split_once('-')?;
        let first: Ipv4Addr = first.trim().parse().ok()?;
        let last = last.trim();
        let last = match last.parse::<u8>() {
            Ok(byte) => {
                let [a, b, c, _] = first.octets();
                Ipv4Addr::new(a, b, c, byte)
            }
            Err(_) => last.parse().ok()?,
        };
        Some(if first > last {
            Err(InvalidTarget::Reversed(text.to_owned()))
        } else {
            Ok(Self::from_bounds(first, last))
        })
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let text = text.trim();
        let Some(target) = Self::parse(text) else {
            let first = text.split(['-', '/']).next().unwrap_or_default();
            return Err(if first.trim().parse::<std::net::Ipv6Addr>().is_ok() {
                InvalidTarget::Ipv6(text.to_owned())
            } else {
                InvalidTarget::Malformed(truncate(text))
            });
        };
        let target = target?;
        let (first, last) = target.bounds();
        let special = SPECIAL
            .iter()
            .find(|(from, to, _)| first <= *to && last >= *from);
        match special {
            Some((from, _, what)) => Err(InvalidTarget::Special {
                target: text.to_owned(),
                address: first.max(*from).into(),
                what,
            }),
            None => Ok(target),
        }
    }
}

/// Truncates a text for an error: a file that is not a list may have one very long line.
fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_networks_and_ranges_are_parsed() {
        for (text, parse) in [
            ("192.0.2.7", "192.0.2.7"),
            (" 192.0.2.7 ", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.77/24", "192.0.2.0-192.0.2.255"),
            ("192.0.2.10-192.0.2.20", "192.0.2.10-192.0.2.20"),
            ("192.0.2.10 - 192.0.3.20", "192.0.2.10-192.0.3.20"),
            ("192.0.2.10-20", "192.0.2.10-192.0.2.20"),
            ("192.0.2.10-10", "192.0.2.10"),
            ("240.0.0.1", "240.0.0.1"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), parse, "{text}");
        }
    }

    #[test]
    fn invalid_targets_are_rejected_with_the_reason() {
        for (text, why) in [
            ("2001:db8::1", "IPv6"),
            ("2001:db8::/64", "IPv6"),
            ("2001:db8::1-2001:db8::9", "IPv6"),
            ("192.0.2.20-10", "before its start"),
            ("192.0.2.20-192.0.1.30", "before its start"),
            ("192.0.2.0/33", "not an address"),
            ("192.0.2.10-256", "not an address"),
            ("192.0.2.10-", "not an address"),
            ("pool", "not an address"),
            ("", "not an address"),
            ("127.0.0.1", "loopback"),
            ("224.0.0.1", "group"),
            ("255.255.255.255", "broadcast"),
            ("0.0.0.0", "this network"),
            ("0.0.0.0/0", "this network"),
            ("126.255.255.255-127.0.0.1", "127.0.0.0"),
            (&"x".repeat(100_000), "not an address"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.len() < 300, "{error}");
        }
    }
}
