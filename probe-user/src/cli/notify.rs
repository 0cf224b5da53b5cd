//! The flags of notifications.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use probe_kubernetes::{ClusterHandle, EventSink};
use probe_model::{FindingRecord, Severity};
use probe_notify::{
    MessageReporter, NotificationCounts, Notifier, NotifierClusterSources, NotifierPolicy,
    NotifierSources, Webhook, WebhookFormat, WebhookSettings, WebhookSink, WebhookUrlSource,
    webhook::parse_url,
};
use tokio::{sync::broadcast, task};

use crate::daemon::drift_reconciler::ClusterStatusHandle;

/// The settings of notifications.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Notifications")]
pub struct NotifyArguments {
    /// Send conflict notifications to this URL (HTTP POST). In Kubernetes the leader sends, elsewhere every daemon. The
    /// flag is visible in the process list: for a secret URL use --webhook-url-file
    #[arg(long, value_name = "URL", conflicts_with = "webhook_url_file")]
    webhook_url: Option<String>,

    /// Read the webhook URL from this file; it is read for each message
    #[arg(long, value_name = "FILE")]
    webhook_url_file: Option<PathBuf>,

    /// Format of the messages
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = WebhookFormat::Json)]
    webhook_format: WebhookFormat,

    /// Send the token in this file as `Authorization: Bearer …`; it is read for each message
    #[arg(long, value_name = "FILE")]
    webhook_bearer_token_file: Option<PathBuf>,

    /// Verify the receiver's certificate with the certificates in this file (PEM) only [default: those of the system;
    /// in an image without any, Mozilla's]
    #[arg(long, value_name = "FILE")]
    webhook_ca_file: Option<PathBuf>,

    /// Minimum severity of the conflicts that are sent
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = MinimumSeverity::Warning)]
    webhook_severity: MinimumSeverity,

    /// Maximum number of messages a minute; further notifications wait and are merged
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=600))]
    webhook_per_minute: usize,

    /// Write Kubernetes Events on the Services whose addresses are in conflict or drift; the leader writes them
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = EventsMode::Auto)]
    kubernetes_events: EventsMode,
}

/// When to write Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EventsMode {
    /// If the Kubernetes API is watched.
    Auto,
    /// Never.
    Off,
}

/// The severities that a conflict can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MinimumSeverity {
    /// Every conflict.
    Warning,
    /// Conflicts of tracked addresses.
    Critical,
}

impl NotifyArguments {
    /// The settings of the webhook, if there is one.
    pub fn settings(&self) -> anyhow::Result<Option<WebhookSettings>> {
        let url_source = match (&self.webhook_url, &self.webhook_url_file) {
            (Some(text), _) => WebhookUrlSource::Url(parse_url(text).map_err(|error| {
                anyhow::Error::new(error).context("--webhook-url cannot be used")
            })?),
            (None, Some(path)) => WebhookUrlSource::File(path.clone()),
            (None, None) => {
                anyhow::ensure!(
                    self.webhook_bearer_token_file.is_none() && self.webhook_ca_file.is_none(),
                    "--webhook-bearer-token-file and --webhook-ca-file need a webhook: set --webhook-url-file, or leave \
                     them out"
                );
                return Ok(None);
            }
        };
        Ok(Some(WebhookSettings {
            url_source,
            token_file: self.webhook_bearer_token_file.clone(),
            ca_file: self.webhook_ca_file.clone(),
        }))
    }

    const fn webhook_policy(&self) -> NotifierPolicy {
        NotifierPolicy {
            min_severity: match self.webhook_severity {
                MinimumSeverity::Warning => Severity::Warning,
                MinimumSeverity::Critical => Severity::Critical,
            },
            per_minute: self.webhook_per_minute,
        }
    }

    /// Checks the settings and the files that they name.
    pub fn check(&self) -> anyhow::Result<()> {
        if let Some(settings) = self.settings()? {
            Webhook::new(settings).check()?;
        }
        Ok(())
    }
}

/// Starts the notifiers.
pub struct NotifierSetup<'a> {
    /// The findings, annotated with the cluster.
    pub findings: broadcast::Receiver<Arc<FindingRecord>>,
    /// The cluster, if there is one.
    pub cluster: &'a ClusterHandle,
    /// Its drifts.
    pub cluster_status: &'a ClusterStatusHandle,
    /// The counters for the metrics.
    pub counts: Arc<NotificationCounts>,
}

