//! The report as SARIF 2.1.0, which code hosts show beside the lines that it refers to.

use probe_pools::{PoolFindingCode, PoolFindingLevel};
use serde_json::{Value, json};

use super::{LocationRecord, PoolFindingRecord, PoolsReport, text};

/// The log: one run of one tool.
pub fn sarif(report: &PoolsReport) -> Value {
    let rules: Vec<_> = PoolFindingCode::ALL
        .iter()
        .map(|&code| rule(code))
        .collect();
    let results: Vec<_> = report.findings.iter().map(result).collect();
    let mut notifications: Vec<_> = report
        .unread
        .iter()
        .map(|unread| {
            let region = unread.line.map(|line| region(line, unread.column));
            json!({
                "level": "error",
                "message": { "text": format!("cannot read it: {}", unread.reason) },
                "locations": [physical(&unread.file, region)],
            })
        })
        .collect();
    if report.more > 0 {
        notifications.push(json!({
            "level": "error",
            "message": { "text": format!("{} more overlaps are not listed", report.more) },
        }));
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "probe",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": report.complete,
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
        }],
    })
}

fn rule(code: PoolFindingCode) -> Value {
    json!({
        "id": code.label(),
        "shortDescription": { "text": text::description(code) },
        "help": { "text": text::next(code) },
        "defaultConfiguration": { "level": code.level().label() },
    })
}

fn result(finding: &PoolFindingRecord) -> Value {
    let mut locations = finding.locations.iter();
    let here: Vec<_> = locations.next().into_iter().map(sarif_location).collect();
    let related: Vec<_> = locations
        .zip(1..)
        .map(|(location, id)| {
            let mut related = sarif_location(location);
            related["id"] = json!(id);
            related["message"] = json!({ "text": super::human::describe(location) });
            related
        })
        .collect();
    json!({
        "ruleId": finding.finding.label(),
        "ruleIndex": finding.finding.number(),
        "level": level(finding.level),
        "message": { "text": finding.message },
        "locations": here,
        "relatedLocations": related,
    })
}

const fn level(level: PoolFindingLevel) -> &'static str {
    level.label()
}

fn sarif_location(location: &LocationRecord) -> Value {
    physical(
        &location.file,
        Some(region(location.line, Some(location.column))),
    )
}

fn physical(file: &str, region: Option<Value>) -> Value {
    let mut location = json!({ "artifactLocation": { "uri": uri(file) } });
    if let Some(region) = region {
        location["region"] = region;
    }
    json!({ "physicalLocation": location })
}

fn region(line: usize, column: Option<usize>) -> Value {
    let mut region = json!({ "startLine": line });
    if let Some(column) = column {
        region["startColumn"] = json!(column);
    }
    region
}

/// A path as a URI reference: relative paths stay relative, reserved characters are escaped.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for &byte in path.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            _ => {
                let digits = [byte >> 4, byte & 15].map(u32::from);
                let digits = digits.map(|digit| char::from_digit(digit, 16).unwrap_or_default());
                uri.push('%');
                uri.extend(digits.map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
    uri
}
