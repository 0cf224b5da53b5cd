//! Text layout: wraps sentences, truncates names, and wraps commands so that they can still be pasted.

/// Wraps a paragraph into lines of at most `width` columns.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    // A hyphen may be part of a range or a command, so lines are not broken at hyphens.
    let options = textwrap::Options::new(width.max(1))
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let lines = textwrap::wrap(text, options);
    lines.into_iter().map(Into::into).collect()
}

/// Wraps a command into lines of at most `width` columns that a shell can read: continued lines end with a backslash.
pub fn command(text: &str, width: usize) -> Vec<String> {
    if width_of(text) <= width {
        return vec![text.to_owned()];
    }
    let mut lines = wrap(text, width.saturating_sub(2));
    let last = lines.len().saturating_sub(1);
    for line in &mut lines[..last] {
        line.push_str(" \\");
    }
    lines
}

/// Truncates a name to `width` columns, with an ellipsis at the end.
pub fn truncate_to_width(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for letter in text.chars() {
        if width_of(&short) + width_of(letter.encode_utf8(&mut [0; 4])) + 1 > width {
            break;
        }
        short.push(letter);
    }
    let mut short = short.trim_end().to_owned();
    if width > 0 {
        short.push('…');
    }
    short
}

/// The number of columns of a text.
pub fn width_of(text: &str) -> usize {
    textwrap::core::display_width(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_name_is_truncated_with_an_ellipsis() {
        assert_eq!(
            truncate_to_width("Cisco Systems, Inc", 18),
            "Cisco Systems, Inc"
        );
        assert_eq!(
            truncate_to_width("Cisco Systems, Inc", 15),
            "Cisco Systems,…"
        );
        assert_eq!(truncate_to_width("Cisco Systems, Inc", 7), "Cisco…");
        assert_eq!(truncate_to_width("株式会社", 5), "株式…");
        assert_eq!(truncate_to_width("anything", 0), "");
    }

    #[test]
    fn long_command_is_wrapped_with_a_backslash() {
        assert_eq!(command("ip neigh", 20), ["ip neigh"]);
        assert_eq!(
            command("ip neigh | grep -e 02:00:00:00:00:01", 24),
            ["ip neigh | grep -e \\", "02:00:00:00:00:01"]
        );
    }
}
