//! The fields of a value that is written as one text, by its name in the help: `CIDR[@EXPIRES]=REASON` has the fields
//! CIDR, an optional expiry and a reason. In a file they may be separate fields.

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TemplatePart {
    /// Its name in a file.
    name: String,
    /// The separator before it.
    before: String,
    optional: bool,
}

/// The fields of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ValueTemplate(Vec<TemplatePart>);

impl ValueTemplate {
    /// Parses the value name of a flag in the help.
    pub fn new(value_name: &str) -> Self {
        let mut parts: Vec<TemplatePart> = Vec::new();
        let (mut before, mut optional, mut inside) = (String::new(), false, false);
        for letter in value_name.chars() {
            match letter {
                '[' => optional = true,
                ']' => optional = false,
                '…' => {}
                _ if letter.is_ascii_alphabetic() || letter == '|' => {
                    let letter = letter.to_ascii_lowercase();
                    match parts.last_mut() {
                        Some(part) if inside => part.name.push(letter),
                        _ => parts.push(TemplatePart {
                            name: letter.to_string(),
                            before: std::mem::take(&mut before),
                            optional,
                        }),
                    }
                    inside = true;
                    continue;
                }
                _ => before.push(letter),
            }
            inside = false;
        }
        Self(parts)
    }

    /// The names of the fields; `None` for a simple value.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.is_pair()
            .then(|| self.0.iter().map(|part| part.name.as_str()).collect())
    }

    /// Whether it has the form `KEY=VALUE`: such values may be written as a map.
    pub fn is_pair(&self) -> bool {
        self.0.iter().any(|part| part.before == "=")
    }

    /// Whether it is a comma-separated list.
    pub fn is_list(&self) -> bool {
        self.0.iter().any(|part| part.before == ",")
    }

    /// Joins a value from its fields.
    pub fn join_fields<'a>(&self, of: impl Fn(&str) -> Option<&'a str>) -> Result<String, String> {
        let mut text = String::new();
        for (number, part) in self.0.iter().enumerate() {
            let Some(value) = of(&part.name) else {
                if part.optional {
                    continue;
                }
                return Err(format!("{} is missing", part.name));
            };
            self.check(number, value)?;
            text.push_str(&part.before);
            text.push_str(value);
        }
        Ok(text)
    }

    /// Separators are allowed in the last field only.
    fn check(&self, number: usize, value: &str) -> Result<(), String> {
        let divider = self.0[number + 1..]
            .iter()
            .find(|later| value.contains(&later.before));
        match divider {
            Some(later) => Err(format!(
                "{} contains {}: {value:?}",
                self.0[number].name, later.before
            )),
            None => Ok(()),
        }
    }
}

/// Joins a key and a value with `=`.
pub(super) fn pair(key: &str, value: &str) -> Result<String, String> {
    if key.contains('=') {
        return Err(format!("{key:?} contains ="));
    }
    Ok(format!("{key}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_as_in_the_help() {
        let ignore = ValueTemplate::new("CIDR[@EXPIRES]=REASON");
        assert_eq!(ignore.fields().unwrap(), ["cidr", "expires", "reason"]);
        let fields = |field: &str| match field {
            "cidr" => Some("192.0.2.0/24"),
            "reason" => Some("a = b"),
            _ => None,
        };
        assert_eq!(ignore.join_fields(fields).unwrap(), "192.0.2.0/24=a = b");
        let all = |field: &str| {
            Some(if field == "expires" {
                "2027-01-31"
            } else {
                "x"
            })
        };
        assert_eq!(ignore.join_fields(all).unwrap(), "x@2027-01-31=x");
        assert_eq!(ignore.join_fields(|_| None).unwrap_err(), "cidr is missing");
        assert!(
            ignore
                .join_fields(|_| Some("a=b"))
                .unwrap_err()
                .contains("cidr contains =")
        );
        assert_eq!(pair("192.0.2.0/24", "lab").unwrap(), "192.0.2.0/24=lab");
        assert!(pair("a=b", "lab").is_err());
    }

    #[test]
    fn only_pairs_have_fields_and_only_comma_separated_values_are_lists() {
        for (name, pair, list) in [
            ("CIDR", false, false),
            ("MAC,MAC…", false, true),
            ("IFACE[.VID]=NAME", true, false),
            ("ADDR:PORT", false, false),
            ("", false, false),
            ("IP|CIDR", false, false),
        ] {
            let template = ValueTemplate::new(name);
            assert_eq!(
                (template.is_pair(), template.is_list()),
                (pair, list),
                "{name}"
            );
            assert_eq!(template.fields().is_some(), pair);
        }
        assert_eq!(
            ValueTemplate::new("IFACE[.VID]=NAME").fields().unwrap(),
            ["iface", "vid", "name"]
        );
    }
}
