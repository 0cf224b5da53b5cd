//! The corpus: manifests as people write them. Each says behind `# expect:` what has to be found in that
//! line, and with which other place; nothing else may be found.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    Finding, Inventory, Place, Plan, Verdict, judge, manifest,
    report::{Page, Report},
};

/// The files of a case, as paths below it: those of a cluster are in a folder of its name.
fn files(case: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(case, &path));
        } else {
            found.push(path.strip_prefix(case).unwrap().to_owned());
        }
    }
    found.sort();
    found
}

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

pub(super) fn judged(case: &Path) -> (Inventory, Plan, Verdict) {
    let mut inventory = Inventory::default();
    let mut plan = Plan::default();
    for file in files(case, case) {
        let text = fs::read_to_string(case.join(&file)).unwrap();
        let name = file.to_str().unwrap();
        match file.parent().and_then(Path::to_str) {
            Some("") => plan = Plan::read(&mut inventory, name, &text),
            Some(cluster) => manifest::read(&mut inventory, cluster, name, &text),
            None => panic!("{name}"),
        }
    }
    let verdict = judge(&inventory, &plan, 1000);
    (inventory, plan, verdict)
}

fn found(
    inventory: &Inventory,
    plan: &Plan,
    verdict: &Verdict,
    asked: &BTreeSet<String>,
) -> BTreeSet<String> {
    let named = |place: Place| format!("{}:{}", inventory.files[place.file], place.mark.line);
    let describe = |finding: &Finding| {
        let (here, other) = finding.places(inventory, plan);
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

/// The folders of all cases.
pub(super) fn cases() -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pools/corpus");
    let entries = fs::read_dir(corpus).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
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
    assert!(codes.iter().eq(super::Code::ALL), "{codes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever becomes of a manifest on its way, there is a verdict.
    #[test]
    fn no_damage_makes_it_panic(
        which: prop::sample::Index,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..30_usize, ".{0,6}"), 1..8),
    ) {
        let case = which.get(&cases()).clone();
        let all = files(&case, &case);
        let mut inventory = Inventory::default();
        let mut plan = Plan::default();
        for file in all {
            let mut text: Vec<char> = fs::read_to_string(case.join(&file)).unwrap().chars().collect();
            for (at, length, instead) in &cuts {
                let at = at.index(text.len() + 1);
                let end = (at + length).min(text.len());
                text.splice(at..end, instead.chars());
            }
            let text: String = text.into_iter().collect();
            if file.ends_with("plan.yaml") {
                plan = Plan::read(&mut inventory, "plan.yaml", &text);
            } else {
                manifest::read(&mut inventory, "one", "one.yaml", &text);
                let _ = exclude("192.0.2.10/31", &text);
            }
        }
        let verdict = judge(&inventory, &plan, 10);
        let report = Report::new(&inventory, &plan, &verdict);
        let mut out = Vec::new();
        Page::new(60).write(&mut out, &report).unwrap();
        prop_assert!(!out.is_empty());
    }
}

fn exclude(range: &str, text: &str) -> bool {
    let (wanted, _) = super::interval::Interval::parse(range).unwrap();
    super::exclude::exclude(text, wanted).is_ok()
}
