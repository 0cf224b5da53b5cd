//! Every number and rule that detection goes by, with its default.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use probe_common::wire::MacAddr;

use super::Timestamp;

/// How detection judges. [`DetectConfig::default`] is what the documentation describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectConfig {
    /// How long the owner before must keep silent until an address has moved. Default 10 s: longer than the
    /// bursts of MetalLB and keepalived, and RFC 5227's `DEFEND_INTERVAL`.
    pub settle: Duration,
    /// How long after a takeover claims by earlier owners mean nothing. Default 1 s: in a clean handover
    /// the outgoing speaker still answers the incoming one's announcement.
    pub overlap: Duration,
    /// How long after a request an answer to it counts. Default 1 s.
    pub answer_window: Duration,
    /// Alternation: this many returns… Default 2: both owners have claimed the address again.
    pub alternation_returns: usize,
    /// …in this time. Default 10 s.
    pub alternation_window: Duration,
    /// Slow alternation: this many returns… Default 5, as RFC 7432 section 15.1 and FRR have it…
    pub slow_alternation_returns: usize,
    /// …in this time. Default 180 s, from the same sources.
    pub slow_alternation_window: Duration,
    /// How long this host has to let go of an address that a stranger claims. Default 1 s.
    pub local_grace: Duration,
    /// How long a conflict is without evidence until its resolution is looked for, and how long a contested
    /// address is calm until the next sign is a new episode. Default 60 s.
    pub resolution_quiet: Duration,
    /// Not less than this between the two rounds of asking for a resolution. Default 1 s.
    pub resolution_gap: Duration,
    /// How long nobody else than one owner has claimed the address until a quiet conflict ends. Default
    /// 10 min.
    pub expiry: Duration,
    /// The windows in which a pending move is asked about, counted from the takeover. Default 1–2 s and
    /// 3–4 s: not earlier, because a clean handover overlaps.
    pub confirmation: [(Duration, Duration); 2],
    /// Whether there is somebody who asks. Default no: then nothing is asked for, and a conflict without
    /// evidence becomes quiet.
    pub may_ask: bool,
    /// How long after a newcomer's ARP probe an answer denies it the address. Default 1 s.
    pub probe_window: Duration,
    /// How often one address is reported as denied to one prober. Default once an hour.
    pub probe_denied_interval: Duration,
    /// How often a sender's bogus frames of one sort are reported. Default once in 10 min.
    pub bogus_interval: Duration,
    /// How long nobody claims a tracked address until it is silent. Default never: an address that nobody
    /// asks for is not dead, so this wants somebody who asks.
    pub silent_after: Option<Duration>,
    /// How many MACs a binding remembers, at least 2. Default 8.
    pub max_macs: usize,
    /// How many bindings are remembered, at least 1. Default 65 536, a whole /16.
    pub max_bindings: usize,
    /// The MACs that first-hop redundancy protocols share between machines. Default
    /// [`MacPattern::VIRTUAL_ROUTERS`].
    pub virtual_routers: Vec<MacPattern>,
    /// Sets of MACs that are one machine. Sets that share a MAC are one set. Default none.
    pub same_owner: Vec<Vec<MacAddr>>,
    /// Disputes that are known to be fine. Default none.
    pub ignore: Vec<Ignore>,
    /// The addresses that matter, beyond gateways and this host's own. Default none.
    pub tracked: Vec<IpNet>,
}

impl Default for DetectConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            settle: seconds(10),
            overlap: seconds(1),
            answer_window: seconds(1),
            alternation_returns: 2,
            alternation_window: seconds(10),
            slow_alternation_returns: 5,
            slow_alternation_window: seconds(180),
            local_grace: seconds(1),
            resolution_quiet: seconds(60),
            resolution_gap: seconds(1),
            expiry: seconds(600),
            confirmation: [(seconds(1), seconds(2)), (seconds(3), seconds(4))],
            may_ask: false,
            probe_window: seconds(1),
            probe_denied_interval: seconds(3600),
            bogus_interval: seconds(600),
            silent_after: None,
            max_macs: 8,
            max_bindings: 65_536,
            virtual_routers: MacPattern::VIRTUAL_ROUTERS.to_vec(),
            same_owner: Vec::new(),
            ignore: Vec::new(),
            tracked: Vec::new(),
        }
    }
}

impl DetectConfig {
    /// The ignore entry that covers the address now.
    pub fn ignored(&self, ip: IpAddr, now: Timestamp) -> Option<&Ignore> {
        self.ignore.iter().find(|entry| entry.covers(ip, now))
    }
}

/// Addresses whose disputes are counted, not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignore {
    /// Which.
    pub network: IpNet,
    /// Why, for those who read the configuration later.
    pub reason: String,
    /// Until when; `None` is for ever.
    pub expires: Option<Timestamp>,
}

impl Ignore {
    fn covers(&self, ip: IpAddr, now: Timestamp) -> bool {
        self.network.contains(&ip) && self.expires.is_none_or(|expires| now < expires)
    }
}

/// MACs that agree in some of their digits.
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

    /// The MACs whose low 48 bits are `value` where `mask` has ones.
    pub const fn new(value: u64, mask: u64) -> Self {
        Self {
            value: value & mask,
            mask,
        }
    }

    /// Whether `mac` is one of them.
    pub const fn matches(self, mac: MacAddr) -> bool {
        mac.to_u64() & self.mask == self.value
    }

    /// Whether `mac` is a virtual router's by [`Self::VIRTUAL_ROUTERS`]: it passes from machine to machine.
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

/// Why a text is not a MAC pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC pattern: twelve hexadecimal digits, x for any, like 00:00:5e:00:01:xx")]
pub struct MacPatternError;

impl FromStr for MacPattern {
    type Err = MacPatternError;

    /// Reads `00:00:5e:00:01:xx`, `x` for any digit.
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
    fn a_pattern_reads_back_what_it_prints() {
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
    fn the_virtual_macs_of_every_protocol_are_known() {
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
