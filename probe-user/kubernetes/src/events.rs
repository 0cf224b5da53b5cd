//! Events on Services: what `kubectl describe service` shows.

use hyper::Method;
use jiff::Timestamp;
use probe_model::NamespacedName;
use serde_json::json;

use super::{ApiConnection, ApiRequestError, health::ApiRequestKind, nodes::is_name};

/// Who says it.
const CONTROLLER: &str = "arp-monitor";

/// The API server takes no longer words: who says it, what it is called…
const MAX_REASON_BYTES: usize = 128;
/// …and no longer notes, in bytes.
const MAX_NOTE_BYTES: usize = 1024;
/// The name of an Event, without its end.
const MAX_NAME_BYTES: usize = 220;

/// An Event to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent<'a> {
    /// On which Service.
    pub service: &'a NamespacedName,
    /// What Kubernetes calls it.
    pub uid: &'a str,
    /// In a word.
    pub reason: &'a str,
    /// Whether something is wrong.
    pub is_warning: bool,
    /// In sentences, 1 KiB at most.
    pub note: &'a str,
    /// Who of many says it: this host.
    pub instance: &'a str,
}

impl ApiConnection {
    /// Makes an Event, and returns its name.
    pub async fn create_event(&self, event: &NewEvent<'_>) -> Result<String, ApiRequestError> {
        let NewEvent {
            service,
            uid,
            reason,
            is_warning,
            note,
            instance,
        } = event;
        let now = Timestamp::now();
        let name = event_name(&service.name, now);
        let object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "namespace": service.namespace, "name": name },
            "eventTime": format!("{now:.6}"),
            "reportingController": CONTROLLER,
            "reportingInstance": reporting_instance(instance),
            "action": "Observe",
            "type": if *is_warning { "Warning" } else { "Normal" },
            "reason": truncate(reason, MAX_REASON_BYTES),
            "note": truncate(note, MAX_NOTE_BYTES),
            "regarding": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": service.namespace,
                "name": service.name,
                "uid": uid,
            },
        });
        let path = path(service)?;
        self.call(ApiRequestKind::Events, Method::POST, &path, Some(&object))
            .await?;
        Ok(name)
    }

    /// Says of an Event on a Service that it was so often, the last time now.
    pub async fn increment_event_count(
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
        return Err(ApiRequestError::Refused(format!("{service} is no name")));
    }
    Ok(format!(
        "/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    ))
}

/// As client-go makes them: what it is about and the time, in as many letters as a name may have.
fn event_name(service: &str, now: Timestamp) -> String {
    let service = truncate(service, MAX_NAME_BYTES).trim_end_matches(['.', '-']);
    format!("{service}.{:x}", now.as_nanosecond())
}

/// Who says it: the name of a node may be twice as long as the API server takes, and has to be there.
fn reporting_instance(instance: &str) -> &str {
    match truncate(instance, MAX_REASON_BYTES) {
        "" => CONTROLLER,
        instance => instance,
    }
}

/// So much of a text, in bytes.
fn truncate(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_event_is_one() {
        // A Service's is 63 letters at most, and nothing is if it is one letter too long.
        for service in ["x".repeat(63), "x".repeat(253), "x.".repeat(125) + "x"] {
            let name = event_name(&service, Timestamp::now());
            assert!(is_name(&name) && name.len() <= 253, "{name}");
            assert!(!name.contains(".."), "{name}");
        }
    }

    #[test]
    fn what_is_too_long_for_the_api_server_is_cut_off() {
        assert_eq!(reporting_instance("node-1"), "node-1");
        assert_eq!(reporting_instance(&"n".repeat(253)), "n".repeat(128));
        assert_eq!(reporting_instance(""), CONTROLLER);
        assert_eq!(truncate("aä", 2), "a");
        assert_eq!(truncate("aä", 3), "aä");
    }
}
