//! The content of messages: versioned JSON for programs (docs/notification.schema.json), text for Slack and compatible
//! chats, and the note of a Kubernetes Event.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::{Timestamp, tz::TimeZone};
use probe_cluster::drift::Drift;
use probe_common::wire::Vlan;
use probe_model::{CauseKind, FindingOrigin, FindingRecord, NextStep, Severity};
use probe_render::text;
use serde::Serialize;
use serde_json::json;

use super::{
    notification::{Notification, NotificationCause, NotificationKind},
    queue::{NotificationBatch, QueuedNotification},
};

/// Incremented when a field is removed or changes its meaning; fields may be added without.
pub const VERSION: u32 = 1;

/// The format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WebhookFormat {
    /// For programs.
    Json,
    /// For Slack, Mattermost, Rocket.Chat, Discord (its URL with `/slack` appended) and other compatible chats.
    Slack,
}

impl WebhookFormat {
    /// The number of subjects that one message lists; people read fewer.
    pub const fn max_listed(self) -> usize {
        match self {
            Self::Json => 50,
            Self::Slack => 10,
        }
    }
}

/// The agent that reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageReporter {
    /// The name of the node, or of the host.
    pub host: String,
    /// The version of the agent.
    pub version: &'static str,
}

impl MessageReporter {
    /// This agent, on the node of this name, or else on this host.
    pub fn new(node_name: Option<&str>) -> Self {
        let hostname = || {
            let name = rustix::system::uname();
            name.nodename().to_string_lossy().into_owned()
        };
        Self {
            host: node_name.map_or_else(hostname, str::to_owned),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

#[derive(Serialize)]
struct WebhookMessage<'a> {
    version: u32,
    sent: Timestamp,
    reporter: &'a MessageReporter,
    text: String,
    notifications: Vec<MessageItem<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    more: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct MessageItem<'a> {
    kind: NotificationKind,
    severity: Severity,
    drill: bool,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// The number of notifications that this stands for.
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    finding: Option<&'a FindingRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<&'a FindingRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<&'a Drift>,
}

/// The body of a message.
pub fn body(
    format: WebhookFormat,
    batch: &NotificationBatch,
    reporter: &MessageReporter,
    sent: Timestamp,
) -> String {
    match format {
        WebhookFormat::Json => probe_model::to_json(&WebhookMessage {
            version: VERSION,
            sent,
            reporter,
            text: summary(batch),
            notifications: batch.listed.iter().map(item).collect(),
            more: batch
                .more
                .iter()
                .map(|(kind, &number)| (kind.label(), number))
                .collect(),
        }),
        WebhookFormat::Slack => json!({ "text": slack(batch, reporter) }).to_string(),
    }
}

fn item(queued: &QueuedNotification) -> MessageItem<'_> {
    let record = queued.last.finding();
    let first = queued.first.finding();
    MessageItem {
        kind: queued.last.kind,
        severity: queued.last.severity,
        drill: record.is_some_and(|record| record.drill),
        text: sentence(queued),
        next: next(&queued.last).map(|step| step.command),
        number: queued.number,
        finding: record,
        first: first.filter(|_| queued.number > 1),
        drift: queued.last.drift(),
    }
}

/// A summary in one line.
fn summary(batch: &NotificationBatch) -> String {
    let mut text = batch.listed.first().map(sentence).unwrap_or_default();
    let others = batch.listed.len().saturating_sub(1);
    if others > 0 {
        let _ = write!(text, "; {others} more listed");
    }
    if batch.unlisted() > 0 {
        let separator = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{separator}{}", and_more(&batch.more));
    }
    text
}

/// `and 9950 more (9950 conflicts)`.
fn and_more(more: &BTreeMap<NotificationKind, u64>) -> String {
    let all: u64 = more.values().sum();
    let parts: Vec<_> = more
        .iter()
        .map(|(kind, number)| format!("{number} {}", kind.label()))
        .collect();
    format!("and {all} more ({})", parts.join(", "))
}

/// The event in one line.
fn sentence(queued: &QueuedNotification) -> String {
    let mut text = match &queued.last.cause {
        NotificationCause::Finding(record) => conflict_sentence(queued.last.kind, record),
        NotificationCause::Drift { drift, .. }
            if queued.last.kind == NotificationKind::DriftGone =>
        {
            format!("resolved: {}", drift.summary)
        }
        NotificationCause::Drift { drift, .. } => drift.summary.clone(),
    };
    if queued.number > 1 {
        let first = &queued.first;
        let _ = write!(
            text,
            "; delayed: {} at {}",
            first.kind,
            format_time(first.time())
        );
    }
    text
}

fn conflict_sentence(kind: NotificationKind, record: &FindingRecord) -> String {
    let ip = record.ip;
    let what = match kind {
        NotificationKind::ConflictQuiet => {
            format!("the conflict on {ip} is quiet, not confirmed resolved")
        }
        NotificationKind::ConflictResolved => format!("the conflict on {ip} is resolved"),
        NotificationKind::ConflictExpired => {
            format!("the conflict on {ip} has expired: no evidence for a long time")
        }
        NotificationKind::StaleAnnouncement => {
            format!("clients may send to a host that announced {ip} and does not reply for it")
        }
        NotificationKind::Conflict
        | NotificationKind::Drift
        | NotificationKind::DriftGone
        | NotificationKind::Missed => {
            format!("{ip} has {} owners", record.owners.len().max(2))
        }
    };
    let drill = if record.drill {
        "DRILL, not real: "
    } else {
        ""
    };
    match assignment(record) {
        Some(assignment) => format!("{drill}{what} ({assignment})"),
        None => format!("{drill}{what}"),
    }
}

/// The services and the pool of an address.
fn assignment(record: &FindingRecord) -> Option<String> {
    let context = record.cluster.as_ref()?;
    let services = context.services.iter().map(ToString::to_string);
    let pool = context.pool.iter().map(|pool| format!("pool {pool}"));
    let parts: Vec<_> = services.chain(pool).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn next(notification: &Notification) -> Option<NextStep> {
    match &notification.cause {
        NotificationCause::Finding(record) => {
            probe_model::next_step(record, &FindingOrigin::Daemon)
        }
        NotificationCause::Drift { drift, .. } if notification.kind == NotificationKind::Drift => {
            let explain =
                |ip| NextStep::new("show all data about it:", format!("probe explain {ip}"));
            drift.ip.map(explain)
        }
        NotificationCause::Drift { .. } => None,
    }
}

/// The likely cause: a cause from the cluster takes precedence over a hint from frames.
fn cause(record: &FindingRecord) -> Option<String> {
    let context = record.cluster.as_ref();
    match context.and_then(|context| context.cause.as_ref()) {
        Some(cause) if cause.kind != CauseKind::Unknown => {
            let kind = text::cluster_cause(cause.kind).to_owned();
            Some([&[kind][..], &cause.evidence].concat().join("; "))
        }
        _ => record.hint.map(|hint| text::cause(hint).to_owned()),
    }
}

/// The text for people.
fn slack(batch: &NotificationBatch, reporter: &MessageReporter) -> String {
    let mut paragraphs: Vec<_> = batch.listed.iter().map(paragraph).collect();
    if batch.unlisted() > 0 {
        paragraphs.push(format!("*{}*", and_more(&batch.more)));
    }
    paragraphs.push(escaped(&format!(
        "reported by {} (arp-monitor {})",
        reporter.host, reporter.version
    )));
    paragraphs.join("\n\n")
}

fn paragraph(queued: &QueuedNotification) -> String {
    let severity = match queued.last.severity {
        Severity::Critical => "CRITICAL: ",
        Severity::Warning => "Warning: ",
        Severity::Notice | Severity::Info => "",
    };
    let title = sentence(queued);
    let mut text = format!("*{}*", escaped(&format!("{severity}{title}")));
    match &queued.last.cause {
        NotificationCause::Finding(record) => {
            let first = queued.first.finding().unwrap_or(record);
            details(&mut text, record, first);
        }
        NotificationCause::Drift { drift, .. } => {
            let reason = drift.reason.map(|reason| format!("reason: {reason}"));
            for evidence in reason.iter().chain(&drift.evidence) {
                line(&mut text, evidence);
            }
            line(&mut text, &format!("since {}", format_time(drift.since)));
        }
    }
    if let Some(NextStep { purpose, command }) = next(&queued.last) {
        // Within backticks there is no other markup.
        let command = escaped(&command.replace('`', "'"));
        let _ = write!(text, "\n{} `{command}`", escaped(&purpose));
    }
    text
}

/// The notification in one paragraph: the note of a Kubernetes Event.
pub fn event_note(queued: &QueuedNotification) -> String {
    let mut parts = vec![sentence(queued)];
    match &queued.last.cause {
        NotificationCause::Finding(record) => {
            parts.extend((0..record.owners.len()).map(|index| owner_line(record, index)));
            parts.extend(cause(record).map(|cause| format!("likely cause: {cause}")));
        }
        NotificationCause::Drift { drift, .. } => {
            parts.extend(drift.reason.map(|reason| format!("reason: {reason}")));
            parts.extend(drift.evidence.iter().cloned());
        }
    }
    if let Some(NextStep { purpose, command }) = next(&queued.last) {
        parts.push(format!("{purpose} {command}"));
    }
    parts.join("; ")
}

/// Writes the owners, the cause, the location and the time.
fn details(text: &mut String, record: &FindingRecord, first: &FindingRecord) {
    // The end of a conflict has fewer owners than its opening.
    let with_owners = if first.owners.len() > record.owners.len() {
        first
    } else {
        record
    };
    for index in 0..with_owners.owners.len() {
        line(text, &owner_line(with_owners, index));
    }
    if let Some(cause) = cause(record) {
        line(text, &format!("likely cause: {cause}"));
    }
    let mut place = record.interface.clone();
    if record.vlan != Vlan::UNTAGGED {
        let _ = write!(place, ", VLAN {}", record.vlan);
    }
    if let Some(segment) = &record.segment {
        let _ = write!(place, ", segment {segment}");
    }
    line(
        text,
        &format!("{place}; since {}", format_time(record.since)),
    );
}

fn owner_line(record: &FindingRecord, index: usize) -> String {
    let owner = &record.owners[index];
    let macs: Vec<_> = owner.macs.iter().map(ToString::to_string).collect();
    let mut text = format!("{} {}", text::owner_label(record, index), macs.join(" "));
    if let Some(vendor) = &owner.vendor {
        let _ = write!(text, " ({vendor})");
    }
    if let Some(node) = &owner.node {
        let _ = write!(text, ", node {node}");
    } else if owner.local {
        text.push_str(", this host");
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push('\n');
    text.push_str(&escaped(line));
}

/// To the second, in UTC.
fn format_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC)
        .strftime("%F %T UTC")
        .to_string()
}

/// Escapes the three characters that are markup to Slack.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use probe_model::{AddressContext, AnnouncementMode, FindingKind, NamespacedName};

