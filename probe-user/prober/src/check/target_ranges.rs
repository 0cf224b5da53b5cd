//! Numbers the addresses of a check.

use std::net::Ipv4Addr;

use super::Target;

/// A range of addresses that are probed through one egress interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRange {
    /// The first address.
    pub first: u32,
    /// The last address.
    pub last: u32,
    /// The index of the egress interface.
    pub egress: usize,
}

/// Why addresses cannot be checked at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetRangesError {
    /// The number of addresses exceeds the maximum.
    #[error(
        "{number} addresses exceed the maximum of one check, {}: split it (at 10 a second they would take {} hours)",
        TargetRanges::MAX_TARGETS,
        number / 36_000
    )]
    TooMany {
        /// The number of addresses.
        number: u64,
    },
}

/// The target ranges of a check: disjoint and sorted, with a number from 0 for each address.
#[derive(Clone, Debug, Default)]
pub struct TargetRanges {
    ranges: Vec<TargetRange>,
    /// The number of the first address of each range.
    numbers: Vec<u32>,
    total: u32,
}

impl TargetRanges {
    /// The maximum number of addresses of a check: those of a /12.
    pub const MAX_TARGETS: u64 = 1 << 20;

    /// Numbers the addresses of these ranges, which must not overlap.
    pub fn new(mut ranges: Vec<TargetRange>) -> Self {
        ranges.sort_unstable_by_key(|range| range.first);
        let mut joined: Vec<TargetRange> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last)
                    if last.egress == range.egress
                        && last.last.checked_add(1) == Some(range.first) =>
                {
                    last.last = range.last;
                }
                _ => joined.push(range),
            }
        }
        let mut total: u32 = 0;
        let numbers = joined
            .iter()
            .map(|range| {
                let number = total;
                total = total.saturating_add((range.last - range.first).saturating_add(1));
                number
            })
            .collect();
        Self {
            ranges: joined,
            numbers,
            total,
        }
    }

    /// The number of addresses.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The address with this number, and the index of its egress interface.
    pub fn address(&self, number: u32) -> Option<(Ipv4Addr, usize)> {
        let index = self.numbers.partition_point(|first| *first <= number);
        let range = self.ranges.get(index.checked_sub(1)?)?;
        let address = range.first + (number - self.numbers.get(index - 1)?);
        (address <= range.last).then_some((address.into(), range.egress))
    }

    /// The number of an address that is probed through this egress interface.
    pub fn number(&self, address: Ipv4Addr, egress: usize) -> Option<u32> {
        let address = u32::from(address);
        let index = self.ranges.partition_point(|range| range.first <= address);
        let range = self.ranges.get(index.checked_sub(1)?)?;
        (address <= range.last && range.egress == egress)
            .then_some(self.numbers.get(index - 1)? + (address - range.first))
    }
}

/// Merges targets into disjoint ranges. Returns the first address, the last address, and whether it is an explicit address.
pub(super) fn disjoint(targets: &[Target]) -> Result<Vec<(u32, u32, bool)>, TargetRangesError> {
    let mut bounds: Vec<_> = targets
        .iter()
        .map(|target| {
            let (first, last) = target.bounds();
            (first, last, matches!(target, Target::Address(_)))
        })
        .collect();
    // Explicit addresses come before ranges with the same start, and so stay explicit.
    bounds.sort_unstable_by_key(|&(first, last, _)| (first, last));
    let mut pieces = Vec::new();
    let mut number: u64 = 0;
    let mut covered: Option<u32> = None;
    for (first, last, single) in bounds {
        let first = match covered {
            Some(covered) if covered >= last => continue,
            Some(covered) if covered >= first => covered + 1,
            _ => first,
        };
        pieces.push((first, last, single));
        covered = Some(last);
        number += u64::from(last - first) + 1;
    }
    if number > TargetRanges::MAX_TARGETS {
        return Err(TargetRangesError::TooMany { number });
    }
    Ok(pieces)
}

/// Removes these addresses from a range.
pub(super) fn without(piece: (u32, u32), reserved: &[u32]) -> Vec<(u32, u32)> {
    let (mut first, last) = piece;
    let mut inside: Vec<_> = reserved
        .iter()
        .copied()
        .filter(|address| (first..=last).contains(address))
        .collect();
    inside.sort_unstable();
    inside.dedup();
    let mut pieces = Vec::new();
    for address in inside {
        if address > first {
            pieces.push((first, address - 1));
        }
        // 255.255.255.255 is rejected before, so this does not saturate.
        first = address.saturating_add(1);
    }
    if first <= last {
        pieces.push((first, last));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(texts: &[&str]) -> Vec<Target> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn shown(pieces: &[(u32, u32, bool)]) -> Vec<String> {
        let show = |&(first, last, _): &(u32, u32, bool)| {
            format!("{}-{}", Ipv4Addr::from(first), Ipv4Addr::from(last))
        };
        pieces.iter().map(show).collect()
    }

    #[test]
    fn each_address_is_probed_once_even_if_it_is_in_several_targets() {
        let pieces = disjoint(&targets(&[
            "192.0.2.0/30",
            "192.0.2.2-192.0.2.9",
            "192.0.2.1",
            "192.0.2.9",
            "192.0.2.20",
        ]));
        assert_eq!(
            shown(&pieces.unwrap()),
            [
                "192.0.2.0-192.0.2.3",
                "192.0.2.4-192.0.2.9",
                "192.0.2.20-192.0.2.20"
            ]
        );
        let whole = ["1.0.0.0-9.255.255.255"];
        assert!(disjoint(&targets(&whole)).is_err());
    }

    #[test]
    fn the_number_of_an_address_identifies_it() {
        let range = |first: u32, last: u32, egress| TargetRange {
            first: 0xc000_0200 + first,
            last: 0xc000_0200 + last,
            egress,
        };
        let ranges = TargetRanges::new(vec![
            range(20, 29, 0),
            range(1, 9, 0),
            range(10, 10, 0),
            range(40, 40, 1),
        ]);
        assert_eq!(ranges.ranges.len(), 3, "adjacent ranges are joined");
        assert_eq!(ranges.total(), 21);
        for number in 0..21 {
            let (address, egress) = ranges.address(number).unwrap();
            assert_eq!(ranges.number(address, egress), Some(number));
            assert_eq!(ranges.number(address, egress + 1), None);
        }
        assert_eq!(ranges.address(21), None);
        for foreign in ["192.0.2.0", "192.0.2.11", "192.0.2.41"] {
            assert_eq!(ranges.number(foreign.parse().unwrap(), 0), None);
        }
    }

    #[test]
    fn reserved_addresses_are_removed() {
        assert_eq!(without((0, 255), &[0, 255]), [(1, 254)]);
        assert_eq!(
            without((0, 511), &[0, 255, 256, 511]),
            [(1, 254), (257, 510)]
        );
        assert_eq!(without((5, 9), &[0, 255]), [(5, 9)]);
        assert_eq!(without((0, 1), &[0, 1, 1]), []);
    }
}
