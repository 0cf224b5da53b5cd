//! Compares the documented schema with the messages.

use probe_cluster::drift::Drift;
use probe_model::{
    Severity,
    schema::{Schema, fields},
};
use serde_json::Value;

use super::{
    MessageReporter, Notification, NotificationKind,
    message::{VERSION, WebhookFormat, body},
    queue::NotificationQueue,
    testing::{drift_notification, notification},
};

const SCHEMA: &str = include_str!("../../../docs/notification.schema.json");
const FINDING: &str = include_str!("../../../docs/finding.schema.json");
const DOCUMENT: &str = include_str!("../../../docs/notifications.md");

/// A message with notifications of every kind, and one with numbers only.
fn messages() -> Vec<Value> {
    let mut queue = NotificationQueue::default();
    let mut numbers = NotificationQueue::default();
    for (last, &kind) in (1..).zip(NotificationKind::ALL) {
        numbers.count_only(kind, 3);
        match kind {
            NotificationKind::Missed => {}
            NotificationKind::Drift | NotificationKind::DriftGone => {
                queue.push(drift(kind));
            }
            NotificationKind::Conflict
            | NotificationKind::ConflictQuiet
            | NotificationKind::ConflictResolved
            | NotificationKind::ConflictExpired
            | NotificationKind::StaleAnnouncement => {
                queue.push(notification(1, NotificationKind::Conflict));
                queue.push(notification(last, kind));
            }
        }
    }
    queue.count_only(NotificationKind::Conflict, 7);
    let reporter = MessageReporter::new(Some("node-1"));
    let sent = "2026-11-21T02:00:00Z".parse().unwrap();
    let message = |queue: &NotificationQueue| {
        let text = body(WebhookFormat::Json, &queue.batch(50), &reporter, sent);
        serde_json::from_str(&text).unwrap()
    };
    vec![message(&queue), message(&numbers)]
}

fn drift(kind: NotificationKind) -> Notification {
    let text = r#"{"drift":"not_announced","severity":"warning","since":"2026-11-21T02:00:00Z",
        "ip":"192.0.2.10","summary":"nobody announces it"}"#;
    let mut drift: Drift = serde_json::from_str(text).unwrap();
    drift.object = Some(kind.label().to_owned());
    drift_notification(kind, drift)
}

fn items(messages: &[Value]) -> Vec<&Value> {
    let lists = messages
        .iter()
        .map(|message| message["notifications"].as_array().unwrap());
    lists.flatten().collect()
}

#[test]
fn every_message_and_finding_matches_the_schema() {
    let messages = messages();
    Schema::new(SCHEMA).assert_valid(&messages);
    let findings: Vec<_> = items(&messages)
        .iter()
        .flat_map(|item| [item.get("finding"), item.get("first")])
        .flatten()
        .cloned()
        .collect();
    Schema::new(FINDING).assert_valid(&findings);
}

#[test]
fn schema_contains_exactly_the_values_and_fields_sent() {
    let (schema, messages) = (Schema::new(SCHEMA), messages());
    let kinds = schema.labels("/properties/more/propertyNames/enum");
    assert_eq!(kinds, NotificationKind::LABELS);
    let sent = schema.labels("/$defs/notification/properties/kind/enum");
    assert_eq!(
        sent,
        NotificationKind::LABELS[..NotificationKind::COUNT - 1]
    );
    let severities = schema.labels("/$defs/notification/properties/severity/enum");
    assert_eq!(severities, Severity::LABELS);
    assert_eq!(schema.0["properties"]["version"]["const"], VERSION);
    assert_eq!(schema.fields("/properties"), fields(&messages));
    assert_eq!(
        schema.fields("/properties/reporter/properties"),
        fields([&messages[0]["reporter"]])
    );
    assert_eq!(
        schema.fields("/$defs/notification/properties"),
        fields(items(&messages))
    );
}

#[test]
fn documentation_lists_every_notification_kind() {
    for &kind in NotificationKind::ALL {
        let row = format!("| `{kind}` |");
        assert_eq!(
            DOCUMENT.contains(&row),
            kind != NotificationKind::Missed,
            "{row}"
        );
    }
}
