//! A metric family whose values are known, not counted here.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// What a metric is: nothing is exported without a name, a help text and a fixed set of labels.
pub struct Description<const LABELS: usize> {
    /// Its full name.
    pub name: &'static str,
    /// What it says, in one line.
    pub help: &'static str,
    /// Whether it only ever grows.
    pub kind: MetricType,
    /// The names of its labels.
    pub labels: [&'static str; LABELS],
}

impl<const LABELS: usize> Description<LABELS> {
    /// A counter.
    pub const fn counter(
        name: &'static str,
        labels: [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            help,
            kind: MetricType::COUNTER,
            labels,
        }
    }

    /// A gauge.
    pub const fn gauge(
        name: &'static str,
        labels: [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            help,
            kind: MetricType::GAUGE,
            labels,
        }
    }
}

/// The samples of one metric.
pub struct Family<'a, const LABELS: usize> {
    description: &'a Description<LABELS>,
    metrics: Vec<Metric>,
}

impl<'a, const LABELS: usize> Family<'a, LABELS> {
    /// No samples yet.
    pub fn new(description: &'a Description<LABELS>) -> Self {
        Self {
            description,
            metrics: Vec::new(),
        }
    }

    /// Adds one sample.
    pub fn add(&mut self, labels: [&str; LABELS], value: u64) -> &mut Self {
        let labels = self
            .description
            .labels
            .iter()
            .zip(labels)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value.to_owned());
                pair
            });
        let mut metric = Metric::from_label(labels.collect());
        // Exact up to 2^53, which at a million frames a second is 285 years.
        #[expect(
            clippy::cast_precision_loss,
            reason = "the exposition format knows only f64"
        )]
        let value = value as f64;
        if self.description.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
        self
    }

    /// The family for the encoder; `None` without a sample.
    pub fn finish(self) -> Option<MetricFamily> {
        if self.metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.description.name.to_owned());
        family.set_help(self.description.help.to_owned());
        family.set_field_type(self.description.kind);
        family.set_metric(self.metrics);
        Some(family)
    }
}
