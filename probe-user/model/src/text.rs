//! Texts of bounded length.

use std::error::Error;

/// The maximum number of sources, because a chain of errors may be endless by mistake.
const MAX_SOURCES: usize = 8;

/// Writes an error and its sources in one line, without repeated messages.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    for _ in 0..MAX_SOURCES {
        let Some(source) = next else { break };
        let message = source.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        next = source.source();
    }
    text
}

/// Truncates a text to `max_bytes` bytes, with an ellipsis at its end.
pub fn truncate(mut text: String, max_bytes: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() > max_bytes {
        let end = max_bytes.saturating_sub(ELLIPSIS.len_utf8());
        text.truncate(text.floor_char_boundary(end));
        if max_bytes >= ELLIPSIS.len_utf8() {
            text.push(ELLIPSIS);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Layer {
        message: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(messages: &[&'static str]) -> Option<Box<Layer>> {
        let (&message, rest) = messages.split_first()?;
        let source = layers(rest);
        Some(Box::new(Layer { message, source }))
    }

    #[test]
    fn an_error_chain_names_each_cause_once_and_ends() {
        let chain = layers(&["cannot send", "cannot connect", "cannot connect", "refused"]);
        let text = error_chain(&*chain.unwrap());
        assert_eq!(text, "cannot send: cannot connect: refused");
        let deep = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        let text = error_chain(&*layers(&deep).unwrap());
        assert!(text.ends_with(": 8"), "{text}");
    }

    #[test]
    fn a_truncated_text_fits_and_ends_at_a_character() {
        assert_eq!(truncate("aä".to_owned(), 3), "aä");
        assert_eq!(truncate("ääää".to_owned(), 7), "ää…");
        assert_eq!(truncate("ääää".to_owned(), 3), "…");
        assert_eq!(truncate("abc".to_owned(), 2), "");
    }
}
