//! A metric family whose values are known, not counted here, as the text of a scrape.
//!
//! Written straight as text: with ten thousand addresses, a tree of labels and samples that is encoded afterwards
//! costs ten times as much as the scrape may take.

use std::fmt::{self, Display, Write as _};

/// Whether a metric only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It does.
    Counter,
    /// It does not.
    Gauge,
    /// How often what values were seen.
    Histogram,
}

impl MetricKind {
    /// As the exposition format has it.
    pub const fn prometheus_type(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric is: nothing is exported without a name, a help text and a fixed set of labels.
#[derive(Clone, Copy, Debug)]
pub struct MetricDescription<const LABELS: usize> {
    /// Its full name.
    pub name: &'static str,
    /// What it says, in one line.
    pub help: &'static str,
    /// Whether it only ever grows.
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
    /// No samples yet.
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

    /// No samples yet, and room for so many.
    pub fn with_room(description: MetricDescription<LABELS>, samples: usize) -> Self {
        /// A sample of an address, roughly.
        const SAMPLE: usize = 144;
        let mut family = Self::new(description);
        family.text.reserve(samples * SAMPLE);
        family
    }

    /// Adds one sample. A label without a value is left out, which is the same to Prometheus.
    pub fn add(&mut self, labels: [&str; LABELS], value: impl Display) {
        self.sample("", labels, None, value);
    }

    /// A sample of a part of this metric (`_bucket`, `_sum`), perhaps with a label of that part.
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
        // A string takes every character.
        let _ = write!(self.text, " {value}");
        self.text.push('\n');
    }

    fn escape(&mut self, value: &str) {
        // Nearly always. Byte by byte, which is a matter of nanoseconds: each of these is ASCII.
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

    /// The text, also where there is no sample: the name and what it means are known then all the same.
    pub fn finish(self) -> String {
        self.text
    }
}

/// A time since 1970 in seconds, as precise as the format's numbers can say it.
#[derive(Clone, Copy, Debug)]
pub struct SecondsSinceEpoch {
    /// In nanoseconds.
    pub nanos: u64,
}

impl Display for SecondsSinceEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.nanos / 1_000_000;
        write!(f, "{}.{:03}", millis / 1_000, millis % 1_000)
    }
}

/// Whether something is so.
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
