//! Errors of settings, with their location and the expected value.

use std::{error::Error as _, fmt, io, path::PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The source of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// The command line.
    Flag,
    /// An environment variable, by its name.
    Variable(String),
    /// A line of the file, from 1.
    Line(u64),
    /// The default.
    Default,
}

/// A location in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigLocation {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, if the error is on a line.
    pub line: Option<u64>,
}

impl fmt::Display for ConfigLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.path.display()),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

/// Why settings are invalid.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The command line is invalid, or inconsistent with the other settings.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read the settings in {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is not a settings file.
    #[error("{place}: {what}")]
    File {
        /// Where.
        place: ConfigLocation,
        /// Why.
        what: String,
    },
    /// The file has an unknown key.
    #[error(
        "{place}: unknown setting {key:?}{}; the settings are: {}",
        like.as_ref().map(|like| format!(" (is {like} meant?)")).unwrap_or_default(),
        known.join(", ")
    )]
    UnknownKey {
        /// Where.
        place: ConfigLocation,
        /// The key.
        key: String,
        /// A similar key.
        like: Option<String>,
        /// The valid keys.
        known: Vec<String>,
    },
    /// A setting in the file has an invalid value.
    #[error("{place}: {key}: {why}")]
    Value {
        /// Where.
        place: ConfigLocation,
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
    /// An environment variable has an invalid value.
    #[error("the environment variable {variable}: {why}")]
    Variable {
        /// Which.
        variable: String,
        /// Why.
        why: String,
    },
}

/// The error of a value, in a sentence without the name of the flag.
pub(super) fn why(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(texts.join(", ")),
        _ => None,
    };
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidValue => {
            let allowed = context(ContextKind::ValidValue);
            let like = context(ContextKind::SuggestedValue)
                .map_or_else(String::new, |like| format!(" (is {like} meant?)"));
            match allowed {
                Some(allowed) => format!("{value:?} is not one of {allowed}{like}"),
                None => "a value is missing".to_owned(),
            }
        }
        ErrorKind::ValueValidation => {
            let mut text = format!("{value:?}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(": ");
                text.push_str(&error.to_string());
                cause = error.source();
            }
            text
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    }
}

/// The flag suggested by clap, without dashes.
pub(super) fn suggested_flag(error: &clap::Error) -> Option<String> {
    let suggested = match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(text) => text,
        ContextValue::Strings(texts) => texts.first()?,
        _ => return None,
    };
    Some(suggested.trim_start_matches('-').to_owned())
}
