//! A metric family with values from elsewhere, written as the text of a scrape.
//!
//! It is written directly as text: with ten thousand addresses, building and encoding a tree of labels and samples
//! would take ten times the time budget of a scrape.

use std::fmt::{self, Display, Write as _};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A counter.
    Counter,
    /// A gauge.
    Gauge,
    /// A histogram.
    Histogram,
}

impl MetricKind {
    /// The name in the exposition format.
    pub const fn prometheus_type(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The description of a metric: name, help text, type and a fixed set of labels.
#[derive(Clone, Copy, Debug)]
pub struct MetricDescription<const LABELS: usize> {
    /// Its full name.
    pub name: &'static str,
    /// Its help text, in one line.
    pub help: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: [&'static str; LABELS],
}

/// The samples of one metric.
#[derive(Debug)]
pub struct MetricFamily<const LABELS: usize> {
    description: MetricDescription<LABELS>,
    text: String,
}

impl<const LABELS: usize> MetricFamily<LABELS> {
    /// A family without samples.
    pub fn new(description: MetricDescription<LABELS>) -> Self {
        let MetricDescription {
            name, help, kind, ..
        } = description;
        let kind = kind.prometheus_type();
        Self {
            description,
            text: format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        }
    }

    /// A family without samples, with capacity for this number of samples.
    pub fn with_room(description: MetricDescription<LABELS>, samples: usize) -> Self {
        /// The approximate length of a sample of an address.
        const SAMPLE: usize = 144;
        let mut family = Self::new(description);
        family.text.reserve(samples * SAMPLE);
        family
    }

    /// Adds a sample. A label with an empty value is omitted, which is equivalent in Prometheus.
    pub fn add(&mut self, labels: [&str; LABELS], value: impl Display) {
        self.sample("", labels, None, value);
    }

    /// Adds a sample of a part of this metric (`_bucket`, `_sum`), with an optional label of that part.
    pub fn sample(
        &mut self,
        part: &str,
        labels: [&str; LABELS],
        label: Option<(&str, &str)>,
        value: impl Display,
    ) {
        self.text.push_str(self.description.name);
        self.text.push_str(part);
        let names = self.description.labels.into_iter();
        let mut before = '{';
        for (name, value) in names.zip(labels).chain(label) {
            if value.is_empty() {
                continue;
            }
            self.text.push(before);
            before = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.escape(value);
            self.text.push('"');
        }
        if before == ',' {
            self.text.push('}');
        }
        // Writing to a `String` cannot fail.
        let _ = write!(self.text, " {value}");
        self.text.push('\n');
    }

    fn escape(&mut self, value: &str) {
        // The usual case: no character to escape. Checking bytes is fast, and these characters are ASCII.
        if !value
            .bytes()
            .any(|byte| matches!(byte, b'\\' | b'"' | b'\n'))
        {
            self.text.push_str(value);
            return;
        }
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                _ => self.text.push(character),
            }
        }
    }

    /// The text; without samples it contains the name and help.
    pub fn finish(self) -> String {
        self.text
    }
}

/// A time in seconds since 1970, in the precision of the format's numbers.
#[derive(Clone, Copy, Debug)]
pub struct SecondsSinceEpoch {
    /// The time in nanoseconds.
    pub nanos: u64,
}

impl Display for SecondsSinceEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.nanos / 1_000_000;
        write!(f, "{}.{:03}", millis / 1_000, millis % 1_000)
    }
}

/// A boolean as 0 or 1.
pub const fn bool_value(is_so: bool) -> u8 {
    is_so as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: MetricDescription<2> = MetricDescription {
        name: "example",
        help: "An example.",
        kind: MetricKind::Gauge,
        labels: ["one", "other"],
    };

    #[test]
    fn labels_are_escaped_and_empty_ones_left_out() {
        let mut family = MetricFamily::new(EXAMPLE);
        family.add(["a", ""], 1);
        family.add(["", ""], 2);
        family.add(
            ["a \"b\" \\ c\nd", "é"],
            SecondsSinceEpoch {
                nanos: 1_500_000_000,
            },
        );
        let text = family.finish();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "# HELP example An example.",
                "# TYPE example gauge",
                r#"example{one="a"} 1"#,
                "example 2",
                r#"example{one="a \"b\" \\ c\nd",other="é"} 1.500"#,
            ]
        );
    }

    #[test]
    fn times_are_in_seconds_with_their_milliseconds() {
        let text = |nanos| SecondsSinceEpoch { nanos }.to_string();
        assert_eq!(text(0), "0.000");
        assert_eq!(text(1_700_000_000_007_999_999), "1700000000.007");
    }
}
