//! The schema in the documentation, held against what is sent.

use std::sync::Arc;

use probe_cluster::drift::Drift;
use probe_model::{
    Severity,
    schema::{Schema, fields},
};
use serde_json::Value;

use super::{
    MessageReporter, NotificationKind, NotificationSubject,
    message::{VERSION, WebhookFormat, body},
    notification::{Notification, NotificationCause, tests::notification},
    queue::NotificationQueue,
};

const SCHEMA: &str = include_str!("../../../docs/notification.schema.json");
const FINDING: &str = include_str!("../../../docs/finding.schema.json");
const DOCUMENT: &str = include_str!("../../../docs/notifications.md");

/// A message with notification of every kind, and one with nothing but numbers.
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
    let reporter = MessageReporter::this_host();
    let sent = "2026-11-21T02:00:00Z".parse().unwrap();
    let message = |queue: &NotificationQueue| {
        let text = body(WebhookFormat::Json, &queue.batch(50), &reporter, sent);
        serde_json::from_str(&text).unwrap()
    };
    vec![message(&queue), message(&numbers)]
}

fn drift(kind: NotificationKind) -> Notification {
    let text = r#"{"drift":"not_announced","severity":"warning","since":"2026-11-21T02:00:00Z",
        "ip":"192.0.2.10","says":"nobody announces it"}"#;
    let mut drift: Drift = serde_json::from_str(text).unwrap();
    drift.object = Some(kind.label().to_owned());
    Notification {
        subject: NotificationSubject::Drift(drift.key()),
        kind,
        severity: drift.severity,
        cause: NotificationCause::Drift {
            time: drift.since,
            drift: Arc::new(drift),
        },
    }
}

fn items(messages: &[Value]) -> Vec<&Value> {
    let lists = messages
        .iter()
        .map(|message| message["notifications"].as_array().unwrap());
    lists.flatten().collect()
}

#[test]
fn every_message_is_valid_by_the_schema_and_so_is_every_finding_in_it() {
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
fn the_schema_knows_every_word_and_every_field_and_no_other() {
    let (schema, messages) = (Schema::new(SCHEMA), messages());
    let kinds = schema.words("/properties/more/propertyNames/enum");
    assert_eq!(kinds, NotificationKind::LABELS);
    let told = schema.words("/$defs/notification/properties/kind/enum");
    assert_eq!(
        told,
        NotificationKind::LABELS[..NotificationKind::COUNT - 1]
    );
    let severities = schema.words("/$defs/notification/properties/severity/enum");
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
fn the_documentation_names_every_kind_that_is_told() {
    for &kind in NotificationKind::ALL {
        let row = format!("| `{kind}` |");
        assert_eq!(
            DOCUMENT.contains(&row),
            kind != NotificationKind::Missed,
            "{row}"
        );
    }
}
