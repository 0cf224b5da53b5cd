//! Reloads settings while the daemon runs.

use std::{collections::BTreeSet, ffi::OsString, future};

use clap::{Args as _, Command, FromArgMatches as _};
use jiff::Timestamp;
use probe_datapath::interfaces::InterfacesHandle;
use tokio::{sync::watch, task};

use super::{detection::DetectionArguments, run, session::Session};
use crate::{
    daemon::{monitor::MonitorHandle, serve::ConfigOutcome},
    settings::{EffectiveSetting, FileWatcher, Invocation, LoadedSettings, changed},
};

/// Keys, besides those of detection, that take effect without a restart.
const RELOADABLE_GROUPS: [&str; 3] = ["filter", "filter-file", "segment"];

/// Reloads the settings and applies them.
pub struct Reloader {
    invocation: Invocation,
    follower: Option<FileWatcher>,
    reloadable: BTreeSet<String>,
    /// The settings at start; those that need a restart keep these values.
    started: Vec<EffectiveSetting>,
    effective: Vec<EffectiveSetting>,
    /// The settings, with values, for which the need of a restart was logged last.
    restart_warned_for: Vec<(String, Vec<OsString>)>,
    monitor: MonitorHandle,
    interface_commands: InterfacesHandle,
    outcome: watch::Sender<ConfigOutcome>,
}

impl Reloader {
    /// Creates the reloader of a daemon that runs with these settings.
    pub fn new(invocation: Invocation, loaded: LoadedSettings, session: &Session) -> Self {
        let follower = loaded
            .file
            .map(|(path, bytes)| FileWatcher::new(&path, bytes));
        Self {
            invocation,
            follower,
            reloadable: reloadable_settings(),
            started: loaded.settings.clone(),
            effective: loaded.settings,
            restart_warned_for: Vec::new(),
            monitor: session.monitor.clone(),
            interface_commands: session.interface_commands.clone(),
            outcome: watch::Sender::new(ConfigOutcome {
                successful: true,
                success: Timestamp::now(),
            }),
        }
    }

    /// The outcome of the last load, for the metrics.
    pub fn outcome(&self) -> watch::Receiver<ConfigOutcome> {
        self.outcome.subscribe()
    }

    /// Completes when the file has changed.
    pub async fn changed(&mut self) {
        match &mut self.follower {
            Some(follower) => follower.changed().await,
            None => future::pending().await,
        }
    }

    /// Reloads the settings and the file of the watch filter. Invalid settings change nothing.
    pub async fn reload(&mut self) {
        // The content read now does not trigger another reload.
        if let Some(follower) = &mut self.follower {
            follower.reread();
        }
        match self.try_reload().await {
            Ok(networks) => {
                self.outcome.send_replace(ConfigOutcome {
                    successful: true,
                    success: Timestamp::now(),
                });
                tracing::info!(networks, "watch filter reloaded");
            }
            Err(error) => {
                self.outcome
                    .send_modify(|outcome| outcome.successful = false);
                tracing::error!(
                    error = format!("{error:#}"),
                    "invalid settings; keeping the previous ones, including the watch filter"
                );
            }
        }
    }

    async fn try_reload(&mut self) -> anyhow::Result<usize> {
        // Parsing thousands of networks takes a while, so it runs outside the detection task.
        let loaded = task::block_in_place(|| self.invocation.load())?;
        let arguments = run::RunArguments::from_arg_matches(&loaded.matches)?;
        let source = arguments.source();
        let networks = source.networks()?;
        let count = networks.len();
        // The only step that can still fail comes first.
        self.interface_commands.set_watch_filter(networks).await?;
        let names = arguments.segments().to_vec();
        self.monitor
            .reconfigure(source.detect_config(), names)
            .await?;
        let keys = changed(&self.effective, &loaded.settings);
        let keys: Vec<_> = keys
            .into_iter()
            .filter(|key| self.reloadable.contains(key))
            .collect();
        if !keys.is_empty() {
            tracing::info!(changed = keys.join(", "), "settings reloaded");
        }
        self.warn_restart_needed(&loaded.settings);
        self.effective = loaded.settings;
        Ok(count)
    }

    /// Logs, once for each set of values, which settings need a restart.
    fn warn_restart_needed(&mut self, settings: &[EffectiveSetting]) {
        let mut keys = changed(&self.started, settings);
        keys.retain(|key| !self.reloadable.contains(key));
        let waiting: Vec<_> = settings
            .iter()
            .filter(|setting| keys.contains(&setting.key))
            .map(|setting| (setting.key.clone(), setting.values.clone()))
            .collect();
        if waiting != self.restart_warned_for && !waiting.is_empty() {
            tracing::warn!(
                changed = keys.join(", "),
                "these settings take effect after a restart; until then the previous ones apply"
            );
        }
        self.restart_warned_for = waiting;
    }
}

/// The keys that take effect without a restart.
fn reloadable_settings() -> BTreeSet<String> {
    let detection = DetectionArguments::augment_args(Command::new(""));
    let keys = detection.get_arguments().filter_map(|flag| flag.get_long());
    keys.chain(RELOADABLE_GROUPS).map(str::to_owned).collect()
}