    use super::{
        super::{
            queue::NotificationQueue,
            testing::{change_finding, drift_notification, notification, record},
        },
        *,
    };

    fn reporter() -> MessageReporter {
        MessageReporter {
            host: "node-1".to_owned(),
            version: "0.0.0",
        }
    }

    fn sent() -> Timestamp {
        "2026-11-21T02:00:09Z".parse().unwrap()
    }

    fn written(format: WebhookFormat, queue: &NotificationQueue) -> serde_json::Value {
        let batch = queue.batch(format.max_listed());
        serde_json::from_str(&body(format, &batch, &reporter(), sent())).unwrap()
    }

    fn of_a_service(mut notification: Notification) -> Notification {
        let named = |namespace: &str, name: &str| NamespacedName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        change_finding(&mut notification, |record| {
            record.cluster = Some(Box::new(AddressContext {
                services: vec![named("shop", "frontend")],
                pool: Some(named("metallb-system", "production")),
                announced: AnnouncementMode::Layer2,
                announcers: Vec::new(),
                cause: None,
            }));
        });
        notification
    }

    #[test]
    fn conflict_message_contains_owners_and_next_step() {
        let mut queue = NotificationQueue::default();
        queue.push(of_a_service(notification(10, NotificationKind::Conflict)));
        let text = &written(WebhookFormat::Slack, &queue)["text"];
        assert_eq!(
            text.as_str().unwrap(),
            "*CRITICAL: 192.0.2.10 has 2 owners (shop/frontend, pool metallb-system/production)*\n\
             owner 1 02:64:72:69:6c:01\n\
             owner 2 02:64:72:69:6c:02\n\
             eth0, segment 192.0.2.0/24; since 2026-11-21 02:00:00 UTC\n\
             see who has it now, who should, and what to do about it: `probe explain 192.0.2.10`\n\n\
             reported by node-1 (arp-monitor 0.0.0)"
        );
    }

