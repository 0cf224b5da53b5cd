//! Test helpers for the JSON schemas in the documentation.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test helpers: a panic fails the test"
)]

use std::collections::BTreeSet;

use serde_json::Value;

/// A JSON schema.
pub struct Schema(pub Value);

impl Schema {
    /// Parses a schema.
    pub fn new(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    /// Asserts that all values are valid, and that there is at least one.
    pub fn assert_valid(&self, values: &[Value]) {
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&self.0)
            .unwrap();
        assert!(!values.is_empty());
        for value in values {
            let errors: Vec<_> = validator
                .iter_errors(value)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{errors:?}: {value}");
        }
    }

    /// The labels that the `enum` at this pointer allows.
    pub fn labels(&self, pointer: &str) -> Vec<&str> {
        let list = self.0.pointer(pointer).unwrap().as_array().unwrap();
        list.iter().map(|label| label.as_str().unwrap()).collect()
    }

    /// The fields that the `properties` at this pointer describe.
    pub fn fields(&self, pointer: &str) -> BTreeSet<String> {
        fields([self.0.pointer(pointer).unwrap()])
    }
}

/// The fields of all objects together. Other values have none.
pub fn fields<'a>(objects: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    let objects = objects.into_iter().filter_map(Value::as_object);
    objects.flat_map(|object| object.keys().cloned()).collect()
}
