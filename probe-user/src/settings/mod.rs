//! Settings by flags, environment and one YAML file, in that order of precedence.
//!
//! The flags are the only definition. Values of variables and of the file become command line arguments that clap
//! parses; so a value has the same meaning and validation in all sources. A new flag automatically has a variable and a
//! key.
//!
//! A setting has one source: a flag overrides the variable and the key, and lists are not joined.

mod definition;
mod error;
mod file;
mod reload;
mod show;
mod template;
mod yaml;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command};

use self::{
    definition::{PREFIX, SettingDefinition, SettingDefinitions, ValueArity, variable},
    file::SettingsFile,
};
pub use self::{
    error::{ConfigLocation, SettingOrigin, SettingsError},
    reload::FileWatcher,
};

/// A setting in force, with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// The key in the file, which is the flag without its dashes.
    pub key: String,
    /// The values as written; `true` or `false` for a flag without value.
    pub values: Vec<OsString>,
    /// Whether several values are allowed.
    pub many: bool,
    /// Its source.
    pub origin: SettingOrigin,
}

/// The loaded settings.
#[derive(Debug)]
pub struct LoadedSettings {
    /// The matches of clap.
    pub matches: ArgMatches,
    /// The individual settings.
    pub settings: Vec<EffectiveSetting>,
    /// The settings file, with its content.
    pub file: Option<(PathBuf, Vec<u8>)>,
}

/// The command line and environment of a process, which stay the same when the file changes.
#[derive(Clone, Debug)]
pub struct Invocation {
    command: Command,
    /// The command line, including the program name.
    arguments: Vec<OsString>,
    /// The command.
    verb: String,
    definition: SettingDefinitions,
    variables: BTreeMap<String, OsString>,
    file: Option<PathBuf>,
}

impl Invocation {
    /// The invocation of a command. Variables without the prefix `ARP_MONITOR_`, and empty ones, are ignored.
    pub fn new(
        mut command: Command,
        verb: &str,
        arguments: Vec<OsString>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        command.build();
        let definition = command.find_subcommand(verb).map_or_else(
            || SettingDefinitions::of(&Command::new("")),
            SettingDefinitions::of,
        );
        let variables: BTreeMap<_, _> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        let matches = command.clone().try_get_matches_from(&arguments)?;
        let by_flag = matches
            .subcommand_matches(verb)
            .and_then(|verb| verb.get_one::<PathBuf>("config").cloned());
        let file = by_flag.or_else(|| variables.get(&variable("config")).map(PathBuf::from));
        Ok(Self {
            command,
            arguments,
            verb: verb.to_owned(),
            definition,
            variables,
            file,
        })
    }

    /// The path of the settings file.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Unknown variables with the prefix. Variables that Kubernetes sets for a service named arp-monitor are excluded.
    pub fn unknown_variables(&self) -> Vec<&str> {
        let of_a_service = |name: &str| {
            name.contains("_SERVICE_") || name.contains("_PORT_") || name.ends_with("_PORT")
        };
        let names = self.variables.keys().map(String::as_str);
        names
            .filter(|name| !self.definition.has_variable(name) && !of_a_service(name))
            .collect()
    }

    /// Reads the file, if there is one, and combines all sources.
    pub fn load(&self) -> Result<LoadedSettings, SettingsError> {
        let Some(path) = &self.file else {
            return self.load_with(None, None);
        };
        let bytes = file::read(path)?;
        let like = |key: &str| self.similar_flag(key);
        let file = SettingsFile::parse(path, &bytes, &self.definition, like)?;
        self.load_with(Some(&file), Some((path.clone(), bytes.clone())))
    }

    fn load_with(
        &self,
        file: Option<&SettingsFile>,
        source: Option<(PathBuf, Vec<u8>)>,
    ) -> Result<LoadedSettings, SettingsError> {
        let typed = self.parse(&[])?;
        let mut arguments = Vec::new();
        let mut origins = Vec::new();
        for setting in self.definition.iter() {
            let by_flag =
                typed.value_source(&setting.id) == Some(clap::parser::ValueSource::CommandLine);
            let variable = self.variables.get(&setting.variable);
            let entry = file.and_then(|file| {
                let mut entries = file.entries.iter();
                Some((file, entries.find(|entry| entry.id == setting.id)?))
            });
            // Overridden values are validated as well.
            let by_variable = variable
                .map(|value| self.arguments_of_variable(setting, value))
                .transpose()?;
            let by_file = entry
                .map(|(file, entry)| self.arguments_of_entry(setting, file, entry))
                .transpose()?;
            let (origin, chosen) = match (by_flag, by_variable, by_file) {
                (true, _, _) => (SettingOrigin::Flag, Vec::new()),
                (false, Some(arguments), _) => {
                    (SettingOrigin::Variable(setting.variable.clone()), arguments)
                }
                (false, None, Some((line, arguments))) => (SettingOrigin::Line(line), arguments),
                (false, None, None) => (SettingOrigin::Default, Vec::new()),
            };
            arguments.extend(chosen);
            origins.push(origin);
        }
        let matches = self.parse(&arguments)?;
        let settings = self.definition.iter().zip(origins);
        Ok(LoadedSettings {
            settings: settings
                .map(|(setting, origin)| EffectiveSetting::of(setting, origin, &matches))
                .collect(),
            matches,
            file: source,
        })
    }

