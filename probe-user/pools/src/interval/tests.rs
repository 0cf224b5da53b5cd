//! Tests of interval arithmetic against sets of single addresses in a small universe.

use proptest::prelude::*;

use super::*;

fn interval(text: &str) -> Interval {
    Interval::parse(text).unwrap().0
}

/// All addresses of an interval in a universe around 192.0.2.0/24.
fn enumerated(interval: Interval) -> Vec<u128> {
    let base = u128::from(u32::from(Ipv4Addr::new(192, 0, 0, 0)));
    let universe = base..base + 1024;
    let is_in = |number: &u128| interval.first <= *number && *number <= interval.last;
    universe.filter(is_in).collect()
}

/// Arbitrary intervals of that universe.
fn any_interval() -> impl Strategy<Value = Interval> {
    (0..1024_u32, 0..300_u32).prop_map(|(first, more)| {
        let base = u32::from(Ipv4Addr::new(192, 0, 0, 0));
        let last = base + (first + more).min(1023);
        let address = |number| IpAddr::from(Ipv4Addr::from(number));
        Interval::new(address(base + first), address(last)).unwrap()
    })
}

#[test]
fn every_range_notation_is_parsed() {
    for (text, first, last, notation) in [
        (
            "192.0.2.0/24",
            "192.0.2.0",
            "192.0.2.255",
            RangeNotation::Cidr,
        ),
        (
            "192.0.2.5/24",
            "192.0.2.0",
            "192.0.2.255",
            RangeNotation::CidrWithHost,
        ),
        (
            "192.0.2.7",
            "192.0.2.7",
            "192.0.2.7",
            RangeNotation::Address,
        ),
        (
            " 192.0.2.1 - 192.0.2.9 ",
            "192.0.2.1",
            "192.0.2.9",
            RangeNotation::Range,
        ),
        (
            "0.0.0.0/0",
            "0.0.0.0",
            "255.255.255.255",
            RangeNotation::Cidr,
        ),
        (
            "192.0.2.7/32",
            "192.0.2.7",
            "192.0.2.7",
            RangeNotation::Cidr,
        ),
        (
            "2001:db8::/64",
            "2001:db8::",
            "2001:db8::ffff:ffff:ffff:ffff",
            RangeNotation::Cidr,
        ),
        (
            "::/0",
            "::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            RangeNotation::Cidr,
        ),
        (
            "2001:db8::1-2001:db8::5",
            "2001:db8::1",
            "2001:db8::5",
            RangeNotation::Range,
        ),
        (
            "::ffff:192.0.2.1-192.0.2.2",
            "192.0.2.1",
            "192.0.2.2",
            RangeNotation::Range,
        ),
    ] {
        let (read, written) = Interval::parse(text).unwrap();
        assert_eq!(read.first().to_string(), first, "{text}");
        assert_eq!(read.last().to_string(), last, "{text}");
        assert_eq!(written, notation, "{text}");
    }
}

