//! Patterns of MAC addresses, and the virtual MACs of first-hop redundancy protocols.

use std::{fmt, str::FromStr};

use probe_common::wire::MacAddr;

/// A pattern of MAC addresses: some digits are fixed, the others arbitrary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacPattern {
    value: u64,
    mask: u64,
}

impl MacPattern {
    /// The virtual MACs of VRRP and CARP (RFC 9568 section 7.3), HSRP version 1, version 2, and version 2
    /// for IPv6.
    pub const VIRTUAL_ROUTERS: [Self; 5] = [
        Self::new(0x0000_5e00_0100, 0xffff_ffff_ff00),
        Self::new(0x0000_5e00_0200, 0xffff_ffff_ff00),
        Self::new(0x0000_0c07_ac00, 0xffff_ffff_ff00),
        Self::new(0x0000_0c9f_f000, 0xffff_ffff_f000),
        Self::new(0x0005_73a0_0000, 0xffff_ffff_f000),
    ];

    /// The pattern of the MACs whose bits under `mask` equal those of `value`.
    pub const fn new(value: u64, mask: u64) -> Self {
        Self {
            value: value & mask,
            mask,
        }
    }

    /// Whether the pattern matches `mac`.
    pub const fn matches(self, mac: MacAddr) -> bool {
        mac.to_u64() & self.mask == self.value
    }

    /// Whether `mac` is a virtual-router MAC ([`Self::VIRTUAL_ROUTERS`]), which moves from host to host.
    pub fn is_virtual_router(mac: MacAddr) -> bool {
        let mut patterns = Self::VIRTUAL_ROUTERS.iter();
        patterns.any(|pattern| pattern.matches(mac))
    }
}

impl fmt::Display for MacPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for nibble in (0..12).rev() {
            let shift = nibble * 4;
            if (self.mask >> shift).trailing_zeros() >= 4 {
                f.write_str("x")?;
            } else {
                write!(f, "{:x}", self.value >> shift & 0xf)?;
            }
            if nibble != 0 && nibble % 2 == 0 {
                f.write_str(":")?;
            }
        }
        Ok(())
    }
}

/// The text is not a MAC pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC pattern: twelve hexadecimal digits, x for any, like 00:00:5e:00:01:xx")]
pub struct MacPatternError;

impl FromStr for MacPattern {
    type Err = MacPatternError;

    /// Parses `00:00:5e:00:01:xx`, with `x` for any digit.
    fn from_str(text: &str) -> Result<Self, MacPatternError> {
        let (mut value, mut mask) = (0, 0);
        let mut bytes = 0;
        for byte in text.split([':', '-']) {
            if byte.len() != 2 {
                return Err(MacPatternError);
            }
            for digit in byte.chars() {
                let (bits, known) = match digit {
                    'x' | 'X' => (0, 0),
                    _ => (digit.to_digit(16).ok_or(MacPatternError)?, 0xf),
                };
                value = value << 4 | u64::from(bits);
                mask = mask << 4 | known;
            }
            bytes += 1;
        }
        if bytes == 6 {
            Ok(Self { value, mask })
        } else {
            Err(MacPatternError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_of_a_pattern_parses_to_the_pattern() {
        for text in [
            "00:00:5e:00:01:xx",
            "00:00:0c:9f:fx:xx",
            "02:00:00:00:00:01",
        ] {
            assert_eq!(text.parse::<MacPattern>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "00:00:5e:00:01",
            "00:00:5e:00:01:x",
            "00:00:5e:00:01:xx:xx",
            "0g:00:5e:00:01:xx",
            "é0:00:00:00:00:00",
        ] {
            assert_eq!(bad.parse::<MacPattern>(), Err(MacPatternError), "{bad}");
        }
    }

    #[test]
    fn the_virtual_macs_of_every_protocol_match() {
        for (mac, known) in [
            ("00:00:5e:00:01:33", true),
            ("00:00:5e:00:02:33", true),
            ("00:00:5e:00:03:33", false),
            ("00:00:0c:07:ac:01", true),
            ("00:00:0c:9f:f1:23", true),
            ("00:00:0c:9f:e1:23", false),
            ("00:05:73:a0:01:23", true),
            ("02:00:5e:00:01:33", false),
        ] {
            let mac: MacAddr = mac.parse().unwrap();
            assert_eq!(MacPattern::is_virtual_router(mac), known, "{mac}");
        }
    }
}
