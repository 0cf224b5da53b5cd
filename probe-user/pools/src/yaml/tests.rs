//! Parsing of documents, locations and rejected input.

use proptest::prelude::*;

use super::*;

fn only(text: &str) -> YamlDocument {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0).unwrap()
}

fn invalid(text: &str) -> InvalidDocument {
    let first_error = documents(text).into_iter().find_map(Result::err);
    first_error.unwrap()
}

#[test]
fn every_value_has_line_and_column() {
    let document = only("# head\na:\n  - b\n  - {c: dé, e: f}\n");
    let list: Vec<_> = document.root().get("a").unwrap().items().unwrap().collect();
    assert_eq!(list[0].mark(), YamlMark { line: 3, column: 5 });
    let e = list[1].get("e").unwrap();
    assert_eq!(
        (e.text(), e.mark()),
        (
            Some("f"),
            YamlMark {
                line: 4,
                column: 16
            }
        )
    );
}

#[test]
fn invalid_document_does_not_hide_its_neighbours() {
    for wrong in [
        "a: [1",
        "a: 'x",
        "a: \"x",
        "a: *none",
        "a: b: c",
        "- a\nb: c",
        "a: \u{1}",
    ] {
        let text = format!("one: 1\n---\n{wrong}\n---\ntwo: 2\n...\n---\nthree: 3\n");
        let read = documents(&text);
        let keys: Vec<_> = read
            .iter()
            .map(|one| {
                let document = one.as_ref().ok()?;
                let (key, _) = document.root().entries().next()?;
                key.text()
            })
            .collect();
        assert_eq!(
            keys,
            [Some("one"), None, Some("two"), Some("three")],
            "{wrong}"
        );
        let line = invalid(&text).mark.line;
        assert!((3..=5).contains(&line), "{wrong}: {line}");
    }
}

#[test]
fn template_is_distinguished_from_a_syntax_error() {
    let template = "a: 1\n---\nkind: X\n{{- if .Values.on }}\nb: c\n{{- end }}\n---\nd: [\n";
    let errors: Vec<_> = documents(template)
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert_eq!(errors[0].error, ManifestYamlError::Template);
    assert!(
        errors[0]
            .error
            .to_string()
            .contains("helm template CHART | probe pools check -")
    );
    assert_eq!(errors[0].mark.line, 4);
    assert!(
        matches!(errors[1].error, ManifestYamlError::Syntax(_)),
        "{errors:?}"
    );
}

#[test]
fn aliases_and_merges_are_resolved_without_copying() {
    let document = only("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\nd: {<<: [*a, {z: 3}]}\n");
    let at = |path: &[&str]| document.root().get_path(path).and_then(YamlValue::text);
    assert_eq!(at(&["b", "x"]), Some("1"));
    assert_eq!(at(&["c", "x"]), Some("1"));
    assert_eq!(at(&["c", "y"]), Some("2"));
    assert_eq!(at(&["d", "z"]), Some("3"));
    assert_eq!(at(&["d", "w"]), None);
}

#[test]
fn a_bomb_of_aliases_or_merges_stays_small() {
    use std::fmt::Write as _;
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..60 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{below}]").unwrap();
    }
    assert_eq!(only(&text).root().entries().count(), 60);

    let mut text = "m0: &m0 {k: v}\n".to_owned();
    for level in 1..40 {
        let below = vec![format!("*m{}", level - 1); 9].join(", ");
        writeln!(text, "m{level}: &m{level} {{<<: [{below}]}}").unwrap();
    }
    let document = only(&text);
    assert!(document.root().get_path(&["m39", "none"]).is_none());
    // The value contains itself.
    let document = only("a: &a {<<: *a, b: *a}\n");
    assert!(document.root().get_path(&["a", "b", "b", "c"]).is_none());
}

