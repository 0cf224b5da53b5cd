//! Kubernetes label selectors (`matchLabels`, `matchExpressions`), as the API server sends them.

use std::collections::BTreeMap;

use probe_pools::Labels;
use serde_json::Value;

/// The value of a label of an object, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelValue<'a> {
    /// The object has it.
    Value(&'a str),
    /// The object does not have it.
    Absent,
    /// It was not read.
    Unknown,
}

impl<'a> LabelValue<'a> {
    /// The value, `None` if the label is absent. `Err` if it was not read.
    fn known(self) -> Result<Option<&'a str>, UnknownLabel> {
        match self {
            Self::Value(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Unknown => Err(UnknownLabel),
        }
    }
}

/// A label that was not read.
#[derive(Debug)]
struct UnknownLabel;

/// The labels of an object, as far as they were read.
pub trait ObjectLabels {
    /// The value of a label.
    fn value(&self, key: &str) -> LabelValue<'_>;
}

/// All labels of an object.
impl ObjectLabels for Labels {
    fn value(&self, key: &str) -> LabelValue<'_> {
        self.get(key)
            .map_or(LabelValue::Absent, |value| LabelValue::Value(value))
    }
}

/// Those labels of an object that selectors name; `None` of those that it does not have.
impl ObjectLabels for BTreeMap<String, Option<String>> {
    fn value(&self, key: &str) -> LabelValue<'_> {
        match self.get(key) {
            Some(Some(value)) => LabelValue::Value(value),
            Some(None) => LabelValue::Absent,
            None => LabelValue::Unknown,
        }
    }
}

/// Whether a label selector selects these labels; `None` if it cannot be understood, or names a label that was not read.
pub fn selects(selector: &Value, labels: &impl ObjectLabels) -> Option<bool> {
    if let Some(wanted) = selector.get("matchLabels").filter(|one| !one.is_null()) {
        for (key, value) in wanted.as_object()? {
            if labels.value(key).known().ok()? != value.as_str() {
                return Some(false);
            }
        }
    }
    let Some(expressions) = selector
        .get("matchExpressions")
        .filter(|one| !one.is_null())
    else {
        return Some(true);
    };
    for expression in expressions.as_array()? {
        let key = expression.get("key")?.as_str()?;
        let values = expression.get("values").and_then(Value::as_array);
        let label = labels.value(key).known().ok()?;
        let is_listed = values.is_some_and(|values| {
            label.is_some() && values.iter().any(|value| value.as_str() == label)
        });
        let is_met = match expression.get("operator")?.as_str()? {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => label.is_some(),
            "DoesNotExist" => label.is_none(),
            _ => return None,
        };
        if !is_met {
            return Some(false);
        }
    }
    Some(true)
}
