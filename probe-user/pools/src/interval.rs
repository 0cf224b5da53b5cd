//! Arithmetic of address ranges on their first and last addresses, so that a /0 costs the same as a /32.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// IPv4 or IPv6: the two never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

impl IpFamily {
    const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The highest address as a number.
    const fn highest(self) -> u128 {
        match self {
            Self::V4 => u32::MAX as u128,
            Self::V6 => u128::MAX,
        }
    }

    /// The address with this number. A number too high for the family, which no interval contains, is the highest
    /// address.
    fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Self::V6 => Ipv6Addr::from(number).into(),
        }
    }

    fn of(address: IpAddr) -> (Self, u128) {
        match address {
            IpAddr::V4(address) => (Self::V4, u32::from(address).into()),
            IpAddr::V6(address) => (Self::V6, address.into()),
        }
    }
}

/// A non-empty inclusive range of addresses. Ordered by family, then by first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    family: IpFamily,
    first: u128,
    last: u128,
}

/// The notation of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeNotation {
    /// `192.0.2.0/24`.
    Cidr,
    /// `192.0.2.5/24`: a CIDR with host bits set.
    CidrWithHost,
    /// `192.0.2.1-192.0.2.9`.
    Range,
    /// `192.0.2.1`.
    Address,
}

/// Maximum length of the text of an interval, in bytes; two IPv6 addresses are shorter.
pub const MAX_TEXT_BYTES: usize = 256;

/// Why a text is not an interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntervalError {
    /// An address is missing or invalid.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// The prefix length is invalid.
    #[error("{length:?} is not a prefix length for this address: it must be from 0 to {limit}")]
    PrefixLength {
        /// The text after the slash.
        length: String,
        /// The maximum.
        limit: u8,
    },
    /// From IPv4 to IPv6, or the other way round.
    #[error("the range mixes IPv4 and IPv6")]
    Mixed,
    /// The end precedes the start.
    #[error("the range ends before it starts; in the right order it is {0}")]
    Reversed(Interval),
    /// The text is too long.
    #[error("longer than {MAX_TEXT_BYTES} bytes, the maximum for a range")]
    TooLong,
}

impl Interval {
    /// The interval from one address to another, both included.
    ///
    /// # Errors
    ///
    /// If the families differ, or the last address precedes the first.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, IntervalError> {
        let (family, first) = IpFamily::of(first);
        let (other, last) = IpFamily::of(last);
        if family != other {
            return Err(IntervalError::Mixed);
        }
        if first > last {
            return Err(IntervalError::Reversed(Self {
                family,
                first: last,
                last: first,
            }));
        }
        Ok(Self {
            family,
            first,
            last,
        })
    }

    /// Parses a CIDR, a range (`a-b`) or an address, and returns it with its notation.
    ///
    /// # Errors
    ///
    /// If the text is invalid.
    pub fn parse(text: &str) -> Result<(Self, RangeNotation), IntervalError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(IntervalError::TooLong);
        }
        let text = text.trim();
        if let Some((first, last)) = text.split_once('-') {
            return Ok((
                Self::new(address(first)?, address(last)?)?,
                RangeNotation::Range,
            ));
        }
        let Some((base, length)) = text.split_once('/') else {
            let only = address(text)?;
            return Ok((Self::new(only, only)?, RangeNotation::Address));
        };
        let (family, number) = IpFamily::of(address(base)?);
        let bits = family.bits();
        // `parse` alone would accept "+24".
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = length
            .parse()
            .ok()
            .filter(|&prefix| digits && prefix <= bits);
        let prefix: u8 = prefix.ok_or_else(|| IntervalError::PrefixLength {
            length: length.to_owned(),
            limit: bits,
        })?;
        let hosts = family
            .highest()
            .checked_shr(prefix.into())
            .unwrap_or_default();
        let interval = Self {
            family,
            first: number & !hosts,
            last: number | hosts,
        };
        let notation = if interval.first == number {
            RangeNotation::Cidr
        } else {
            RangeNotation::CidrWithHost
        };
        Ok((interval, notation))
    }

    /// IPv4 or IPv6.
    pub const fn family(&self) -> IpFamily {
        self.family
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.family.address(self.first)
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        self.family.address(self.last)
    }

    /// The number of addresses; for all of IPv6 it is one less, because a `u128` cannot hold more.
    pub const fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Its first `addresses` addresses, or all if it has fewer; `None` for zero.
    pub fn first_addresses(&self, addresses: u128) -> Option<Self> {
        let beyond_first = addresses.checked_sub(1)?;
        Some(Self {
            last: self.first.saturating_add(beyond_first).min(self.last),
            ..*self
        })
    }

    /// Whether it contains all of another interval.
    pub fn contains(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.first && other.last <= self.last
    }

    /// The intersection with another interval.
    pub fn common(&self, other: &Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (self.family == other.family && first <= last).then_some(Self {
            family: self.family,
            first,
            last,
        })
    }

    /// The difference with another interval: the parts before and after it.
    pub fn without(&self, other: &Self) -> impl Iterator<Item = Self> + use<> {
        let piece = |first, last| Self {
            family: self.family,
            first,
            last,
        };
        let (before, after) = match self.common(other) {
            None => (Some(*self), None),
            Some(common) => (
                (self.first < common.first).then(|| piece(self.first, common.first - 1)),
                (common.last < self.last).then(|| piece(common.last + 1, self.last)),
            ),
        };
        before.into_iter().chain(after)
    }

    /// The prefix length, if it is a CIDR block.
    pub fn prefix_length(&self) -> Option<u8> {
        let hosts = self.last - self.first;
        let is_block = hosts & hosts.wrapping_add(1) == 0 && self.first & hosts == 0;
        let host_bits = u8::try_from(hosts.count_ones()).ok()?;
        is_block.then(|| self.family.bits() - host_bits)
    }

    /// Formats it for a sentence: a single address without prefix length.
    pub fn describe(&self) -> String {
        match self.count() {
            1 => self.first().to_string(),
            _ => self.to_string(),
        }
    }

    /// The number of its IPv4 addresses that end in .0 or .255, and the first of them; `None` if there are none.
    pub fn buggy_addresses(&self) -> Option<(u128, IpAddr)> {
        if self.family == IpFamily::V6 {
            return None;
        }
        let zeros = multiples(self.first, self.last, 256);
        // x.255 is one less than a multiple of 256.
        let broadcasts = multiples(self.first + 1, self.last + 1, 256);
        let number = zeros + broadcasts;
        let first = match self.first % 256 {
            0 | 255 => self.first,
            _ => self.first | 255,
        };
        (number > 0).then(|| (number, self.family.address(first)))
    }

    /// Whether another interval starts within it or directly after it.
    fn touches_or_overlaps(&self, next: &Self) -> bool {
        self.family == next.family && next.first <= self.last.saturating_add(1)
    }
}