impl NotifierSetup<'_> {
    /// A task for each channel.
    pub fn start(self, arguments: &NotifyArguments) -> anyhow::Result<Vec<Notifier>> {
        let mut notifiers = Vec::new();
        let reporter = MessageReporter::new(self.cluster.node_name());
        if let (Some(connection), EventsMode::Auto) =
            (self.cluster.connection(), arguments.kubernetes_events)
        {
            let cluster = self.cluster.cluster();
            let sink = EventSink::new(connection.clone(), cluster, reporter.host.clone());
            let policy = NotifierPolicy {
                min_severity: Severity::Info,
                per_minute: EventSink::PER_MINUTE,
            };
            let counts = self.counts.clone();
            notifiers.push(Notifier::start(sink, policy, self.sources(), counts));
        }
        if let Some(settings) = arguments.settings()? {
            let checked = task::block_in_place(|| Webhook::new(settings.clone()).check());
            if let Err(error) = checked {
                // The files may be corrected at any time, and monitoring continues without notifications.
                tracing::error!(%error, "the webhook is not usable, retrying with each message");
            }
            tracing::info!("webhook notifications enabled");
            let sink = WebhookSink::new(settings, arguments.webhook_format, reporter);
            let policy = arguments.webhook_policy();
            let counts = self.counts.clone();
            notifiers.push(Notifier::start(sink, policy, self.sources(), counts));
        }
        Ok(notifiers)
    }

    fn sources(&self) -> NotifierSources {
        NotifierSources {
            findings: self.findings.resubscribe(),
            cluster: self.cluster.is_on().then(|| NotifierClusterSources {
                leadership: self.cluster.leadership(),
                cluster: self.cluster.cluster(),
                drifts: Some(self.cluster_status.drifts()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use tempfile::TempDir;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        notify: NotifyArguments,
    }

    fn parse(arguments: &[&str]) -> Result<NotifyArguments, clap::Error> {
        let arguments = ["probe"].iter().chain(arguments);
        Command::try_parse_from(arguments).map(|command| command.notify)
    }

    fn settings(arguments: &[&str]) -> anyhow::Result<Option<WebhookSettings>> {
        parse(arguments)?.settings()
    }

    #[test]
    fn no_url_means_no_webhook() {
        assert_eq!(settings(&[]).unwrap(), None);
    }

    #[test]
    fn url_alone_enables_the_webhook() {
        let arguments = parse(&["--webhook-url", "https://hooks.example.org/x"]).unwrap();
        assert!(arguments.settings().unwrap().is_some());
        assert_eq!(arguments.webhook_format, WebhookFormat::Json);
        let policy = NotifierPolicy {
            min_severity: Severity::Warning,
            per_minute: 10,
        };
        assert_eq!(arguments.webhook_policy(), policy);
    }

    #[test]
    fn invalid_values_are_rejected() {
        for bad in [
            &["--webhook-url", "hooks.example.org"][..],
            &["--webhook-url", "ftp://hooks.example.org"],
            &[
                "--webhook-url",
                "https://a.example.org",
                "--webhook-url-file",
                "b",
            ],
            &["--webhook-format", "xml"],
            &["--webhook-severity", "info"],
            &["--webhook-per-minute", "0"],
            &["--webhook-bearer-token-file", "s"],
            &["--webhook-ca-file", "s"],
        ] {
            assert!(settings(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_files_are_checked() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("url");
        let words = ["--webhook-url-file", path.to_str().unwrap()];
        let arguments = parse(&words).unwrap();
        assert!(arguments.check().is_err());
        fs::write(&path, "https://hooks.example.org/x\n").unwrap();
        arguments.check().unwrap();
    }

    #[test]
    fn a_token_is_not_sent_in_clear_text() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "s3cret").unwrap();
        let with = |url| {
            let words = [
                "--webhook-url",
                url,
                "--webhook-bearer-token-file",
                path.to_str().unwrap(),
            ];
            parse(&words).unwrap().check()
        };
        for good in [
            "https://hooks.example.org",
            "http://127.0.0.1:8080",
            "http://[::1]/",
            "http://localhost/x",
        ] {
            with(good).unwrap();
        }
        for bad in ["http://hooks.example.org", "http://192.0.2.1/"] {
            let message = with(bad).unwrap_err().to_string();
            assert!(message.contains("https://"), "{message}");
        }
    }
}
