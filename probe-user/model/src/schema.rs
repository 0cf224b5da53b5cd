//! What tests ask of the JSON schemas in the documentation.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::collections::BTreeSet;

use serde_json::Value;

/// A schema.
pub struct Schema(pub Value);

impl Schema {
    /// Reads it.
    pub fn new(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    /// Every value is as it says, and there is one.
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

    /// The words that it allows there.
    pub fn words(&self, pointer: &str) -> Vec<&str> {
        let list = self.0.pointer(pointer).unwrap().as_array().unwrap();
        list.iter().map(|word| word.as_str().unwrap()).collect()
    }

    /// The fields that it describes there.
    pub fn fields(&self, pointer: &str) -> BTreeSet<String> {
        fields([self.0.pointer(pointer).unwrap()])
    }
}

/// The fields of all objects together; what is none has none.
pub fn fields<'a>(objects: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    let objects = objects.into_iter().filter_map(Value::as_object);
    objects.flat_map(|object| object.keys().cloned()).collect()
}
