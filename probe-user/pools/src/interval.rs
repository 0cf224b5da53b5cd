//! Arithmetic of address ranges: by their ends, never address by address, so that a /0 costs what a /32 does.

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

    /// The highest address, as a number.
    const fn highest(self) -> u128 {
        match self {
            Self::V4 => u32::MAX as u128,
            Self::V6 => u128::MAX,
        }
    }

    /// The address that this number is. A number too high for the family, which no interval holds, is
    /// its highest address.
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

/// All addresses from one to another, both included: never empty. Ordered by family, then by first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    family: IpFamily,
    first: u128,
    last: u128,
}

/// How an interval was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeNotation {
    /// `192.0.2.0/24`.
    Cidr,
    /// `192.0.2.5/24`: a CIDR that begins before the address it is written with.
    CidrWithHost,
    /// `192.0.2.1-192.0.2.9`.
    Range,
    /// `192.0.2.1`.
    Address,
}

/// Longer texts are no interval: the longest one, of two IPv6 addresses, has room to spare.
pub const MAX_TEXT_BYTES: usize = 256;

/// Why a text is no interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntervalError {
    /// No address where there should be one.
    #[error("{0:?} is no IP address")]
    Address(String),
    /// What is behind the slash is no length.
    #[error("{length:?} is no prefix length for this address: it goes from 0 to {most}")]
    PrefixLength {
        /// What is there.
        length: String,
        /// The longest there is.
        most: u8,
    },
    /// From IPv4 to IPv6, or the other way round.
    #[error("the range mixes IPv4 and IPv6")]
    Mixed,
    /// The end comes before the beginning.
    #[error("the range ends before it begins; turned round it is {0}")]
    Reversed(Interval),
    /// Whatever it says.
    #[error("longer than {MAX_TEXT_BYTES} bytes, which no range is")]
    TooLong,
}

impl Interval {
    /// From one address to another.
    ///
    /// # Errors
    ///
    /// They are of two families, or the last comes before the first.
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

    /// Reads a CIDR, a range (`a-b`) or an address, and says which it was.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
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
        // `parse` alone would take "+24".
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = length
            .parse()
            .ok()
            .filter(|&prefix| digits && prefix <= bits);
        let prefix: u8 = prefix.ok_or_else(|| IntervalError::PrefixLength {
            length: length.to_owned(),
            most: bits,
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
        let form = if interval.first == number {
            RangeNotation::Cidr
        } else {
            RangeNotation::CidrWithHost
        };
        Ok((interval, form))
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

    /// How many addresses; one less than there are for all of IPv6, which is one more than a `u128` holds.
    pub const fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Its first addresses, so many if it has them; nothing if that is none.
    pub fn first_addresses(&self, addresses: u128) -> Option<Self> {
        let beyond_first = addresses.checked_sub(1)?;
        Some(Self {
            last: self.first.saturating_add(beyond_first).min(self.last),
            ..*self
        })
    }

    /// Whether all of another is in it.
    pub fn contains(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.first && other.last <= self.last
    }

    /// What it has in common with another.
    pub fn common(&self, other: &Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (self.family == other.family && first <= last).then_some(Self {
            family: self.family,
            first,
            last,
        })
    }

    /// What is left without another: before it and after it.
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

    /// The length of the prefix, if it is the block of one.
    pub fn prefix_length(&self) -> Option<u8> {
        let hosts = self.last - self.first;
        let is_block = hosts & hosts.wrapping_add(1) == 0 && self.first & hosts == 0;
        let host_bits = u8::try_from(hosts.count_ones()).ok()?;
        is_block.then(|| self.family.bits() - host_bits)
    }

    /// In a sentence: one address is no block.
    pub fn spoken(&self) -> String {
        match self.count() {
            1 => self.first().to_string(),
            _ => self.to_string(),
        }
    }

    /// How many of its IPv4 addresses end in .0 or .255, and the first of them.
    pub fn buggy_addresses(&self) -> Option<(u128, IpAddr)> {
        if self.family == IpFamily::V6 {
            return None;
        }
        let zeros = multiples(self.first, self.last, 256);
        // x.255 is one less than a multiple.
        let broadcasts = multiples(self.first + 1, self.last + 1, 256);
        let number = zeros + broadcasts;
        let first = match self.first % 256 {
            0 | 255 => self.first,
            _ => self.first | 255,
        };
        (number > 0).then(|| (number, self.family.address(first)))
    }

    /// Whether another begins right behind it, or before it ends.
    fn touches_or_overlaps(&self, next: &Self) -> bool {
        self.family == next.family && next.first <= self.last.saturating_add(1)
    }
}

/// How many multiples of a number there are from one to another.
const fn multiples(first: u128, last: u128, of: u128) -> u128 {
    // In this order it never goes below zero: rounding up is at most one more than rounding down.
    last / of + 1 - first.div_ceil(of)
}

fn address(text: &str) -> Result<IpAddr, IntervalError> {
    let text = text.trim();
    let address: IpAddr = text
        .parse()
        .map_err(|_| IntervalError::Address(text.to_owned()))?;
    // Kubernetes and MetalLB take ::ffff:192.0.2.1 for 192.0.2.1 as well.
    Ok(address.to_canonical())
}

/// As MetalLB reads it: a CIDR where it is the block of one, else a range.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.prefix_length() {
            Some(length) => format!("{}/{length}", self.first()),
            None => format!("{}-{}", self.first(), self.last()),
        };
        f.pad(&text)
    }
}

/// The same addresses in the fewest intervals, in order.
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

/// The parts of an interval that are in one of the others, which are merged.
pub fn intersections(interval: Interval, others: &[Interval]) -> impl Iterator<Item = Interval> {
    let others = from_first_overlap(interval, others).iter();
    others.map_while(move |other| interval.common(other))
}

/// Without those of the others, which are merged, that end before it begins.
fn from_first_overlap(interval: Interval, others: &[Interval]) -> &[Interval] {
    let begins = (interval.family, interval.first);
    &others[others.partition_point(|other| (other.family, other.last) < begins)..]
}

/// The parts of an interval that are in none of the others, which are merged.
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
