//! Escapes untrusted text, for example from manifests and file names, in output for people and CI systems.
//!
//! Terminals interpret escape sequences; a line break starts a line that looks like our output; some characters reverse
//! the order of letters. CI systems interpret commands in the output: GitHub lines that start with `::word` or contain
//! `##[word]` (<https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs>), Azure and `TeamCity`
//! `##word[`. They skip leading spaces, so any word of a wrapped text may be at the start of a line.

use std::{borrow::Cow, fmt::Write as _};

/// Escapes control characters and the start of CI commands in a text, for example as `\n` or `\u{1b}`.
pub fn escape_untrusted(text: &str) -> Cow<'_, str> {
    let is_command = text.contains("##") || text.contains("::");
    if !is_command && !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for (at, letter) in text.char_indices() {
        if is_control(letter) {
            escaped.extend(letter.escape_default());
        } else if starts_command(&text[at..]) {
            // Writing to a String does not fail.
            let _ = write!(escaped, "{}", letter.escape_unicode());
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character controls the output instead of being shown.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Line and paragraph separators, bidirectional controls and characters without width.
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Whether the text starts with a command of a CI system. An IPv6 address is no command.
fn starts_command(text: &str) -> bool {
    if text.starts_with("##") {
        return true;
    }
    let Some(rest) = text.strip_prefix("::") else {
        return false;
    };
    let in_word = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
    let mut word = rest.bytes().take_while(in_word);
    // Every command has a letter that is no hexadecimal digit.
    word.any(|byte| byte.is_ascii_alphabetic() && !byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_commands_are_escaped() {
        for (text, shown) in [
            ("a\u{1b}[31mX", "a\\u{1b}[31mX"),
            ("x\n::error::injected", "x\\n\\u{3a}:error\\u{3a}:injected"),
            ("::add-mask::a", "\\u{3a}:add-mask::a"),
            ("::stop-commands::a", "\\u{3a}:stop-commands::a"),
            ("##[set-output name=a;]b", "\\u{23}#[set-output name=a;]b"),
            ("##vso[task.complete]", "\\u{23}#vso[task.complete]"),
            ("###vso[a]", "\\u{23}\\u{23}#vso[a]"),
            ("a\r\tb\u{7f}\u{9b}2J", "a\\r\\tb\\u{7f}\\u{9b}2J"),
            (
                "a\u{202e}b\u{2028}c\u{feff}",
                "a\\u{202e}b\\u{2028}c\\u{feff}",
            ),
        ] {
            assert_eq!(escape_untrusted(text), shown);
            assert_eq!(escape_untrusted(shown), shown, "escaping is idempotent");
        }
    }

    #[test]
    fn other_text_is_unchanged() {
        for text in [
            "pool default of cluster östlich: 株式",
            "::/0",
            "2001:db8::/32 and ::1",
            "::ffff:192.0.2.1",
            "::a-::dead:beef",
            "fe80::add-fe80::cafe",
            "a # b",
            "C:\\pools",
        ] {
            assert!(
                matches!(escape_untrusted(text), Cow::Borrowed(same) if same == text)
                    || escape_untrusted(text) == text
            );
        }
    }
}
