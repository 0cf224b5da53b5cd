//! Text in columns: words are wrapped, names are cut, commands stay commands.

/// The words of a paragraph, in lines of this width.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    // A hyphen may join a range or the parts of a command: no place to break.
    let options = textwrap::Options::new(width.max(1))
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let lines = textwrap::wrap(text, options);
    lines.into_iter().map(Into::into).collect()
}

/// A command in lines of this width, as a shell reads it: what goes on ends with a backslash.
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

/// A name in not more than this width, which an ellipsis ends where it was cut.
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

/// The columns that a text takes.
pub fn width_of(text: &str) -> usize {
    textwrap::core::display_width(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_at_its_width_and_says_so() {
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
    fn a_long_command_goes_on_after_a_backslash() {
        assert_eq!(command("ip neigh", 20), ["ip neigh"]);
        assert_eq!(
            command("ip neigh | grep -e 02:00:00:00:00:01", 24),
            ["ip neigh | grep -e \\", "02:00:00:00:00:01"]
        );
    }
}
