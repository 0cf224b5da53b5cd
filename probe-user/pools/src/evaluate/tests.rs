//! Judging in the large; each kind of finding is in the corpus.

use std::fmt::Write as _;

use super::*;
use crate::{PoolFindingCode, manifest};

fn pools(number: usize, range: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for index in 0..number {
        write!(
            text,
            "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
             metadata: {{name: p{index}}}\nspec: {{addresses: [{}]}}\n",
            range(index)
        )
        .unwrap();
    }
    text
}

fn judged(text: &str, plan: &str, most: usize) -> (PoolInventory, PoolsVerdict) {
    let mut inventory = PoolInventory::default();
    manifest::read(&mut inventory, "one", "one.yaml", text);
    let plan = match plan {
        "" => AddressPlan::default(),
        plan => AddressPlan::read(&mut inventory, "plan.yaml", plan),
    };
    assert_eq!(inventory.unread, []);
    let verdict = check_pools(&inventory, &plan, most);
    (inventory, verdict)
}

fn number(inventory: &PoolInventory, verdict: &PoolsVerdict, code: PoolFindingCode) -> usize {
    let findings = verdict.findings.iter();
    findings.filter(|one| one.code(inventory) == code).count()
}

#[test]
fn thousands_of_pools_that_do_not_touch_are_fine() {
    let all = "---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: all}\n";
    let text = pools(5000, |index| {
        let (high, low) = (index / 256, index % 256);
        format!("10.{high}.{low}.1-10.{high}.{low}.254")
    });
    let (_, verdict) = judged(&(text + all), "", 10);
    assert_eq!(verdict.findings, []);
    assert_eq!(verdict.more, 0);
}

#[test]
fn of_too_many_overlaps_some_are_told_and_the_others_counted() {
    let (inventory, verdict) = judged(&pools(2000, |_| "10.0.0.1-10.0.0.9".into()), "", 7);
    assert_eq!(
        number(&inventory, &verdict, PoolFindingCode::PoolOverlap),
        7
    );
    assert_eq!(verdict.more, 2000 * 1999 / 2 - 7);
    assert!(verdict.has_level(&inventory, PoolFindingLevel::Error));
}

#[test]
fn overlaps_that_are_not_told_still_make_it_an_error() {
    let text = pools(2, |_| "10.0.0.1-10.0.0.9".into());
    let (inventory, verdict) = judged(&text, "", 0);
    assert_eq!(
        number(&inventory, &verdict, PoolFindingCode::PoolOverlap),
        0
    );
    assert!(verdict.has_level(&inventory, PoolFindingLevel::Error));
}

#[test]
fn everything_there_is_costs_what_one_address_does() {
    let text = pools(1, |_| "0.0.0.0/0, '::/0', 10.0.0.0/8".into());
    let (inventory, verdict) = judged(&text, "{dhcp: ['::/1', 10.0.0.1]}", 10);
    assert_eq!(
        number(&inventory, &verdict, PoolFindingCode::RangeOverlap),
        1
    );
    assert_eq!(
        number(&inventory, &verdict, PoolFindingCode::ReservedOverlap),
        3
    );
}

#[test]
fn findings_come_in_the_order_of_their_places() {
    let text = pools(20, |index| {
        format!("10.0.0.{}/31, 10.0.0.{index}", 40 - index)
    });
    let (inventory, verdict) = judged(&text, "", 100);
    let places: Vec<_> = verdict
        .findings
        .iter()
        .map(|finding| finding.locations(&inventory, &AddressPlan::default()).0)
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(places.len() > 40);
}
