//! The definitions of the settings, derived from the flags: each flag of a command has an environment variable and a
//! key in the file.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::template::ValueTemplate;

/// The prefix of environment variables.
pub(super) const PREFIX: &str = "ARP_MONITOR_";

/// Flags that are not settings, and whether a variable exists for them.
const ABOUT_SETTINGS: [(&str, bool); 4] = [
    ("config", true),
    ("check_config", false),
    ("help", false),
    ("version", false),
];

/// The number of values of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueArity {
    /// None: the flag is present or absent.
    NoValue,
    /// One value.
    One,
    /// Any number of values, with this separator in a variable.
    Many(char),
}

/// A setting.
#[derive(Clone, Debug)]
pub(super) struct SettingDefinition {
    /// The ID in clap.
    pub id: String,
    /// The name of the flag without dashes, which is the key in the file.
    pub key: String,
    /// Aliases of the key.
    pub aliases: Vec<String>,
    /// The environment variable.
    pub variable: String,
    pub arity: ValueArity,
    pub template: ValueTemplate,
}

/// The settings of a command.
#[derive(Clone, Debug)]
pub(super) struct SettingDefinitions(Vec<SettingDefinition>);

impl SettingDefinitions {
    /// The settings of a command.
    pub fn of(verb: &Command) -> Self {
        let flags = verb.get_arguments();
        Self(flags.filter_map(SettingDefinition::of).collect())
    }

    /// All settings, in the order of the flags.
    pub fn iter(&self) -> impl Iterator<Item = &SettingDefinition> {
        self.0.iter()
    }

    /// The setting with this key.
    pub fn with_key(&self, key: &str) -> Option<&SettingDefinition> {
        let is_meant = |setting: &&SettingDefinition| {
            setting.key == key || setting.aliases.iter().any(|alias| alias == key)
        };
        self.0.iter().find(is_meant)
    }

    /// All keys.
    pub fn keys(&self) -> Vec<String> {
        self.0.iter().map(|setting| setting.key.clone()).collect()
    }

    /// Whether a variable with this name exists.
    pub fn has_variable(&self, name: &str) -> bool {
        let about = ABOUT_SETTINGS.iter().filter(|(_, variable)| *variable);
        about.into_iter().any(|(id, _)| variable(id) == name)
            || self.0.iter().any(|setting| setting.variable == name)
    }
}

impl SettingDefinition {
    fn of(flag: &Arg) -> Option<Self> {
        let id = flag.get_id().as_str();
        let key = flag.get_long()?;
        if ABOUT_SETTINGS.iter().any(|(about, _)| *about == id) {
            return None;
        }
        let arity = match flag.get_action() {
            ArgAction::Set => ValueArity::One,
            // Flags without a separator use line breaks: a reason may contain any other character.
            ArgAction::Append => ValueArity::Many(flag.get_value_delimiter().unwrap_or('\n')),
            ArgAction::SetTrue => ValueArity::NoValue,
            // A file cannot express other actions. The test of all flags detects them.
            _ => return None,
        };
        let value_names = flag.get_value_names().unwrap_or_default();
        let aliases = flag.get_all_aliases().unwrap_or_default();
        Some(Self {
            id: id.to_owned(),
            key: key.to_owned(),
            aliases: aliases.into_iter().map(str::to_owned).collect(),
            variable: variable(key),
            arity,
            template: ValueTemplate::new(value_names.first().map_or("", |name| name.as_str())),
        })
    }

    /// The setting as a command line argument; without a value only the flag.
    pub fn value_text(&self, value: Option<&OsString>) -> OsString {
        let mut word = OsString::from(format!("--{}", self.key));
        if let Some(value) = value {
            word.push("=");
            word.push(value);
        }
        word
    }
}

/// The environment variable of a flag.
pub(super) fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}