    fn arguments_of_variable(
        &self,
        setting: &SettingDefinition,
        value: &OsStr,
    ) -> Result<Vec<OsString>, SettingsError> {
        let invalid = |why: String| SettingsError::Variable {
            variable: setting.variable.clone(),
            why,
        };
        let arguments = match setting.arity {
            ValueArity::One => vec![setting.value_text(Some(&value.to_owned()))],
            ValueArity::NoValue => match value.to_str() {
                Some("true" | "1") => vec![setting.value_text(None)],
                Some("false" | "0") => Vec::new(),
                _ => {
                    let value = value.display().to_string();
                    return Err(invalid(format!("{value:?} is not one of true, false")));
                }
            },
            ValueArity::Many(separator) => {
                let text = value
                    .to_str()
                    .ok_or_else(|| invalid("not UTF-8".to_owned()))?;
                let values = text.split(separator).map(str::trim);
                values
                    .filter(|value| !value.is_empty())
                    .map(|value| setting.value_text(Some(&value.into())))
                    .collect()
            }
        };
        self.check(setting, &arguments).map_err(invalid)?;
        Ok(arguments)
    }

    fn arguments_of_entry(
        &self,
        setting: &SettingDefinition,
        file: &SettingsFile,
        entry: &file::SettingsEntry,
    ) -> Result<(u64, Vec<OsString>), SettingsError> {
        let arguments: Vec<_> = entry
            .values
            .iter()
            .map(|(_, value)| setting.value_text(value.as_ref()))
            .collect();
        if self.check(setting, &arguments).is_err() {
            // The index of the first invalid value is the number of valid ones before it.
            let right = self.count_valid(setting, &arguments);
            let line = entry
                .values
                .get(right)
                .map_or(entry.line, |(line, _)| *line);
            let invalid = arguments.get(right..=right).unwrap_or(&arguments);
            self.check(setting, invalid)
                .map_err(|why| SettingsError::Value {
                    place: file.place(line),
                    key: entry.key.clone(),
                    why,
                })?;
        }
        Ok((entry.line, arguments))
    }

    /// The number of leading arguments that clap accepts.
    fn count_valid(&self, setting: &SettingDefinition, arguments: &[OsString]) -> usize {
        let (mut right, mut invalid) = (0, arguments.len());
        while right + 1 < invalid {
            let middle = usize::midpoint(right, invalid);
            match self.check(setting, &arguments[..middle]) {
                Ok(()) => right = middle,
                Err(_) => invalid = middle,
            }
        }
        right
    }

    /// Validates the arguments of one setting on their own.
    fn check(&self, setting: &SettingDefinition, arguments: &[OsString]) -> Result<(), String> {
        let before = [self.command.get_name(), &self.verb].map(OsString::from);
        let arguments = before.iter().chain(arguments);
        match self.command.clone().try_get_matches_from(arguments) {
            Ok(_) => Ok(()),
            // A flag that requires another flag is validated with all flags.
            Err(error) if error.kind() == clap::error::ErrorKind::MissingRequiredArgument => Ok(()),
            Err(error) => {
                tracing::debug!(key = setting.key, %error, "a setting is rejected");
                Err(error::why(&error))
            }
        }
    }

    /// Parses the command line with these additional arguments.
    fn parse(&self, more: &[OsString]) -> Result<ArgMatches, SettingsError> {
        let arguments = self.arguments.iter().chain(more);
        let matches = self.command.clone().try_get_matches_from(arguments)?;
        let verb = matches.subcommand_matches(&self.verb);
        Ok(verb.cloned().unwrap_or_default())
    }

    /// The flag that is most similar to a key.
    fn similar_flag(&self, key: &str) -> Option<String> {
        // The part after `=` is not part of the name.
        let flag = format!("--{}", key.split('=').next()?);
        let arguments = [self.command.get_name(), &self.verb, &flag].map(OsString::from);
        let error = self.command.clone().try_get_matches_from(arguments).err()?;
        let like = error::suggested_flag(&error)?;
        self.definition
            .with_key(&like)
            .map(|setting| setting.key.clone())
    }
}

impl EffectiveSetting {
    fn of(setting: &SettingDefinition, origin: SettingOrigin, matches: &ArgMatches) -> Self {
        let values = if setting.arity == ValueArity::NoValue {
            vec![matches.get_flag(&setting.id).to_string().into()]
        } else {
            let raw = matches.get_raw(&setting.id);
            raw.map_or_else(Vec::new, |values| values.map(OsStr::to_owned).collect())
        };
        Self {
            key: setting.key.clone(),
            values,
            many: matches!(setting.arity, ValueArity::Many(_)),
            origin,
        }
    }
}

/// The keys of the settings whose values differ.
pub fn changed(before: &[EffectiveSetting], now: &[EffectiveSetting]) -> Vec<String> {
    let pairs = before.iter().zip(now);
    pairs
        .filter(|(before, now)| before.values != now.values)
        .map(|(_, now)| now.key.clone())
        .collect()
}