    #[test]
    fn conflict_resolved_before_delivery_is_one_entry_with_both_events() {
        let mut queue = NotificationQueue::default();
        queue.push(notification(10, NotificationKind::Conflict));
        let mut end = notification(10, NotificationKind::ConflictResolved);
        change_finding(&mut end, |record| record.time = sent());
        queue.push(end);
        let json = written(WebhookFormat::Json, &queue);
        let notification = json["notifications"].as_array().unwrap();
        assert_eq!(notification.len(), 1);
        assert_eq!(
            (
                &notification[0]["kind"],
                &notification[0]["number"],
                &notification[0]["first"]["finding"]
            ),
            (&"conflict_resolved".into(), &2.into(), &"conflict".into())
        );
        assert_eq!(
            json["text"],
            "the conflict on 192.0.2.10 is resolved; delayed: conflict at 2026-11-21 02:00:00 UTC"
        );
        let text = written(WebhookFormat::Slack, &queue)["text"].to_string();
        for mac in ["02:64:72:69:6c:01", "02:64:72:69:6c:02"] {
            assert!(text.contains(mac), "{text}");
        }
    }

    #[test]
    fn drift_message_contains_state_evidence_and_next_step() {
        let text = r#"{"drift":"not_announced","severity":"warning","since":"2026-11-21T02:00:00Z",
            "ip":"192.0.2.10","service":{"namespace":"shop","name":"frontend"},"reason":"no_ready_endpoints",
            "summary":"no host announces 192.0.2.10 of shop/frontend","evidence":["none of its 2 endpoints is ready"]}"#;
        let drift: Drift = serde_json::from_str(text).unwrap();
        let notification = |kind| drift_notification(kind, drift.clone());
        let mut queue = NotificationQueue::default();
        queue.push(notification(NotificationKind::Drift));
        assert_eq!(
            written(WebhookFormat::Slack, &queue)["text"],
            "*Warning: no host announces 192.0.2.10 of shop/frontend*\n\
             reason: no_ready_endpoints\n\
             none of its 2 endpoints is ready\n\
             since 2026-11-21 02:00:00 UTC\n\
             show all data about it: `probe explain 192.0.2.10`\n\n\
             reported by node-1 (arp-monitor 0.0.0)"
        );
        let json = written(WebhookFormat::Json, &queue);
        assert_eq!(
            json["notifications"][0]["drift"]["reason"],
            "no_ready_endpoints"
        );
        queue.push(notification(NotificationKind::DriftGone));
        let json = written(WebhookFormat::Json, &queue);
        assert_eq!(
            json["text"],
            "resolved: no host announces 192.0.2.10 of shop/frontend; delayed: drift at 2026-11-21 02:00:00 UTC"
        );
    }

    #[test]
    fn drill_message_starts_with_the_word_drill() {
        let mut drill = notification(1, NotificationKind::Conflict);
        change_finding(&mut drill, |record| record.drill = true);
        let mut queue = NotificationQueue::default();
        queue.push(drill);
        let json = written(WebhookFormat::Json, &queue);
        let text = json["text"].as_str().unwrap();
        assert!(text.starts_with("DRILL, not real: "), "{text}");
        assert_eq!(json["notifications"][0]["drill"], true);
        assert_eq!(json["notifications"][0].get("next"), None);
        let text = written(WebhookFormat::Slack, &queue)["text"].clone();
        let text = text.as_str().unwrap().to_owned();
        assert!(text.starts_with("*CRITICAL: DRILL, not real: "), "{text}");
    }

    #[test]
    fn a_storm_is_sent_in_bounded_space() {
        let mut queue = NotificationQueue::default();
        for number in 0..10_000_u32 {
            let mut notification = notification(1, NotificationKind::Conflict);
            change_finding(&mut notification, |record| {
                record.ip = std::net::IpAddr::V4(number.into());
            });
            queue.push(notification);
        }
        let json = written(WebhookFormat::Json, &queue);
        assert_eq!(json["notifications"].as_array().unwrap().len(), 50);
        assert_eq!(json["more"], serde_json::json!({ "conflict": 9_950 }));
        let text = json["text"].as_str().unwrap();
        assert!(
            text.ends_with("; 49 more listed; and 9950 more (9950 conflict)"),
            "{text}"
        );
        let text = written(WebhookFormat::Slack, &queue)["text"].to_string();
        assert!(text.contains("*and 9990 more (9990 conflict)*"), "{text}");
        assert!(text.len() < 8_000, "{}", text.len());
    }

    #[test]
    fn untrusted_text_is_never_markup() {
        let mut strange = (*record(1, FindingKind::Conflict, Severity::Warning)).clone();
        strange.segment = Some("<!channel> & <https://example.org|here>".to_owned());
        strange.owners[0].vendor = Some("A < B & C".into());
        let mut queue = NotificationQueue::default();
        let mut conflict = notification(1, NotificationKind::Conflict);
        conflict.cause = NotificationCause::Finding(Arc::new(strange));
        queue.push(conflict);
        let text = written(WebhookFormat::Slack, &queue)["text"].to_string();
        assert!(!text.contains('<') && !text.contains("& "), "{text}");
    }
}
