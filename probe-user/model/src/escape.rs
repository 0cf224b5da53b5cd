//! Texts of others in what people and CI systems read: what a stranger wrote into a manifest or a file name is shown, and
//! does nothing.
//!
//! A terminal obeys escape sequences; a line break begins a line that looks like ours; some characters turn the order of
//! letters round. CI systems obey what programs print: GitHub and its like lines that begin with `::word` or have `##[word]`
//! (<https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs>), Azure and `TeamCity` `##word[`. They pass
//! over spaces before it, so where lines are wrapped any word may be at the beginning of one.

use std::{borrow::Cow, fmt::Write as _};

/// The text, with what would do something spelt out: `\n`, `\u{1b}`.
pub fn escape_untrusted(text: &str) -> Cow<'_, str> {
    let is_command = text.contains("##") || text.contains("::");
    if !is_command && !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut inert = String::with_capacity(text.len() + 8);
    for (at, letter) in text.char_indices() {
        if is_control(letter) {
            inert.extend(letter.escape_default());
        } else if starts_command(&text[at..]) {
            // Writing to a String does not fail.
            let _ = write!(inert, "{}", letter.escape_unicode());
        } else {
            inert.push(letter);
        }
    }
    Cow::Owned(inert)
}

/// Whether a character does something instead of being shown.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Line and paragraph separators, and what turns the order of letters round or takes no room.
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Whether this begins a command of a CI system. An IPv6 address is none.
fn starts_command(text: &str) -> bool {
    if text.starts_with("##") {
        return true;
    }
    let Some(rest) = text.strip_prefix("::") else {
        return false;
    };
    let in_word = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
    let mut word = rest.bytes().take_while(in_word);
    // Every command has a letter that no address has.
    word.any(|byte| byte.is_ascii_alphabetic() && !byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_do_something_is_spelt_out() {
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
            assert_eq!(escape_untrusted(shown), shown, "twice is once");
        }
    }

    #[test]
    fn what_does_nothing_stays_as_it_is() {
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
