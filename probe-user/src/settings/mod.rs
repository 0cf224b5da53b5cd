//! Settings by flags, environment and one YAML file, in that order of precedence.
//!
//! The flags are the one definition. What a variable or the file says becomes words of a command line, which
//! clap reads like any other; so a value means the same, and is refused for the same reasons, wherever it
//! stands. Whoever adds a flag has added its variable and its key.
//!
//! A setting comes from one place: a flag hides the variable and the key, lists are not joined.

mod definition;
mod error;
mod file;
mod follow;
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
    definition::{Definition, PREFIX, Setting, Takes, variable},
    file::File,
};
pub use self::{
    error::{Origin, Place, SettingsError},
    follow::Follower,
};

/// The settings in force: what was set, by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The key in the file, which is the flag without its dashes.
    pub key: String,
    /// The values as they were written. Of a flag without value, `true` or `false`.
    pub values: Vec<OsString>,
    /// Whether there may be several values.
    pub many: bool,
    /// Who set it.
    pub origin: Origin,
}

/// Settings that were read.
#[derive(Debug)]
pub struct Loaded {
    /// For clap to make its arguments of.
    pub matches: ArgMatches,
    /// One by one.
    pub settings: Vec<Effective>,
    /// The file that they came from, and what was in it.
    pub file: Option<(PathBuf, Vec<u8>)>,
}

/// How a process was started: what stays the same when the file changes.
#[derive(Clone, Debug)]
pub struct Invocation {
    command: Command,
    /// The command line, the program's name included.
    words: Vec<OsString>,
    /// Whose settings they are.
    verb: String,
    definition: Definition,
    variables: BTreeMap<String, OsString>,
    file: Option<PathBuf>,
}

impl Invocation {
    /// How a process was started whose words are those of a verb of the command. Variables that do not begin
    /// with `ARP_MONITOR_` are not looked at, nor are empty ones.
    pub fn new(
        mut command: Command,
        verb: &str,
        words: Vec<OsString>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        command.build();
        let definition = command
            .find_subcommand(verb)
            .map_or_else(|| Definition::of(&Command::new("")), Definition::of);
        let variables: BTreeMap<_, _> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        let matches = command.clone().try_get_matches_from(&words)?;
        let by_flag = matches
            .subcommand_matches(verb)
            .and_then(|verb| verb.get_one::<PathBuf>("config").cloned());
        let file = by_flag.or_else(|| variables.get(&variable("config")).map(PathBuf::from));
        Ok(Self {
            command,
            words,
            verb: verb.to_owned(),
            definition,
            variables,
            file,
        })
    }

    /// The file of settings.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Variables that look as if they were meant for a setting, and mean nothing. Those that Kubernetes sets
    /// for a service called arp-monitor are not among them.
    pub fn strange_variables(&self) -> Vec<&str> {
        let of_a_service = |name: &str| {
            name.contains("_SERVICE_") || name.contains("_PORT_") || name.ends_with("_PORT")
        };
        let names = self.variables.keys().map(String::as_str);
        names
            .filter(|name| !self.definition.knows_variable(name) && !of_a_service(name))
            .collect()
    }

    /// Reads the file, if there is one, and puts everything together.
    pub fn load(&self) -> Result<Loaded, SettingsError> {
        let Some(path) = &self.file else {
            return self.load_with(None, None);
        };
        let bytes = file::read(path)?;
        let like = |key: &str| self.flag_like(key);
        let file = File::parse(path, &bytes, &self.definition, like)?;
        self.load_with(Some(&file), Some((path.clone(), bytes.clone())))
    }

    fn load_with(
        &self,
        file: Option<&File>,
        source: Option<(PathBuf, Vec<u8>)>,
    ) -> Result<Loaded, SettingsError> {
        let typed = self.parse(&[])?;
        let mut words = Vec::new();
        let mut origins = Vec::new();
        for setting in self.definition.iter() {
            let by_flag =
                typed.value_source(&setting.id) == Some(clap::parser::ValueSource::CommandLine);
            let variable = self.variables.get(&setting.variable);
            let entry = file.and_then(|file| {
                let mut entries = file.entries.iter();
                Some((file, entries.find(|entry| entry.id == setting.id)?))
            });
            // What is hidden is looked at as well: it is wrong, even if it does no harm today.
            let by_variable = variable
                .map(|value| self.words_of_variable(setting, value))
                .transpose()?;
            let by_file = entry
                .map(|(file, entry)| self.words_of_entry(setting, file, entry))
                .transpose()?;
            let (origin, chosen) = match (by_flag, by_variable, by_file) {
                (true, _, _) => (Origin::Flag, Vec::new()),
                (false, Some(words), _) => (Origin::Variable(setting.variable.clone()), words),
                (false, None, Some((line, words))) => (Origin::Line(line), words),
                (false, None, None) => (Origin::Default, Vec::new()),
            };
            words.extend(chosen);
            origins.push(origin);
        }
        let matches = self.parse(&words)?;
        let settings = self.definition.iter().zip(origins);
        Ok(Loaded {
            settings: settings
                .map(|(setting, origin)| Effective::of(setting, origin, &matches))
                .collect(),
            matches,
            file: source,
        })
    }

