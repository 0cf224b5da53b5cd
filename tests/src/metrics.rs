//! A minimal parser of the Prometheus text format.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

/// One scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<Sample>);

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// The labels, by name.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// Reads a scrape.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        text.lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|line| Sample::parse(line).with_context(|| format!("not a sample: {line:?}")))
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// The samples of this name that have at least these labels.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
        })
    }

    /// The value of the one sample of this name that has at least these labels; `None` where there is
    /// no such sample or more than one.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut samples = self.select(name, labels);
        let value = samples.next()?.value;
        samples.next().is_none().then_some(value)
    }

    /// The sum of all samples of this name that have at least these labels, as an integer. If there is no sample,
    /// the result is an error, so that a misspelt name is noticed.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<u64> {
        let mut samples = self.select(name, labels).peekable();
        ensure!(
            samples.peek().is_some(),
            "the scrape has no {name} with {labels:?}"
        );
        samples.map(Sample::count).sum()
    }
}

impl Sample {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let name_ends = line
            .find(|c: char| c == '{' || c.is_whitespace())
            .context("no value")?;
        let (name, rest) = line.split_at(name_ends);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => parse_labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        // A timestamp may follow the value.
        let value = rest.split_whitespace().next().context("no value")?;
        Ok(Self {
            name: name.to_owned(),
            labels,
            value: value.parse().context("the value is not a number")?,
        })
    }

    /// The value as an integer.
    pub fn count(&self) -> anyhow::Result<u64> {
        // Converts through text because there is no fallible conversion from f64 to u64.
        self.value
            .to_string()
            .parse()
            .with_context(|| format!("{} of {} is not a count", self.value, self.name))
    }
}

/// Parses the labels up to the closing brace; returns them and the rest.
fn parse_labels(mut text: &str) -> anyhow::Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, rest) = text.split_once("=\"").context("a label without a value")?;
        let (value, rest) = parse_quoted(rest)?;
        if labels.insert(name.to_owned(), value).is_some() {
            bail!("duplicate label {name}");
        }
        text = rest;
    }
}

/// Parses a string up to the closing quote; returns it and the rest.
fn parse_quoted(text: &str) -> anyhow::Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next().context("an incomplete escape")?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            _ => value.push(character),
        }
    }
    bail!("a label's value without a closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = r#"# HELP frames_total All of them.
# TYPE frames_total counter
frames_total{interface="eth0",operation="request"} 3
frames_total{interface="eth0",operation="reply"} 4 1700000000000
frames_total{interface="eth1",operation="reply"} 5

bindings 2
odd{text="a \"b\" \\ c\nd, e=\"}",} +Inf
"#;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(SCRAPE).unwrap();
        assert_eq!(metrics.get("bindings", &[]), Some(2.0));
        assert_eq!(
            metrics.get(
                "frames_total",
                &[("operation", "reply"), ("interface", "eth0")]
            ),
            Some(4.0)
        );
        assert_eq!(metrics.get("frames_total", &[]), None, "ambiguous");
        assert_eq!(metrics.get("frames", &[]), None);
    }

    #[test]
    fn counts_are_summed_over_unspecified_labels() {
        let metrics = Metrics::parse(SCRAPE).unwrap();
        assert_eq!(
            metrics
                .count("frames_total", &[("interface", "eth0")])
                .unwrap(),
            7
        );
        assert_eq!(metrics.count("frames_total", &[]).unwrap(), 12);
        assert!(
            metrics
                .count("frames_total", &[("interface", "eth2")])
                .is_err()
        );
        assert!(
            metrics.count("odd", &[]).is_err(),
            "infinity is not a count"
        );
    }

    #[test]
    fn escapes_in_labels_are_decoded() {
        let metrics = Metrics::parse(SCRAPE).unwrap();
        let odd = metrics.select("odd", &[]).next().unwrap();
        assert_eq!(odd.labels["text"], "a \"b\" \\ c\nd, e=\"}");
    }

    #[test]
    fn an_invalid_sample_is_an_error() {
        for bad in ["frames", "frames{a=\"b} 1", "frames{a} 1", "frames x"] {
            assert!(Metrics::parse(bad).is_err(), "{bad}");
        }
    }
}
