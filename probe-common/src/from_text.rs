//! Reading values back from the text that they are written as, without an allocator.

use core::{fmt, marker::PhantomData};

use serde::{Deserializer, de};

/// Reads a string and gives it to `read`; `what` is what the error says was expected.
pub fn deserialize<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    what: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Text {
        what,
        read,
        value: PhantomData,
    })
}

struct Text<F, T> {
    what: &'static str,
    read: F,
    value: PhantomData<T>,
}

impl<T, F: FnOnce(&str) -> Option<T>> de::Visitor<'_> for Text<F, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let Self { what, read, .. } = self;
        read(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &what))
    }
}