/// The number of multiples of `of` from `first` to `last`.
const fn multiples(first: u128, last: u128, of: u128) -> u128 {
    // This order never underflows: rounding up gives at most one more than rounding down.
    last / of + 1 - first.div_ceil(of)
}

fn address(text: &str) -> Result<IpAddr, IntervalError> {
    let text = text.trim();
    let address: IpAddr = text
        .parse()
        .map_err(|_| IntervalError::Address(text.to_owned()))?;
    // Kubernetes and MetalLB treat ::ffff:192.0.2.1 as 192.0.2.1 as well.
    Ok(address.to_canonical())
}

/// In MetalLB's notation: a CIDR if it is a block, else a range.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.prefix_length() {
            Some(length) => format!("{}/{length}", self.first()),
            None => format!("{}-{}", self.first(), self.last()),
        };
        f.pad(&text)
    }
}

/// Merges intervals: the same addresses in the fewest intervals, sorted.
pub fn merged(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut merged: Vec<Interval> = Vec::new();
    for interval in intervals {
        match merged.last_mut() {
            Some(last) if last.touches_or_overlaps(&interval) => {
                last.last = last.last.max(interval.last);
            }
            _ => merged.push(interval),
        }
    }
    merged
}

/// The parts of an interval that are in any of the others, which must be merged.
pub fn intersections(interval: Interval, others: &[Interval]) -> impl Iterator<Item = Interval> {
    let others = from_first_overlap(interval, others).iter();
    others.map_while(move |other| interval.common(other))
}

/// Skips the intervals that end before this one starts; the others must be merged.
fn from_first_overlap(interval: Interval, others: &[Interval]) -> &[Interval] {
    let start = (interval.family, interval.first);
    &others[others.partition_point(|other| (other.family, other.last) < start)..]
}

/// The parts of an interval that are in none of the others, which must be merged.
pub fn subtract(interval: Interval, others: &[Interval]) -> Vec<Interval> {
    let mut outside = Vec::new();
    let mut rest = Some(interval);
    for other in from_first_overlap(interval, others) {
        let Some(whole) = rest else { break };
        if whole.common(other).is_none() {
            break;
        }
        rest = None;
        for piece in whole.without(other) {
            if piece.first < other.first {
                outside.push(piece);
            } else {
                rest = Some(piece);
            }
        }
    }
    outside.extend(rest);
    outside
}

mod set;

pub use set::IntervalSet;

#[cfg(test)]
mod tests;
