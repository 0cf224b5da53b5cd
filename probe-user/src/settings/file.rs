//! The settings file, parsed into values of flags.

use std::{
    ffi::OsString,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    definition::{SettingDefinition, SettingDefinitions, ValueArity},
    error::{ConfigLocation, SettingsError},
    template,
    yaml::{self, SettingsKey, SettingsNode, SettingsValue},
};

/// Maximum size of a settings file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The entries of a settings file.
#[derive(Clone, Debug)]
pub(super) struct SettingsFile {
    pub path: PathBuf,
    pub entries: Vec<SettingsEntry>,
}

/// An entry of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SettingsEntry {
    /// The ID of the setting in clap.
    pub id: String,
    /// The key as written.
    pub key: String,
    /// The line of the key.
    pub line: u64,
    /// Its values with their lines. A flag without value has one or none.
    pub values: Vec<(u64, Option<OsString>)>,
}

/// Reads a settings file, within limits.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let refused = |what: &str| SettingsError::File {
        place: ConfigLocation {
            path: path.to_owned(),
            line: None,
        },
        what: what.to_owned(),
    };
    // Checked before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(refused("larger than 1 MiB, the maximum for settings"));
    }
    Ok(bytes)
}

impl SettingsFile {
    /// Parses a settings file. The values are not validated.
    pub fn parse(
        path: &Path,
        bytes: &[u8],
        definition: &SettingDefinitions,
        like: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let place = |line: Option<u64>| ConfigLocation {
            path: path.to_owned(),
            line,
        };
        let refused = |line, what: &str| SettingsError::File {
            place: place(line),
            what: what.to_owned(),
        };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()]
                .split(|&byte| byte == b'\n')
                .count();
            refused(Some(line as u64), "not UTF-8")
        })?;
        let node = yaml::parse(text).map_err(|error| refused(error.line, &error.what))?;
        let entries = match node.value {
            SettingsValue::Map(entries) => entries,
            SettingsValue::Null => {
                return Err(refused(None, "the file is empty; write `{}` for defaults"));
            }
            SettingsValue::Text(_) | SettingsValue::List(_) => {
                return Err(refused(
                    Some(node.line),
                    "not a map of settings like `attach: tc`",
                ));
            }
        };
        let mut file = Self {
            path: path.to_owned(),
            entries: Vec::new(),
        };
        for (SettingsKey { line, text: key }, node) in entries {
            let Some(setting) = definition.with_key(&key) else {
                return Err(SettingsError::UnknownKey {
                    place: place(Some(line)),
                    like: like(&key),
                    known: definition.keys(),
                    key,
                });
            };
            if let Some(known) = file.entries.iter().find(|known| known.id == setting.id) {
                let what = format!("{key} is already set on line {}", known.line);
                return Err(refused(Some(line), &what));
            }
            let values = values(setting, &node).map_err(|(line, why)| SettingsError::Value {
                place: place(Some(line)),
                key: key.clone(),
                why,
            })?;
            file.entries.extend(values.map(|values| SettingsEntry {
                id: setting.id.clone(),
                key,
                line,
                values,
            }));
        }
        Ok(file)
    }

    /// The location of a line.
    pub fn place(&self, line: u64) -> ConfigLocation {
        ConfigLocation {
            path: self.path.clone(),
            line: Some(line),
        }
    }
}

/// The values of a key with their lines; `None` if the key has no value.
type Values = Option<Vec<(u64, Option<OsString>)>>;

