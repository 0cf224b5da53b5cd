//! Evaluation at scale; each kind of finding is in the corpus.

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

fn evaluated(text: &str, plan: &str, limit: usize) -> (PoolInventory, PoolsEvaluation) {
    let mut inventory = PoolInventory::default();
    manifest::read(&mut inventory, "one", "one.yaml", text);
    let plan = match plan {
        "" => AddressPlan::default(),
        plan => AddressPlan::read(&mut inventory, "plan.yaml", plan),
    };
    assert_eq!(inventory.unread, []);
    let evaluation = check_pools(&inventory, &plan, limit);
    (inventory, evaluation)
}

fn number(inventory: &PoolInventory, evaluation: &PoolsEvaluation, code: PoolFindingCode) -> usize {
    let findings = evaluation.findings.iter();
    findings.filter(|one| one.code(inventory) == code).count()
}

#[test]
fn thousands_of_pools_that_do_not_touch_are_fine() {
    let all = "---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: all}\n";
    let text = pools(5000, |index| {
        let (high, low) = (index / 256, index % 256);
        format!("10.{high}.{low}.1-10.{high}.{low}.254")
    });
    let (_, evaluation) = evaluated(&(text + all), "", 10);
    assert_eq!(evaluation.findings, []);
    assert_eq!(evaluation.more, 0);
}

#[test]
fn overlaps_beyond_the_limit_are_counted() {
    let (inventory, evaluation) = evaluated(&pools(2000, |_| "10.0.0.1-10.0.0.9".into()), "", 7);
    assert_eq!(
        number(&inventory, &evaluation, PoolFindingCode::PoolOverlap),
        7
    );
    assert_eq!(evaluation.more, 2000 * 1999 / 2 - 7);
    assert!(evaluation.has_level(&inventory, PoolFindingLevel::Error));
}

#[test]
fn unlisted_overlaps_still_make_the_result_an_error() {
    let text = pools(2, |_| "10.0.0.1-10.0.0.9".into());
    let (inventory, evaluation) = evaluated(&text, "", 0);
    assert_eq!(
        number(&inventory, &evaluation, PoolFindingCode::PoolOverlap),
        0
    );
    assert!(evaluation.has_level(&inventory, PoolFindingLevel::Error));
}

#[test]
fn evaluation_of_the_whole_address_space_is_cheap() {
    let text = pools(1, |_| "0.0.0.0/0, '::/0', 10.0.0.0/8".into());
    let (inventory, evaluation) = evaluated(&text, "{dhcp: ['::/1', 10.0.0.1]}", 10);
    assert_eq!(
        number(&inventory, &evaluation, PoolFindingCode::RangeOverlap),
        1
    );
    assert_eq!(
        number(&inventory, &evaluation, PoolFindingCode::ReservedOverlap),
        3
    );
}

#[test]
fn findings_are_sorted_by_location() {
    let text = pools(20, |index| {
        format!("10.0.0.{}/31, 10.0.0.{index}", 40 - index)
    });
    let (inventory, evaluation) = evaluated(&text, "", 100);
    let locations: Vec<_> = evaluation
        .findings
        .iter()
        .map(|finding| finding.locations(&inventory, &AddressPlan::default()).0)
        .collect();
    assert!(locations.is_sorted(), "{locations:?}");
    assert!(locations.len() > 40);
}
