//! Writes Events, which `kubectl describe service` shows.

use hyper::Method;
use jiff::Timestamp;
use probe_model::NamespacedName;
use serde_json::json;

use super::{
    ApiConnection, ApiRequestError, health::ApiRequestKind, kubernetes_event::KubernetesEvent,
    nodes::is_name,
};

/// The reporting controller.
const CONTROLLER: &str = "arp-monitor";

/// The API server's limit for the reporting instance, in bytes.
const MAX_INSTANCE_BYTES: usize = 128;
/// The name of an Event without its suffix.
const MAX_NAME_BYTES: usize = 220;

impl ApiConnection {
    /// Creates an Event, and returns its name.
    pub(super) async fn create_event(
        &self,
        event: &KubernetesEvent,
        instance: &str,
    ) -> Result<String, ApiRequestError> {
        let NamespacedName { namespace, name } = &event.service;
        let path = path(&event.service)?;
        let now = Timestamp::now();
        let event_name = event_name(name, now);
        let object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "namespace": namespace, "name": event_name },
            "eventTime": format!("{now:.6}"),
            "reportingController": CONTROLLER,
            "reportingInstance": reporting_instance(instance),
            "action": "Observe",
            "type": event.event_type.label(),
            "reason": event.reason,
            "note": event.note,
            "regarding": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": namespace,
                "name": name,
                "uid": event.uid,
            },
        });
        self.call(ApiRequestKind::Events, Method::POST, &path, Some(&object))
            .await?;
        Ok(event_name)
    }

    /// Sets how often an Event was observed, the last time now.
    pub(super) async fn update_event_series(
        &self,
        service: &NamespacedName,
        name: &str,
        count: u32,
    ) -> Result<(), ApiRequestError> {
        let now = format!("{:.6}", Timestamp::now());
        let series = json!({ "series": { "count": count, "lastObservedTime": now } });
        let path = format!("{}/{name}", path(service)?);
        self.call(ApiRequestKind::Events, Method::PATCH, &path, Some(&series))
            .await
            .map(drop)
    }
}

fn path(service: &NamespacedName) -> Result<String, ApiRequestError> {
    let NamespacedName { namespace, name } = service;
    if !(is_name(namespace) && is_name(name)) {
        return Err(ApiRequestError::Refused(format!("{service} is not a name")));
    }
    Ok(format!(
        "/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    ))
}

/// The name of an Event, as client-go makes it: the object and the time.
fn event_name(service: &str, now: Timestamp) -> String {
    let service = prefix(service, MAX_NAME_BYTES).trim_end_matches(['.', '-']);
    format!("{service}.{:x}", now.as_nanosecond())
}

/// The reporting instance: the name of a node may be longer than the API server accepts, and must not be empty.
fn reporting_instance(instance: &str) -> &str {
    match prefix(instance, MAX_INSTANCE_BYTES) {
        "" => CONTROLLER,
        instance => instance,
    }
}

fn prefix(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_name_is_valid() {
        for service in ["x".repeat(63), "x".repeat(253), "x.".repeat(125) + "x"] {
            let name = event_name(&service, Timestamp::now());
            assert!(is_name(&name) && name.len() <= 253, "{name}");
            assert!(!name.contains(".."), "{name}");
        }
    }

    #[test]
    fn reporting_instance_fits_and_is_never_empty() {
        assert_eq!(reporting_instance("node-1"), "node-1");
        assert_eq!(reporting_instance(&"n".repeat(253)), "n".repeat(128));
        assert_eq!(reporting_instance(""), CONTROLLER);
    }
}