fn values(setting: &SettingDefinition, node: &SettingsNode) -> Result<Values, (u64, String)> {
    let one = |text: String| vec![(node.line, Some(OsString::from(text)))];
    match (setting.arity, &node.value) {
        (_, SettingsValue::Null) => Ok(None),
        (ValueArity::NoValue, SettingsValue::Text(text)) => match text.as_str() {
            "true" => Ok(Some(vec![(node.line, None)])),
            "false" => Ok(Some(Vec::new())),
            _ => Err((node.line, format!("{text:?} is not one of true, false"))),
        },
        (ValueArity::NoValue, _) => Err((node.line, "expected true or false".to_owned())),
        (ValueArity::One | ValueArity::Many(_), SettingsValue::Text(text)) => {
            Ok(Some(one(single_line(text, node.line)?)))
        }
        (ValueArity::One, SettingsValue::List(_) | SettingsValue::Map(_)) => Err((
            node.line,
            "expected one value, not a list or a map".to_owned(),
        )),
        (ValueArity::Many(_), SettingsValue::List(items)) => {
            let items = items.iter().map(|item| {
                let text = item_of(setting, item)?;
                Ok((item.line, Some(OsString::from(text))))
            });
            Ok(Some(items.collect::<Result<_, _>>()?))
        }
        (ValueArity::Many(_), SettingsValue::Map(entries)) => {
            let fields = setting.template.fields();
            let Some(fields) = fields else {
                return Err((
                    node.line,
                    "expected a value or a list, not a map".to_owned(),
                ));
            };
            // A value with fields, or a list of values.
            if entries
                .iter()
                .all(|(key, _)| fields.contains(&key.text.as_str()))
            {
                return Ok(Some(one(join_fields(setting, entries, node.line)?)));
            }
            let pairs = entries.iter().map(|(key, value)| {
                let SettingsValue::Text(text) = &value.value else {
                    return Err((key.line, format!("{}: expected one value", key.text)));
                };
                let text = single_line(text, value.line)?;
                let pair = template::pair(&key.text, &text);
                let pair = pair.map_err(|why| (key.line, why))?;
                Ok((key.line, Some(OsString::from(pair))))
            });
            Ok(Some(pairs.collect::<Result<_, _>>()?))
        }
    }
}

/// An item of a list.
fn item_of(setting: &SettingDefinition, item: &SettingsNode) -> Result<String, (u64, String)> {
    let line = item.line;
    match &item.value {
        SettingsValue::Text(text) => single_line(text, line),
        SettingsValue::Null => Err((line, "an item of the list is empty".to_owned())),
        SettingsValue::List(items) if setting.template.is_list() => {
            let items = items.iter().map(|item| match &item.value {
                SettingsValue::Text(text) => single_line(text, item.line),
                _ => Err((item.line, "expected one value".to_owned())),
            });
            Ok(items.collect::<Result<Vec<_>, _>>()?.join(","))
        }
        SettingsValue::List(_) => Err((line, "expected a list of values, not of lists".to_owned())),
        SettingsValue::Map(entries) => join_fields(setting, entries, line),
    }
}

/// Joins the fields of a value.
fn join_fields(
    setting: &SettingDefinition,
    entries: &[(SettingsKey, SettingsNode)],
    line: u64,
) -> Result<String, (u64, String)> {
    let Some(fields) = setting.template.fields() else {
        return Err((line, "expected a list of values, not of maps".to_owned()));
    };
    let mut parts = Vec::new();
    for (key, node) in entries {
        if !fields.contains(&key.text.as_str()) {
            let why = format!(
                "unknown field {:?}; the fields are: {}",
                key.text,
                fields.join(", ")
            );
            return Err((key.line, why));
        }
        match &node.value {
            SettingsValue::Text(text) => {
                parts.push((key.text.as_str(), single_line(text, node.line)?));
            }
            SettingsValue::Null => {}
            SettingsValue::List(_) | SettingsValue::Map(_) => {
                return Err((key.line, format!("{}: expected one value", key.text)));
            }
        }
    }
    let part = |name: &str| {
        let part = parts.iter().find(|(known, _)| *known == name);
        part.map(|(_, text)| text.as_str())
    };
    let composed = setting.template.join_fields(part);
    composed.map_err(|why| (line, why))
}

/// Checks that a value is one line, because it becomes a command line argument and appears in logs and metrics.
fn single_line(text: &str, line: u64) -> Result<String, (u64, String)> {
    let text = text.trim();
    if text.contains(['\n', '\r', '\0']) {
        return Err((line, "more than one line".to_owned()));
    }
    Ok(text.to_owned())
}
