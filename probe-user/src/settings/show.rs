//! Shows the settings in force as a settings file with the source of each.

use std::fmt::Write as _;

use super::{EffectiveSetting, LoadedSettings, SettingOrigin};

impl LoadedSettings {
    /// The settings as YAML, which can be read as a settings file with the same meaning.
    pub fn show(&self) -> String {
        let path = self
            .file
            .as_ref()
            .map(|(path, _)| path.display().to_string());
        let mut text = String::new();
        for setting in &self.settings {
            let origin = match &setting.origin {
                SettingOrigin::Flag => format!("--{}", setting.key),
                SettingOrigin::Variable(name) => name.clone(),
                SettingOrigin::Line(line) => {
                    format!("{}:{line}", path.as_deref().unwrap_or_default())
                }
                SettingOrigin::Default => "default".to_owned(),
            };
            // Writing to a string cannot fail.
            let _ = write_one(&mut text, setting, &origin);
        }
        text
    }
}

fn write_one(text: &mut String, setting: &EffectiveSetting, origin: &str) -> std::fmt::Result {
    let key = &setting.key;
    let values: Vec<_> = setting
        .values
        .iter()
        .map(|value| scalar(&value.to_string_lossy()))
        .collect();
    match (&values[..], setting.many) {
        ([], false) => writeln!(text, "{key}: null  # {origin}"),
        ([], true) => writeln!(text, "{key}: []  # {origin}"),
        ([value], false) => writeln!(text, "{key}: {value}  # {origin}"),
        (values, _) => {
            writeln!(text, "{key}:  # {origin}")?;
            values
                .iter()
                .try_for_each(|value| writeln!(text, "  - {value}"))
        }
    }
}

/// A scalar, quoted if it could have another meaning.
fn scalar(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "./_-:".contains(letter);
    let has_valid_start =
        text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
    let is_ambiguous = ["null", "~"].contains(&text.to_ascii_lowercase().as_str());
    if has_valid_start && text.chars().all(plain) && !text.ends_with(':') && !is_ambiguous {
        text.to_owned()
    } else {
        // JSON is YAML.
        serde_json::Value::from(text).to_string()
    }
}
