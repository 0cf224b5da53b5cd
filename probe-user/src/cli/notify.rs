//! The flags of notifications.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use probe_kubernetes::ClusterHandle;
use probe_model::{FindingRecord, Severity};
use probe_notify::{
    MessageReporter, NotificationCounts, Notifier, NotifierClusterSources, NotifierSettings,
    NotifierSources, Webhook, WebhookError, WebhookFormat, WebhookSettings, WebhookUrlSource,
    webhook::address,
};
use tokio::{sync::broadcast, task};

use crate::daemon::drift_reconciler::ClusterStatusHandle;

/// Who is told of conflicts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Notifications")]
pub struct NotifyArguments {
    /// Tell of conflicts by POST to this address: when one opens, is quiet, is over. In Kubernetes the holder of the
    /// lease tells, elsewhere every daemon. Everybody on this host can read it here: for an address that is itself a
    /// secret, as those of chats are, there is --webhook-url-file
    #[arg(long, value_name = "URL", conflicts_with = "webhook_url_file")]
    webhook_url: Option<String>,

    /// The same with the address in a file, which is read anew for each message
    #[arg(long, value_name = "FILE")]
    webhook_url_file: Option<PathBuf>,

    /// How it is told: json (docs/notifications.md), or slack, the text that Slack, Mattermost, Rocket.Chat and
    /// others show
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = WebhookFormat::Json)]
    webhook_format: WebhookFormat,

    /// A file with a secret that goes along as `Authorization: Bearer …`, read anew for each message
    #[arg(long, value_name = "FILE")]
    webhook_bearer_token_file: Option<PathBuf>,

    /// A file with the certificates (PEM) that the receiver's is verified by, and no others. Default: those of the
    /// system; in an image without any, those of Mozilla
    #[arg(long, value_name = "FILE")]
    webhook_ca_file: Option<PathBuf>,

    /// The conflicts that are told: all (warning), or only those on addresses that matter (critical)
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = MinimumSeverity::Warning)]
    webhook_severity: MinimumSeverity,

    /// Messages a minute at most; what does not fit waits, and becomes one message
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=600))]
    webhook_per_minute: usize,

    /// Whether to write Events on the Services whose addresses are in conflict or drift: what `kubectl describe
    /// service` shows. `auto` does where a cluster is followed; the holder of the lease writes
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = EventsMode::Auto)]
    kubernetes_events: EventsMode,
}

/// When to write Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EventsMode {
    /// If there is a cluster.
    Auto,
    /// Never.
    Off,
}

/// The severities that a conflict can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MinimumSeverity {
    /// Every conflict.
    Warning,
    /// Those on tracked addresses.
    Critical,
}

impl NotifyArguments {
    /// What the flags lead to; nothing, if nobody is to be told.
    pub fn settings(&self) -> anyhow::Result<Option<NotifierSettings>> {
        let at = match (&self.webhook_url, &self.webhook_url_file) {
            (Some(text), _) => WebhookUrlSource::Url(address(text).map_err(|error| {
                anyhow::Error::new(error).context("--webhook-url cannot be used")
            })?),
            (None, Some(path)) => WebhookUrlSource::File(path.clone()),
            (None, None) => {
                anyhow::ensure!(
                    self.webhook_bearer_token_file.is_none() && self.webhook_ca_file.is_none(),
                    "--webhook-bearer-token-file and --webhook-ca-file are for a webhook: give its address by \
                     --webhook-url-file, or leave them out"
                );
                return Ok(None);
            }
        };
        Ok(Some(NotifierSettings {
            webhook: WebhookSettings {
                url_source: at,
                secret: self.webhook_bearer_token_file.clone(),
                ca_file: self.webhook_ca_file.clone(),
            },
            format: self.webhook_format,
            min_severity: match self.webhook_severity {
                MinimumSeverity::Warning => Severity::Warning,
                MinimumSeverity::Critical => Severity::Critical,
            },
            per_minute: self.webhook_per_minute,
        }))
    }

