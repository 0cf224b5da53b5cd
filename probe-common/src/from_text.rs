//! Deserializes values from their text form, without an allocator.

use core::{fmt, marker::PhantomData};

use serde::{Deserializer, de};

/// Deserializes a string and parses it with `parse`. `expected` describes the expected text in errors.
pub fn deserialize<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor {
        expected,
        parse,
        value: PhantomData,
    })
}

struct TextVisitor<F, T> {
    expected: &'static str,
    parse: F,
    value: PhantomData<T>,
}

impl<T, F: FnOnce(&str) -> Option<T>> de::Visitor<'_> for TextVisitor<F, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let Self {
            expected, parse, ..
        } = self;
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &expected))
    }
}
