//! A support bundle: a tar archive with a fixed order of files and without secrets.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use jiff::Timestamp;
use probe_cluster::{ClusterSnapshot, explain::Explanation};
use serde::Serialize;
use serde_json::Value;

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEntry {
    /// Its name, without the directory of the archive.
    pub name: &'static str,
    /// Its description in the list of files.
    pub description: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl BundleEntry {
    /// A file with text or bytes.
    pub fn new(name: &'static str, description: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name,
            description,
            bytes: bytes.into(),
        }
    }

    /// A file with one JSON value, indented.
    pub fn json(name: &'static str, description: &'static str, value: &impl Serialize) -> Self {
        // Records contain only strings, numbers, lists and maps, which always serialize.
        let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
        bytes.push(b'\n');
        Self::new(name, description, bytes)
    }
}

/// Writes the files in order, after a list of the files.
pub fn write<W: Write>(
    out: W,
    folder: &str,
    at: Timestamp,
    entries: &[BundleEntry],
) -> io::Result<W> {
    let mut archive = tar::Builder::new(out);
    let seconds = u64::try_from(at.as_second()).unwrap_or_default();
    let mut append = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_mtime(seconds);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, format!("{folder}/{name}"), bytes)
    };
    let mut list = format!("Output of probe explain {folder} at {at}.\n\n");
    for entry in entries {
        // Writing to a `String` cannot fail.
        let _ = writeln!(list, "{:<18} {}", entry.name, entry.description);
    }
    append("README", list.as_bytes())?;
    for entry in entries {
        append(entry.name, &entry.bytes)?;
    }
    archive.into_inner()
}

/// The objects of the cluster that are related to an address: its services, its pools, their advertisements, and the
/// statuses.
pub fn objects(cluster: &ClusterSnapshot, explanation: &Explanation) -> Value {
    let ip = explanation.ip;
    let services: Vec<_> = cluster.services_at(ip).collect();
    let statuses: Vec<_> = cluster
        .objects()
        .statuses
        .iter()
        .filter(|status| services.iter().any(|one| one.named == status.service))
        .collect();
    let pools: Vec<_> = cluster.pools_at(ip).collect();
    let advertisements: Vec<_> = cluster
        .inventory()
        .advertisements
        .iter()
        .filter(|one| pools.iter().any(|pool| one.advertises(pool)))
        .collect();
    let is_concerned = |object: &&Value| {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let (kind, namespace, name) = (
            text("/kind").unwrap_or_default(),
            text("/metadata/namespace"),
            text("/metadata/name").unwrap_or_default(),
        );
        let is = |known: &str, place: Option<&str>, title: &str| {
            known == kind && place == namespace && title == name
        };
        pools
            .iter()
            .any(|pool| is(pool.kind.label(), pool.namespace.as_deref(), &pool.name))
            || advertisements
                .iter()
                .any(|one| is(one.kind.label(), one.namespace.as_deref(), &one.name))
    };
    let metallb = cluster.objects().metallb.iter();
    let metallb: Vec<_> = metallb
        .filter(is_concerned)
        .map(without_annotations)
        .collect();
    serde_json::json!({
        "services": services,
        "statuses": statuses,
        "metallb": metallb,
        "invalid": cluster.objects().invalid,
        "freshness": cluster.objects().freshness,
    })
}

/// An object without annotations, which may contain anything, and without managed fields.
fn without_annotations(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("annotations");
        metadata.remove("managedFields");
    }
    object
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_files_come_in_their_order_and_the_first_lists_them() {
        let at: Timestamp = "2026-11-20T02:13:07Z".parse().unwrap();
        let entries = [
            BundleEntry::new("explain.txt", "text for people", "hello\n"),
            BundleEntry::json("explain.json", "the same as JSON", &[1, 2]),
        ];
        let bytes = write(Vec::new(), "probe-192.0.2.10", at, &entries).unwrap();
        assert_eq!(
            bytes,
            write(Vec::new(), "probe-192.0.2.10", at, &entries).unwrap(),
            "the same each time"
        );
        let mut archive = tar::Archive::new(&bytes[..]);
        let files: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().mtime().unwrap(), text)
            })
            .collect();
        let names: Vec<_> = files.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(
            names,
            [
                "probe-192.0.2.10/README",
                "probe-192.0.2.10/explain.txt",
                "probe-192.0.2.10/explain.json"
            ]
        );
        assert!(files[0].2.contains("explain.json"), "{}", files[0].2);
        assert_eq!(files[1].2, "hello\n");
        assert_eq!(files[1].1, 1_795_140_787);
    }

    #[test]
    fn annotations_are_left_out() {
        let object = serde_json::json!({
            "kind": "IPAddressPool",
            "metadata": {"name": "a", "annotations": {"token": "x"}, "managedFields": []},
        });
        assert_eq!(
            without_annotations(&object),
            serde_json::json!({"kind": "IPAddressPool", "metadata": {"name": "a"}})
        );
    }
}
