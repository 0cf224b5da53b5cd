//! The settings, read off the flags: each flag of a verb has an environment variable and a key in the file.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::template::ValueTemplate;

/// What the names of environment variables begin with.
pub(super) const PREFIX: &str = "ARP_MONITOR_";

/// Flags that say where settings come from, and so are no settings; those that a variable may give too.
const ABOUT_SETTINGS: [(&str, bool); 4] = [
    ("config", true),
    ("check_config", false),
    ("help", false),
    ("version", false),
];

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueArity {
    /// Nothing: it is there or not.
    NoValue,
    /// One value.
    One,
    /// Any number of values. In a variable, this stands between them.
    Many(char),
}

/// A setting.
#[derive(Clone, Debug)]
pub(super) struct SettingDefinition {
    /// What clap calls it.
    pub id: String,
    /// The flag, without its dashes, and the key in the file.
    pub key: String,
    /// Other words for the key.
    pub aliases: Vec<String>,
    /// The environment variable.
    pub variable: String,
    pub arity: ValueArity,
    pub template: ValueTemplate,
}

/// The settings of a verb.
#[derive(Clone, Debug)]
pub(super) struct SettingDefinitions(Vec<SettingDefinition>);

impl SettingDefinitions {
    /// Those of a verb.
    pub fn of(verb: &Command) -> Self {
        let flags = verb.get_arguments();
        Self(flags.filter_map(SettingDefinition::of).collect())
    }

    /// All of them, in the order of the flags.
    pub fn iter(&self) -> impl Iterator<Item = &SettingDefinition> {
        self.0.iter()
    }

    /// The one with this key.
    pub fn with_key(&self, key: &str) -> Option<&SettingDefinition> {
        let is_meant = |setting: &&SettingDefinition| {
            setting.key == key || setting.aliases.iter().any(|alias| alias == key)
        };
        self.0.iter().find(is_meant)
    }

    /// Every key.
    pub fn keys(&self) -> Vec<String> {
        self.0.iter().map(|setting| setting.key.clone()).collect()
    }

    /// Whether a variable of this name means something.
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
            // What has no separator of its own takes lines: a reason may have any other letter in it.
            ArgAction::Append => ValueArity::Many(flag.get_value_delimiter().unwrap_or('\n')),
            ArgAction::SetTrue => ValueArity::NoValue,
            // Nothing that a file could say. The test of all flags finds them.
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

    /// The setting as a word of a command line; without a value the flag alone.
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
