//! The corpus: manifests as people write them. A comment `# expect:` lists the findings expected on its line,
//! optionally with the other location; no other findings are allowed.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    AddressPlan, PoolFinding, PoolInventory, PoolsEvaluation, SourceLocation,
    corpus::{cases, evaluated, files},
};

/// The findings expected by the comments of a case: `file:line code`, optionally followed by ` with file:line`.
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
    evaluation: &PoolsEvaluation,
    asked: &BTreeSet<String>,
) -> BTreeSet<String> {
    let named = |location: SourceLocation| {
        format!("{}:{}", inventory.files[location.file], location.mark.line)
    };
    let describe = |finding: &PoolFinding| {
        let (here, other) = finding.locations(inventory, plan);
        let short = format!("{} {}", named(here), finding.code(inventory));
        let long = other.map(|other| format!("{short} with {}", named(other)));
        // The other location is optional in a comment.
        match long {
            Some(long) if !asked.contains(&short) => long,
            _ => short,
        }
    };
    let unread = inventory.unread.iter().map(|unread| {
        let line = unread.mark.unwrap().line;
        format!("{}:{line} unread", inventory.files[unread.file])
    });
    evaluation
        .findings
        .iter()
        .map(describe)
        .chain(unread)
        .collect()
}

#[test]
fn corpus_findings_match_the_comments_exactly() {
    let cases = cases();
    let mut wrong = Vec::new();
    for case in &cases {
        let asked = expected(case);
        let (inventory, plan, evaluation) = evaluated(case);
        let found = found(&inventory, &plan, &evaluation, &asked);
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
fn corpus_contains_every_finding_code() {
    let mut codes = BTreeSet::new();
    for case in cases() {
        let (inventory, _, evaluation) = evaluated(&case);
        codes.extend(evaluation.findings.iter().map(|one| one.code(&inventory)));
    }
    assert!(codes.iter().eq(super::PoolFindingCode::ALL), "{codes:?}");
}
