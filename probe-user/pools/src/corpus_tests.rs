//! The corpus: manifests as people write them. Each says behind `# expect:` what has to be found in that
//! line, and with which other place; nothing else may be found.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    AddressPlan, PoolFinding, PoolInventory, PoolsVerdict, SourceLocation,
    corpus::{cases, files, judged},
};

/// What the comments of a case ask for: `file:line code`, with ` with file:line` where they say so.
fn expected(case: &Path) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for file in files(case, case) {
        let text = fs::read_to_string(case.join(&file)).unwrap();
        for (line, number) in text.lines().zip(1..) {
            let Some((_, list)) = line.split_once("# expect: ") else {
                continue;
            };
            for one in list.split(", ") {
                assert!(expected.insert(format!("{}:{number} {one}", file.display())));
            }
        }
    }
    expected
}

fn found(
    inventory: &PoolInventory,
    plan: &AddressPlan,
    verdict: &PoolsVerdict,
    asked: &BTreeSet<String>,
) -> BTreeSet<String> {
    let named =
        |place: SourceLocation| format!("{}:{}", inventory.files[place.file], place.mark.line);
    let describe = |finding: &PoolFinding| {
        let (here, other) = finding.locations(inventory, plan);
        let short = format!("{} {}", named(here), finding.code(inventory));
        let long = other.map(|other| format!("{short} with {}", named(other)));
        // The other place may be asked for, or not.
        match long {
            Some(long) if !asked.contains(&short) => long,
            _ => short,
        }
    };
    let unread = inventory.unread.iter().map(|unread| {
        let line = unread.mark.unwrap().line;
        format!("{}:{line} unread", inventory.files[unread.file])
    });
    verdict
        .findings
        .iter()
        .map(describe)
        .chain(unread)
        .collect()
}

#[test]
fn in_every_case_what_the_comments_say_is_found_and_nothing_else() {
    let cases = cases();
    let mut wrong = Vec::new();
    for case in &cases {
        let asked = expected(case);
        let (inventory, plan, verdict) = judged(case);
        let found = found(&inventory, &plan, &verdict, &asked);
        let missing: Vec<_> = asked.difference(&found).collect();
        let surplus: Vec<_> = found.difference(&asked).collect();
        if !(missing.is_empty() && surplus.is_empty()) {
            wrong.push(format!(
                "{}: missing {missing:#?}, surplus {surplus:#?}",
                case.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cases.len(), 9);
}

#[test]
fn the_corpus_has_every_kind_of_finding() {
    let mut codes = BTreeSet::new();
    for case in cases() {
        let (inventory, _, verdict) = judged(&case);
        codes.extend(verdict.findings.iter().map(|one| one.code(&inventory)));
    }
    assert!(codes.iter().eq(super::PoolFindingCode::ALL), "{codes:?}");
}