    fn words_of_variable(
        &self,
        setting: &Setting,
        value: &OsStr,
    ) -> Result<Vec<OsString>, SettingsError> {
        let wrong = |why: String| SettingsError::Variable {
            variable: setting.variable.clone(),
            why,
        };
        let words = match setting.takes {
            Takes::One => vec![setting.word(Some(&value.to_owned()))],
            Takes::Nothing => match value.to_str() {
                Some("true" | "1") => vec![setting.word(None)],
                Some("false" | "0") => Vec::new(),
                _ => {
                    let value = value.display().to_string();
                    return Err(wrong(format!("{value:?} is none of true, false")));
                }
            },
            Takes::Many(separator) => {
                let text = value
                    .to_str()
                    .ok_or_else(|| wrong("it is not UTF-8".to_owned()))?;
                let values = text.split(separator).map(str::trim);
                values
                    .filter(|value| !value.is_empty())
                    .map(|value| setting.word(Some(&value.into())))
                    .collect()
            }
        };
        self.check(setting, &words).map_err(wrong)?;
        Ok(words)
    }

    fn words_of_entry(
        &self,
        setting: &Setting,
        file: &File,
        entry: &file::Entry,
    ) -> Result<(u64, Vec<OsString>), SettingsError> {
        let words: Vec<_> = entry
            .values
            .iter()
            .map(|(_, value)| setting.word(value.as_ref()))
            .collect();
        if self.check(setting, &words).is_err() {
            // The first that is wrong: so many are right before it.
            let right = self.right(setting, &words);
            let line = entry
                .values
                .get(right)
                .map_or(entry.line, |(line, _)| *line);
            let wrong = words.get(right..=right).unwrap_or(&words);
            self.check(setting, wrong)
                .map_err(|why| SettingsError::Value {
                    place: file.place(line),
                    key: entry.key.clone(),
                    why,
                })?;
        }
        Ok((entry.line, words))
    }

    /// How many of these words, from the first on, clap takes.
    fn right(&self, setting: &Setting, words: &[OsString]) -> usize {
        let (mut right, mut wrong) = (0, words.len());
        while right + 1 < wrong {
            let middle = usize::midpoint(right, wrong);
            match self.check(setting, &words[..middle]) {
                Ok(()) => right = middle,
                Err(_) => wrong = middle,
            }
        }
        right
    }

    /// Whether clap takes these words of a setting, by themselves.
    fn check(&self, setting: &Setting, words: &[OsString]) -> Result<(), String> {
        let before = [self.command.get_name(), &self.verb].map(OsString::from);
        let words = before.iter().chain(words);
        match self.command.clone().try_get_matches_from(words) {
            Ok(_) => Ok(()),
            // A flag that wants another one beside it is judged with all the others.
            Err(error) if error.kind() == clap::error::ErrorKind::MissingRequiredArgument => Ok(()),
            Err(error) => {
                tracing::debug!(key = setting.key, %error, "a setting is refused");
                Err(error::why(&error))
            }
        }
    }

    /// What clap makes of the words that were typed and these.
    fn parse(&self, more: &[OsString]) -> Result<ArgMatches, SettingsError> {
        let words = self.words.iter().chain(more);
        let matches = self.command.clone().try_get_matches_from(words)?;
        let verb = matches.subcommand_matches(&self.verb);
        Ok(verb.cloned().unwrap_or_default())
    }

    /// The flag that looks most like a key.
    fn flag_like(&self, key: &str) -> Option<String> {
        // What stands behind = is not the name of a flag.
        let flag = format!("--{}", key.split('=').next()?);
        let words = [self.command.get_name(), &self.verb, &flag].map(OsString::from);
        let error = self.command.clone().try_get_matches_from(words).err()?;
        let like = error::suggested_flag(&error)?;
        self.definition
            .with_key(&like)
            .map(|setting| setting.key.clone())
    }
}

impl Effective {
    fn of(setting: &Setting, origin: Origin, matches: &ArgMatches) -> Self {
        let values = if setting.takes == Takes::Nothing {
            vec![matches.get_flag(&setting.id).to_string().into()]
        } else {
            let raw = matches.get_raw(&setting.id);
            raw.map_or_else(Vec::new, |values| values.map(OsStr::to_owned).collect())
        };
        Self {
            key: setting.key.clone(),
            values,
            many: matches!(setting.takes, Takes::Many(_)),
            origin,
        }
    }
}

/// The keys of the settings whose values differ.
pub fn changed(before: &[Effective], now: &[Effective]) -> Vec<String> {
    let pairs = before.iter().zip(now);
    pairs
        .filter(|(before, now)| before.values != now.values)
        .map(|(_, now)| now.key.clone())
        .collect()
}
