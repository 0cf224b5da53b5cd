//! The file: what it says, as values of flags.

use std::{
    ffi::OsString,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    definition::{Definition, Setting, Takes},
    error::{Place, SettingsError},
    template,
    yaml::{self, Key, Node, Value},
};

/// A file of settings is not larger than this.
const LARGEST: u64 = 1 << 20;

/// What a file says.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
}

/// A setting in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The setting, by what clap calls it.
    pub id: String,
    /// The key as it is written there.
    pub key: String,
    /// The line of the key.
    pub line: u64,
    /// Its values with their lines. A flag without value has one or none.
    pub values: Vec<(u64, Option<OsString>)>,
}

/// What is in a file, if it can be one of settings.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let refused = |what: &str| SettingsError::File {
        place: Place {
            path: path.to_owned(),
            line: None,
        },
        what: what.to_owned(),
    };
    // Before it is opened: who opens a pipe waits for its other end.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(refused("it is larger than 1 MiB: no file of settings is"));
    }
    Ok(bytes)
}

impl File {
    /// Understands what is in a file; whether the values are good is not looked at.
    pub fn parse(
        path: &Path,
        bytes: &[u8],
        definition: &Definition,
        like: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let place = |line: Option<u64>| Place {
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
            refused(Some(line as u64), "it is not UTF-8")
        })?;
        let node = yaml::parse(text).map_err(|error| refused(error.line, &error.what))?;
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Nothing => {
                return Err(refused(
                    None,
                    "it sets nothing; if that is meant, write {} into it",
                ));
            }
            Value::Text(_) | Value::List(_) => {
                return Err(refused(
                    Some(node.line),
                    "it is no map of settings, like `attach: tc`",
                ));
            }
        };
        let mut file = Self {
            path: path.to_owned(),
            entries: Vec::new(),
        };
        for (Key { line, text: key }, node) in entries {
            let Some(setting) = definition.with_key(&key) else {
                return Err(SettingsError::UnknownKey {
                    place: place(Some(line)),
                    like: like(&key),
                    known: definition.keys(),
                    key,
                });
            };
            if let Some(known) = file.entries.iter().find(|known| known.id == setting.id) {
                let what = format!("{key} is already set in line {}", known.line);
                return Err(refused(Some(line), &what));
            }
            let values = values(setting, &node).map_err(|(line, why)| SettingsError::Value {
                place: place(Some(line)),
                key: key.clone(),
                why,
            })?;
            file.entries.extend(values.map(|values| Entry {
                id: setting.id.clone(),
                key,
                line,
                values,
            }));
        }
        Ok(file)
    }

    /// A line of it.
    pub fn place(&self, line: u64) -> Place {
        Place {
            path: self.path.clone(),
            line: Some(line),
        }
    }
}

/// The values that stand at a key; `None` if the key is there and nothing else.
type Values = Option<Vec<(u64, Option<OsString>)>>;

fn values(setting: &Setting, node: &Node) -> Result<Values, (u64, String)> {
    let one = |text: String| vec![(node.line, Some(OsString::from(text)))];
    match (setting.takes, &node.value) {
        (_, Value::Nothing) => Ok(None),
        (Takes::Nothing, Value::Text(text)) => match text.as_str() {
            "true" => Ok(Some(vec![(node.line, None)])),
            "false" => Ok(Some(Vec::new())),
            _ => Err((node.line, format!("{text:?} is none of true, false"))),
        },
        (Takes::Nothing, _) => Err((node.line, "it is true or false".to_owned())),
        (Takes::One | Takes::Many(_), Value::Text(text)) => {
            Ok(Some(one(single_line(text, node.line)?)))
        }
        (Takes::One, Value::List(_) | Value::Map(_)) => {
            Err((node.line, "it is one value, no list and no map".to_owned()))
        }
        (Takes::Many(_), Value::List(items)) => {
            let items = items.iter().map(|item| {
                let text = item_of(setting, item)?;
                Ok((item.line, Some(OsString::from(text))))
            });
            Ok(Some(items.collect::<Result<_, _>>()?))
        }
        (Takes::Many(_), Value::Map(entries)) => {
            let fields = setting.template.fields();
            let Some(fields) = fields else {
                return Err((node.line, "it is a value or a list, no map".to_owned()));
            };
            // One that is taken apart, or one after the other.
            if entries
                .iter()
                .all(|(key, _)| fields.contains(&key.text.as_str()))
            {
                return Ok(Some(one(compose(setting, entries, node.line)?)));
            }
            let pairs = entries.iter().map(|(key, value)| {
                let Value::Text(text) = &value.value else {
                    return Err((key.line, format!("{}: it is one value", key.text)));
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
fn item_of(setting: &Setting, item: &Node) -> Result<String, (u64, String)> {
    let line = item.line;
    match &item.value {
        Value::Text(text) => single_line(text, line),
        Value::Nothing => Err((line, "an item of the list is empty".to_owned())),
        Value::List(items) if setting.template.is_list() => {
            let items = items.iter().map(|item| match &item.value {
                Value::Text(text) => single_line(text, item.line),
                _ => Err((item.line, "it is one value".to_owned())),
            });
            Ok(items.collect::<Result<Vec<_>, _>>()?.join(","))
        }
        Value::List(_) => Err((line, "it is a list of values, not of lists".to_owned())),
        Value::Map(entries) => compose(setting, entries, line),
    }
}

/// A value whose parts stand apart.
fn compose(setting: &Setting, entries: &[(Key, Node)], line: u64) -> Result<String, (u64, String)> {
    let Some(fields) = setting.template.fields() else {
        return Err((line, "it is a list of values, not of maps".to_owned()));
    };
    let mut parts = Vec::new();
    for (key, node) in entries {
        if !fields.contains(&key.text.as_str()) {
            let why = format!(
                "there is no {:?} in it; there are: {}",
                key.text,
                fields.join(", ")
            );
            return Err((key.line, why));
        }
        match &node.value {
            Value::Text(text) => {
                parts.push((key.text.as_str(), single_line(text, node.line)?));
            }
            Value::Nothing => {}
            Value::List(_) | Value::Map(_) => {
                return Err((key.line, format!("{} is one value", key.text)));
            }
        }
    }
    let part = |name: &str| {
        let part = parts.iter().find(|(known, _)| *known == name);
        part.map(|(_, text)| text.as_str())
    };
    let composed = setting.template.compose(part);
    composed.map_err(|why| (line, why))
}

/// A value is one line: what it becomes is a word of a command line, in logs and metrics.
fn single_line(text: &str, line: u64) -> Result<String, (u64, String)> {
    let text = text.trim();
    if text.contains(['\n', '\r', '\0']) {
        return Err((line, "it is more than one line".to_owned()));
    }
    Ok(text.to_owned())
}