#[test]
fn invalid_range_is_reported_with_a_reason() {
    for (text, why) in [
        ("", "\"\" is not an IP address"),
        ("192.0.2.0.1/24", "is not an IP address"),
        ("192.000.2.1", "is not an IP address"),
        ("192.0.2.0/33", "must be from 0 to 32"),
        ("192.0.2.0/+24", "must be from 0 to 32"),
        ("192.0.2.0/", "must be from 0 to 32"),
        ("192.0.2.0/255.255.255.0", "must be from 0 to 32"),
        ("2001:db8::/129", "must be from 0 to 128"),
        (
            "192.0.2.9-192.0.2.1",
            "in the right order it is 192.0.2.1-192.0.2.9",
        ),
        ("192.0.2.1-2001:db8::1", "mixes IPv4 and IPv6"),
        ("192.0.2.1-", "\"\" is not an IP address"),
        ("192.0.2.1-9", "\"9\" is not an IP address"),
        ("192.0.2.0/24-192.0.2.9", "is not an IP address"),
        ("fe80::1%eth0/64", "is not an IP address"),
    ] {
        let error = Interval::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn the_ends_of_both_families_are_reached() {
    for all in ["0.0.0.0/0", "::/0"] {
        let all = interval(all);
        assert_eq!(all.prefix_length(), Some(0));
        assert_eq!(all.without(&all).count(), 0);
        assert_eq!(merged(vec![all, all]), [all]);
    }
    assert_eq!(interval("0.0.0.0/0").count(), 1 << 32);
    assert_eq!(interval("::/0").count(), u128::MAX);
    let last = interval("255.255.255.255/32");
    let rest: Vec<_> = interval("0.0.0.0/0").without(&last).collect();
    assert_eq!(rest, [interval("0.0.0.0-255.255.255.254")]);
    let last = interval("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
    let rest: Vec<_> = interval("::/0").without(&last).collect();
    assert_eq!(rest[0].count(), u128::MAX);
    assert_eq!(merged(vec![last, rest[0]]), [interval("::/0")]);
    assert_eq!(interval("0.0.0.0/0").buggy_addresses().unwrap().0, 1 << 25);
    assert_eq!(last.buggy_addresses(), None);
}

#[test]
fn address_families_are_disjoint() {
    let (four, six) = (interval("0.0.0.0/0"), interval("::/0"));
    assert_eq!(four.common(&six), None);
    assert!(!six.contains(&four));
    assert_eq!(merged(vec![six, four]), [four, six]);
    assert_eq!(subtract(four, &[six]), [four]);
    assert_eq!(subtract(six, &[four]), [six]);
}

proptest! {
    #[test]
    fn written_range_round_trips(one in any_interval()) {
        let (read, notation) = Interval::parse(&one.to_string()).unwrap();
        prop_assert_eq!(read, one);
        prop_assert!(matches!(notation, RangeNotation::Cidr | RangeNotation::Range));
    }

    #[test]
    fn any_ipv6_range_round_trips(one: u128, other: u128) {
        let (first, last) = (one.min(other), one.max(other));
        let address = |number| IpAddr::from(Ipv6Addr::from(number)).to_canonical();
        if let Ok(range) = Interval::new(address(first), address(last)) {
            prop_assert_eq!(Interval::parse(&range.to_string()).unwrap().0, range);
        }
    }

    #[test]
    fn common_without_and_count_are_those_of_sets(one in any_interval(), other in any_interval()) {
        let (mine, its) = (enumerated(one), enumerated(other));
        prop_assert_eq!(one.count(), mine.len() as u128);
        let common: Vec<_> = mine.iter().copied().filter(|number| its.contains(number)).collect();
        prop_assert_eq!(one.common(&other).map(enumerated).unwrap_or_default(), common);
        let rest: Vec<_> = mine.iter().copied().filter(|number| !its.contains(number)).collect();
        let without: Vec<_> = one.without(&other).flat_map(enumerated).collect();
        prop_assert_eq!(without, rest);
        prop_assert_eq!(one.contains(&other), its.iter().all(|number| mine.contains(number)));
    }

    #[test]
    fn merge_and_subtract_match_set_operations(
        many in prop::collection::vec(any_interval(), 0..12),
        one in any_interval(),
    ) {
        let together = merged(many.clone());
        let mut all: Vec<_> = many.into_iter().flat_map(enumerated).collect();
        all.sort_unstable();
        all.dedup();
        let merged: Vec<_> = together.iter().copied().flat_map(enumerated).collect();
        prop_assert_eq!(&merged, &all);
        // Minimal: between two intervals there is always an address in none.
        prop_assert!(together.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
        let rest: Vec<_> = enumerated(one).into_iter().filter(|number| !all.contains(number)).collect();
        let out: Vec<_> = subtract(one, &together).into_iter().flat_map(enumerated).collect();
        prop_assert_eq!(out, rest);
    }

    #[test]
    fn buggy_addresses_are_those_that_end_in_0_and_255(one in any_interval()) {
        let buggy: Vec<_> = enumerated(one).into_iter().filter(|number| matches!(number % 256, 0 | 255)).collect();
        let found = one.buggy_addresses();
        prop_assert_eq!(found.map_or(0, |(number, _)| number), buggy.len() as u128);
        let first = buggy.first().map(|&number| IpFamily::V4.address(number));
        prop_assert_eq!(found.map(|(_, first)| first), first);
    }

    #[test]
    fn no_text_is_too_strange(text in "[0-9a-f:./ -]{0,40}") {
        if let Ok((read, _)) = Interval::parse(&text) {
            prop_assert!(read.first <= read.last);
        }
    }
}