    /// The same, and whether what is in the files can be used.
    pub fn check(&self) -> anyhow::Result<()> {
        if let Some(settings) = self.settings()? {
            Webhook::new(settings.webhook).check()?;
        }
        Ok(())
    }
}

/// Begins to tell whoever is to be told.
pub struct NotifierSetup<'a> {
    /// What is found, with what the cluster knows of it.
    pub findings: broadcast::Receiver<Arc<FindingRecord>>,
    /// The cluster, if one is followed.
    pub cluster: &'a ClusterHandle,
    /// What has drifted apart in it.
    pub cluster_status: &'a ClusterStatusHandle,
    /// What is counted.
    pub counts: Arc<NotificationCounts>,
}

impl NotifierSetup<'_> {
    /// A task for each channel.
    #[cfg_attr(
        not(feature = "kubernetes"),
        allow(
            unused_variables,
            reason = "without Kubernetes there is no connection to write by"
        )
    )]
    pub fn start(self, arguments: &NotifyArguments) -> anyhow::Result<Vec<Notifier>> {
        let mut notifiers = Vec::new();
        let cluster = self.cluster.is_on().then(|| NotifierClusterSources {
            leadership: self.cluster.holds(),
            handover: self.cluster.handover(),
            drift_after: self.cluster_status.drift_after(),
            cluster: self.cluster.cluster(),
            drifts: Some(self.cluster_status.drifts()),
        });
        if let (Some(cluster), Some(connection), EventsMode::Auto) = (
            &cluster,
            self.cluster.connection(),
            arguments.kubernetes_events,
        ) {
            let host = || MessageReporter::this_host().host;
            let instance = self.cluster.node_name().map_or_else(host, str::to_owned);
            notifiers.push(Notifier::write_events(
                connection.clone(),
                self.findings.resubscribe(),
                cluster.clone(),
                instance,
                self.counts.clone(),
            ));
        }
        if let Some(settings) = arguments.settings()? {
            let checked = task::block_in_place(|| Webhook::new(settings.webhook.clone()).check());
            if let Err(error) = checked {
                log_webhook_error(&error);
            }
            tracing::info!("telling a webhook of conflicts");
            let sources = NotifierSources {
                findings: self.findings,
                cluster,
            };
            notifiers.push(Notifier::start(settings, sources, self.counts));
        }
        Ok(notifiers)
    }
}

/// What is said at the start of what cannot be used as it is. It may be put right at any time, and is no reason not to
/// watch.
fn log_webhook_error(error: &WebhookError) {
    tracing::error!(%error, "nobody can be told by the webhook as it is; it is tried again with each message");
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

    fn settings(arguments: &[&str]) -> anyhow::Result<Option<NotifierSettings>> {
        parse(arguments)?.settings()
    }

    #[test]
    fn without_an_address_nobody_is_told() {
        assert_eq!(settings(&[]).unwrap(), None);
    }

    #[test]
    fn an_address_is_enough() {
        let settings = settings(&["--webhook-url", "https://hooks.example.org/x"])
            .unwrap()
            .unwrap();
        assert_eq!(settings.format, WebhookFormat::Json);
        assert_eq!(settings.min_severity, Severity::Warning);
        assert_eq!(settings.per_minute, 10);
    }

    #[test]
    fn bad_values_are_refused() {
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
    fn what_is_in_the_files_is_checked() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("url");
        let words = ["--webhook-url-file", path.to_str().unwrap()];
        let arguments = parse(&words).unwrap();
        assert!(arguments.check().is_err());
        fs::write(&path, "https://hooks.example.org/x\n").unwrap();
        arguments.check().unwrap();
    }

    #[test]
    fn a_secret_does_not_go_through_the_open() {
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
            let said = with(bad).unwrap_err().to_string();
            assert!(said.contains("https://"), "{said}");
        }
    }
}
