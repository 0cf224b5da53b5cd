//! The addresses that are checked, numbered.

use std::net::Ipv4Addr;

use super::Target;

/// Addresses in a row that are asked about on one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
    /// Which port, by its place among the ports.
    pub egress: usize,
}

/// Why addresses cannot be checked together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetRangesError {
    /// Too many.
    #[error(
        "{number} addresses are too many for one check, which takes {}: split it (at 10 a second they would take {} hours)",
        TargetRanges::MAX_TARGETS,
        number / 36_000
    )]
    TooMany {
        /// How many.
        number: u64,
    },
}

/// All of them: disjoint, in the order of their addresses, each with a number from 0.
#[derive(Clone, Debug, Default)]
pub struct TargetRanges {
    ranges: Vec<TargetRange>,
    /// The number of the first address of each lot.
    numbers: Vec<u32>,
    total: u32,
}

impl TargetRanges {
    /// The most addresses of one check: a /12.
    pub const MAX_TARGETS: u64 = 1 << 20;

    /// Numbers the addresses of these lots, which must not overlap.
    pub fn new(mut lots: Vec<TargetRange>) -> Self {
        lots.sort_unstable_by_key(|lot| lot.first);
        let mut joined: Vec<TargetRange> = Vec::new();
        for lot in lots {
            match joined.last_mut() {
                Some(last)
                    if last.egress == lot.egress && last.last.checked_add(1) == Some(lot.first) =>
                {
                    last.last = lot.last;
                }
                _ => joined.push(lot),
            }
        }
        let mut total: u32 = 0;
        let numbers = joined
            .iter()
            .map(|lot| {
                let number = total;
                total = total.saturating_add((lot.last - lot.first).saturating_add(1));
                number
            })
            .collect();
        Self {
            ranges: joined,
            numbers,
            total,
        }
    }

    /// How many addresses.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The address with this number, and its port.
    pub fn address(&self, number: u32) -> Option<(Ipv4Addr, usize)> {
        let place = self.numbers.partition_point(|first| *first <= number);
        let lot = self.ranges.get(place.checked_sub(1)?)?;
        let address = lot.first + (number - self.numbers.get(place - 1)?);
        (address <= lot.last).then_some((address.into(), lot.egress))
    }

    /// The number of this address, if it is asked about on this port.
    pub fn number(&self, address: Ipv4Addr, egress: usize) -> Option<u32> {
        let address = u32::from(address);
        let place = self.ranges.partition_point(|lot| lot.first <= address);
        let lot = self.ranges.get(place.checked_sub(1)?)?;
        (address <= lot.last && lot.egress == egress)
            .then_some(self.numbers.get(place - 1)? + (address - lot.first))
    }
}

/// What targets come to, each address once: from, to, and whether it was named by itself.
pub(super) fn disjoint(targets: &[Target]) -> Result<Vec<(u32, u32, bool)>, TargetRangesError> {
    let mut bounds: Vec<_> = targets
        .iter()
        .map(|target| {
            let (first, last) = target.bounds();
            (first, last, matches!(target, Target::Address(_)))
        })
        .collect();
    // Of one beginning, what was named by itself comes first and keeps that.
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

/// A piece without these addresses.
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
        // None is the last of all addresses, which is refused before.
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
    fn each_address_is_asked_about_once_however_often_it_is_named() {
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
    fn addresses_and_numbers_belong_to_each_other() {
        let lot = |first: u32, last: u32, egress| TargetRange {
            first: 0xc000_0200 + first,
            last: 0xc000_0200 + last,
            egress,
        };
        let lots = TargetRanges::new(vec![
            lot(20, 29, 0),
            lot(1, 9, 0),
            lot(10, 10, 0),
            lot(40, 40, 1),
        ]);
        assert_eq!(lots.ranges.len(), 3, "what adjoins is one");
        assert_eq!(lots.total(), 21);
        for number in 0..21 {
            let (address, egress) = lots.address(number).unwrap();
            assert_eq!(lots.number(address, egress), Some(number));
            assert_eq!(lots.number(address, egress + 1), None);
        }
        assert_eq!(lots.address(21), None);
        for foreign in ["192.0.2.0", "192.0.2.11", "192.0.2.41"] {
            assert_eq!(lots.number(foreign.parse().unwrap(), 0), None);
        }
    }

    #[test]
    fn what_no_machine_can_have_is_left_out() {
        assert_eq!(without((0, 255), &[0, 255]), [(1, 254)]);
        assert_eq!(
            without((0, 511), &[0, 255, 256, 511]),
            [(1, 254), (257, 510)]
        );
        assert_eq!(without((5, 9), &[0, 255]), [(5, 9)]);
        assert_eq!(without((0, 1), &[0, 1, 1]), []);
    }
}
