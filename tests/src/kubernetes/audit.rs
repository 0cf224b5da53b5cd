//! The audit log of an API server.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde::Deserialize;

/// A request in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// The user name, for example `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// The verb: `get`, `list`, `watch` and so on.
    pub verb: String,
    /// The path with the query.
    pub uri: String,
    /// The status code of the response.
    pub status: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    #[serde(default)]
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// Reads the complete lines of the log.
pub fn read(path: &Path) -> anyhow::Result<Vec<AuditEvent>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // The last line may be incomplete.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            let line: Line =
                serde_json::from_str(line).with_context(|| format!("not an event: {line}"))?;
            Ok(AuditEvent {
                user: line.user.username,
                verb: line.verb,
                uri: line.uri,
                status: line.response_status.map_or(0, |status| status.code),
            })
        })
        .collect()
}
