//! `probe completions` and `probe man` list every subcommand and flag of `--help`.

use std::{collections::BTreeSet, fs, process::Command};

use probe_tests::binary;
use tempfile::TempDir;

/// A subcommand path: `["pools", "check"]`. The program itself is the empty path.
type Path = Vec<String>;

/// The help of a subcommand.
struct Help {
    path: Path,
    /// The flags with dashes: `--fail-on-conflict`.
    flags: BTreeSet<String>,
}

fn run(words: &[&str]) -> String {
    let output = Command::new(binary().unwrap()).args(words).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Reads the help of a subcommand and its subcommands.
fn helps(path: Path, all: &mut Vec<Help>) {
    let words: Vec<_> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let text = run(&words);
    let (before, options) = text.split_once("\nOptions:\n").unwrap();
    // Descriptions are further to the right.
    let flags = options
        .lines()
        .filter(|line| line.len() - line.trim_start().len() < 8)
        .filter(|line| line.trim_start().starts_with('-'))
        .filter_map(|line| {
            let (_, name) = line.split_once("--")?;
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            Some(format!("--{}", &name[..end.unwrap_or(name.len())]))
        })
        .collect();
    let verbs = before.split_once("\nCommands:\n");
    let verbs = verbs.into_iter().flat_map(|(_, verbs)| verbs.lines());
    let verbs = verbs
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|&verb| verb != "help");
    let below: Vec<Path> = verbs
        .map(|verb| [&path[..], &[verb.to_owned()]].concat())
        .collect();
    all.push(Help { path, flags });
    for path in below {
        helps(path, all);
    }
}

fn all_helps() -> Vec<Help> {
    let mut all = Vec::new();
    helps(Vec::new(), &mut all);
    assert!(all.len() > 15, "{}", all.len());
    let watch = all.iter().find(|help| help.path == ["watch"]).unwrap();
    for flag in ["--fail-on-conflict", "--finding", "--help"] {
        assert!(watch.flags.contains(flag), "{:?}", watch.flags);
    }
    all
}

/// The flags in a text.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split_whitespace();
    let flags = words.filter(|word| word.starts_with("--"));
    flags.map(str::to_owned).collect()
}

#[test]
fn completions_of_bash_have_every_verb_and_flag() {
    let script = run(&["completions", "bash"]);
    for help in all_helps() {
        let below = help
            .path
            .iter()
            .map(|verb| format!("__subcmd__{}", verb.replace('-', "__subcmd__")));
        let label = format!("\n        probe{})\n", below.collect::<String>());
        let section = script
            .split(&label)
            .nth(1)
            .unwrap_or_else(|| panic!("{label}"));
        let options = section.split("opts=\"").nth(1).unwrap();
        let options = options.split('"').next().unwrap();
        assert!(flags(options).is_superset(&help.flags), "{:?}", help.path);
    }
}

#[test]
fn completions_of_fish_have_every_verb_and_flag() {
    let script = run(&["completions", "fish"]);
    for help in all_helps() {
        let condition = match &help.path[..] {
            [] => "__fish_probe_needs_command".to_owned(),
            [verb] => format!("__fish_probe_using_subcommand {verb}"),
            [verb, below] => format!(
                "__fish_probe_using_subcommand {verb}; and __fish_seen_subcommand_from {below}"
            ),
            path => panic!("{path:?} is too deep"),
        };
        let lines = script.lines().filter(|line| line.contains(&condition));
        let known: BTreeSet<_> = lines
            .filter_map(|line| line.split_once(" -l ")?.1.split_whitespace().next())
            .map(|name| format!("--{name}"))
            .collect();
        assert!(known.is_superset(&help.flags), "{:?}", help.path);
    }
}

#[test]
fn completions_of_zsh_have_every_verb_and_flag() {
    let script = run(&["completions", "zsh"]);
    for help in all_helps() {
        let label = help.path.last().map_or_else(
            || "_arguments".to_owned(),
            |verb| format!("\n({verb})\n_arguments"),
        );
        let trimmed: String = script
            .lines()
            .flat_map(|line| [line.trim_start(), "\n"])
            .collect();
        // Several subcommands may have a subcommand of the same name.
        let has_all = trimmed
            .split("&& ret=0")
            .filter_map(|section| section.split_once(&label))
            .any(|(_, section)| {
                let has = |flag: &String| {
                    ["[", "=[", "=-["]
                        .iter()
                        .any(|end| section.contains(&format!("{flag}{end}")))
                };
                help.flags.iter().all(has)
            });
        assert!(has_all, "{:?}: {:?}", help.path, help.flags);
    }
}

#[test]
fn completions_of_other_shells_have_every_verb() {
    for shell in ["elvish", "powershell"] {
        let script = run(&["completions", shell]);
        for help in all_helps() {
            let verbs = help.path.join(";");
            assert!(script.contains(&verbs), "{shell}: {verbs}");
        }
    }
}

#[test]
fn there_is_a_man_page_for_every_verb_that_has_every_flag() {
    let directory = TempDir::new().unwrap();
    run(&["man", directory.path().to_str().unwrap()]);
    let mut expected = BTreeSet::new();
    for help in all_helps() {
        let name = [&["probe".to_owned()], &help.path[..]].concat().join("-");
        let page = fs::read_to_string(directory.path().join(format!("{name}.1"))).unwrap();
        for flag in &help.flags {
            let roff = flag.replace('-', "\\-");
            assert!(page.contains(&roff), "{name}: {flag}");
        }
        expected.insert(format!("{name}.1"));
    }
    let pages = fs::read_dir(directory.path()).unwrap();
    let pages: BTreeSet<_> = pages
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(pages, expected);
}