#[test]
fn duplicate_key_is_reported_with_both_lines() {
    let found = |text: &str| {
        let duplicates = only(text).duplicates();
        let messages = duplicates.iter().map(|invalid| {
            assert!(matches!(invalid.error, ManifestYamlError::Duplicate { .. }));
            (invalid.mark.line, invalid.error.to_string())
        });
        messages.collect::<Vec<_>>()
    };
    let messages = found("spec:\n  a: 1\n  b: 2\n  'a': 3\nmore: [{c: 1, c: 2}]\n");
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!((messages[0].0, messages[1].0), (4, 5));
    assert!(
        messages[0]
            .1
            .contains("duplicate key \"a\", first on line 2"),
        "{messages:?}"
    );
    // A key that overrides a merged key is not a duplicate.
    assert_eq!(found("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: [x, x]\n"), []);
    // A key may be an alias.
    assert_eq!(found("? &k addresses\n: 1\n? *k\n: 2\n").len(), 1);
    let many = found(&"a: 1\n".repeat(5000));
    assert_eq!(many.len(), MAX_DUPLICATES);
    let long = format!("{0}: 1\n{0}: 2\n", "k".repeat(1000));
    assert!(found(&long)[0].1.len() < 200);
}

#[test]
fn too_deep_or_too_large_document_is_rejected() {
    let deep = "[".repeat(100_000);
    assert!(matches!(invalid(&deep).error, ManifestYamlError::Syntax(_)));
    let levels: Vec<_> = (0..200).map(|depth| format!("{:depth$}a:\n", "")).collect();
    let deep = levels.concat();
    assert!(matches!(invalid(&deep).error, ManifestYamlError::Syntax(_)));
    let large = format!("[{}]\n---\na: b\n", "1,".repeat(MAX_NODES));
    let read = documents(&large);
    assert_eq!(
        read[0].as_ref().unwrap_err().error,
        ManifestYamlError::TooLarge
    );
    assert!(read[1].is_ok());
}

#[test]
fn null_is_no_text_unless_it_is_quoted() {
    let document = only("a:\nb: ~\nc: null\nd: 'null'\ne: ''\nf: !!str null\n");
    let at = |key| document.root().get(key).unwrap();
    for key in ["a", "b", "c"] {
        assert!(at(key).is_null(), "{key}");
    }
    assert_eq!(at("d").text(), Some("null"));
    assert_eq!(at("e").text(), Some(""));
    assert_eq!(at("f").text(), Some("null"));
}

#[test]
fn booleans_are_parsed_as_kubectl_does() {
    let boolean = |text: &str| {
        let document = only(&format!("a: {text}\n"));
        document.root().get("a").unwrap().boolean()
    };
    for text in ["true", "True", "TRUE", "yes", "On", "y", "Y"] {
        assert_eq!(boolean(text), Some(true), "{text}");
    }
    for text in ["false", "No", "OFF", "n"] {
        assert_eq!(boolean(text), Some(false), "{text}");
    }
    for text in [
        "'true'",
        "\"no\"",
        "tRUE",
        "1",
        "maybe",
        "",
        "[true]",
        "!!str true",
    ] {
        assert_eq!(boolean(text), None, "{text}");
    }
}

#[test]
fn json_with_tabs_and_crlf_line_ends_is_parsed() {
    let document = only("{\r\n\t\"a\": [\r\n\t\t\"b\"\r\n\t]\r\n}\r\n");
    let b = document
        .root()
        .get("a")
        .unwrap()
        .items()
        .unwrap()
        .next()
        .unwrap();
    assert_eq!(
        (b.text(), b.mark()),
        (Some("b"), YamlMark { line: 3, column: 3 })
    );
}

#[test]
fn block_scalar_has_line_positions() {
    let document = only("a:\n  config: |\n\n    x: y\nb: x\n");
    let block = document.root().get_path(&["a", "config"]).unwrap();
    let inner = only(block.text().unwrap()).nested(block.block_offset().unwrap());
    assert_eq!(inner.root().get("x").unwrap().mark().line, 4);
    assert_eq!(document.root().get("b").unwrap().block_offset(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_causes_a_panic(text in "\\PC{0,200}") {
        let _ = documents(&text);
    }

    #[test]
    fn no_mixture_of_yaml_indicators_causes_a_panic(text in "[\\[\\]{}:,\"'&*!|>%@`#?\\-~<= \n\ta-c.]{0,120}") {
        for document in documents(&text).iter().flatten() {
            let _ = document.root().get_path(&["a", "b"]);
            let _ = document.root().kind();
        }
    }
}
